//! `/members/view`: how a member stands, for the consoles of the others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use flotilla_core::proto::internal::MemberView;
use prost::Message;
use tokio::sync::Semaphore;

use super::dial;
use super::listen::Port;
use super::members::CLUSTER_HEADER;
use crate::tls::Connector;

/// Says how this member stands. It may take a few milliseconds.
pub type Tell = Arc<dyn Fn() -> MemberView + Send + Sync>;

/// Whoever does not answer for so long is not shown.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Answers that are made at once; who comes then is refused, and asks again by itself.
static ANSWERS: Semaphore = Semaphore::const_new(2);

/// Asks the member at a peer URL.
///
/// # Errors
/// It cannot be reached, does not tell, or is of another cluster.
pub async fn fetch_view(tls: &Connector, url: &str, cluster_id: u64) -> io::Result<MemberView> {
    let asked = dial::get(tls, url, "/members/view", CLUSTER_HEADER, ANSWER_WITHIN);
    let (_, body) = asked.await?;
    let view = MemberView::decode(body).map_err(io::Error::other)?;
    if view.cluster_id != cluster_id {
        return Err(io::Error::other("the peer answered for another cluster"));
    }
    Ok(view)
}

pub(super) async fn answer(State(port): State<Port>) -> Response {
    let Ok(_permit) = ANSWERS.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "others are being answered").into_response();
    };
    let (tell, cluster_id) = (port.tell.clone(), port.board.cluster_id());
    match tokio::task::spawn_blocking(move || tell().encode_to_vec()).await {
        Ok(view) => ([(CLUSTER_HEADER, format!("{cluster_id:x}"))], view).into_response(),
        // Only a node that stops drops the work; a panic has ended the process.
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
