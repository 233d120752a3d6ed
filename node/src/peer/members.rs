//! What peers tell each other over plain HTTP: the members, in etcd's form, and the version.

use std::io;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use flotilla_core::proto::internal::Member;
use serde::{Deserialize, Serialize};

use super::dial;
use super::listen::Port;
use crate::tls::Connector;

pub(super) const CLUSTER_HEADER: &str = "x-etcd-cluster-id";

#[derive(Serialize, Deserialize)]
struct MemberJson {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

/// A running cluster as one of its members describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteMembers {
    /// The cluster's id.
    pub cluster_id: u64,
    /// Its members.
    pub members: Vec<Member>,
}

/// Asks the node at a peer URL who the members are.
///
/// # Errors
/// It cannot be reached or does not answer as a member does.
pub async fn fetch(tls: &Connector, url: &str) -> io::Result<RemoteMembers> {
    let (cluster, body) =
        dial::get(tls, url, "/members", CLUSTER_HEADER, dial::DIAL_TIMEOUT).await?;
    let cluster_id = u64::from_str_radix(&cluster, 16).map_err(io::Error::other)?;
    let members: Vec<MemberJson> = serde_json::from_slice(&body).map_err(io::Error::other)?;
    let members = members
        .into_iter()
        .map(|member| Member {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            is_learner: member.is_learner,
            ..Member::default()
        })
        .collect();
    Ok(RemoteMembers { cluster_id, members })
}

pub(super) async fn list(State(port): State<Port>) -> Response {
    let members: Vec<MemberJson> = port
        .board
        .notice()
        .members
        .into_iter()
        .map(|member| MemberJson {
            id: member.id,
            peer_urls: member.peer_urls,
            is_learner: member.is_learner,
            name: member.name,
            client_urls: member.client_urls,
        })
        .collect();
    let cluster_id = port.board.cluster_id();
    ([(CLUSTER_HEADER, format!("{cluster_id:x}"))], Json(members)).into_response()
}

pub(super) async fn version(State(port): State<Port>) -> Response {
    let cluster_version = port.board.notice().cluster_version;
    Json(serde_json::json!({
        "etcdserver": crate::ETCD_VERSION,
        "etcdcluster": cluster_version,
    }))
    .into_response()
}
