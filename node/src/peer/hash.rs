//! `/members/hashkv`: what a member holds at a revision, as a checksum. In etcd's form, with the revision
//! in the query and one field more.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flotilla_core::mvcc::{self, Checksum, Failure, Head};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::dial;
use super::listen::Port;
use super::members::CLUSTER_HEADER;
use crate::router::Board;
use crate::store::Store;
use crate::supervise::fatal;
use crate::tls::Connector;

/// A compaction may go on faster than the state is read.
const ATTEMPTS_MAX: usize = 5;

/// All of a store is read for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// Answers that are made at once; further ones are refused.
static ANSWERS: Semaphore = Semaphore::const_new(1);

#[derive(Serialize, Deserialize)]
struct HeaderJson {
    cluster_id: u64,
    member_id: u64,
    revision: i64,
    raft_term: u64,
}

#[derive(Serialize, Deserialize)]
struct HashJson {
    header: HeaderJson,
    hash: u32,
    compact_revision: i64,
    hash_revision: i64,
    live_hash: u32,
}

/// The checksum of everything here at a revision, and the compact revision it was made at. `None` if it
/// cannot be told: the state is not shown here, not yet or not in whole.
pub async fn checksum(store: &Store, board: &Board, revision: i64) -> Option<(Checksum, i64)> {
    for _ in 0..ATTEMPTS_MAX {
        let (head, replacements) = (board.head(), board.replacements());
        if !board.is_whole() || head.revision < revision {
            return None;
        }
        let made = make(store, head, revision).await;
        if board.replacements() != replacements {
            continue;
        }
        match made {
            Ok(checksum) => return Some((checksum, head.compact_revision)),
            Err(Failure::Overtaken) => {}
            Err(Failure::Client(_)) => return None,
            Err(Failure::View(error)) => fatal(&error.to_string()),
        }
    }
    None
}

async fn make(store: &Store, head: Head, revision: i64) -> Result<Checksum, Failure> {
    let store = store.clone();
    let work = move || store.with_snapshot(|view| mvcc::checksum(view, head, revision));
    // Only a node that stops drops the work.
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Failure::Overtaken))
}

/// Asks the member at a peer URL. The answer is as that of `checksum`, with the member's id.
///
/// # Errors
/// It cannot be reached, cannot tell, or is of another cluster.
pub async fn fetch_checksum(
    tls: &Connector,
    url: &str,
    cluster_id: u64,
    revision: i64,
) -> io::Result<(u64, Checksum, i64)> {
    let path = format!("/members/hashkv?revision={revision}");
    let (_, body) = dial::get(tls, url, &path, CLUSTER_HEADER, ANSWER_WITHIN).await?;
    let answer: HashJson = serde_json::from_slice(&body).map_err(io::Error::other)?;
    if answer.header.cluster_id != cluster_id || answer.hash_revision != revision {
        return Err(io::Error::other("the peer answered for another cluster or revision"));
    }
    let checksum = Checksum { history: answer.hash, live: answer.live_hash };
    Ok((answer.header.member_id, checksum, answer.compact_revision))
}

pub(super) async fn answer(
    State(port): State<Port>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let board = &port.board;
    let revision = query.get("revision").and_then(|text| text.parse().ok()).filter(|it| *it > 0);
    let Some(revision) = revision else {
        return (StatusCode::BAD_REQUEST, "a revision is asked for").into_response();
    };
    let Ok(_permit) = ANSWERS.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "another member is being answered")
            .into_response();
    };
    let Some((checksum, compact_revision)) = checksum(&port.store, board, revision).await else {
        return (StatusCode::BAD_REQUEST, "the revision is not shown here").into_response();
    };
    let header = HeaderJson {
        cluster_id: board.cluster_id(),
        member_id: board.member_id(),
        revision: board.head().revision,
        raft_term: board.term(),
    };
    let Checksum { history: hash, live: live_hash } = checksum;
    let answer = HashJson { header, hash, compact_revision, hash_revision: revision, live_hash };
    ([(CLUSTER_HEADER, format!("{:x}", board.cluster_id()))], Json(answer)).into_response()
}
