//! The peer port: upgrades to frames, and the few things peers ask over plain HTTP.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use flotilla_core::proto::internal::PeerFrame;
use flotilla_core::{GroupId, NodeId};
use futures::future::join_all;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::{Event, SNAPSHOT, STREAM, Tell, dial, frame, hash, hello, members, snapshot, view};
use crate::metrics::peers::FromPeer;
use crate::router::Board;
use crate::store::Store;
use crate::tls;

/// Pause after a connection could not be accepted: descriptors come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where peers come in.
pub struct Listener {
    /// What is listened on.
    pub socket: Socket,
    /// A connection begins with a handshake.
    pub is_tls: bool,
}

/// What is listened on.
pub enum Socket {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// A connection and the address it comes from, if it has one.
    async fn accept(&self) -> io::Result<(Box<dyn dial::Stream>, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                dial::tune(&stream)?;
                Ok((Box::new(stream), Some(from.ip())))
            }
            Socket::Unix(listener) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }

    async fn hang_up_on_all(&self) {
        loop {
            if self.accept().await.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hangs up on everyone, so that nobody waits for a node which cannot answer yet.
pub async fn turn_away(listeners: &[Listener]) -> Infallible {
    join_all(listeners.iter().map(Listener::hang_up_on_all)).await;
    pending().await
}

#[derive(Clone)]
pub(super) struct Port {
    pub(super) board: Arc<Board>,
    pub(super) store: Store,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) tell: Tell,
    pub(super) runs: Runs,
}

/// Whether a replica of a range is on this node.
pub type Runs = Arc<dyn Fn(GroupId) -> bool + Send + Sync>;

/// Serves peers until the process ends. `tls` is needed for a listener that has it.
pub async fn serve(
    listener: Listener,
    tls: Option<tls::Acceptor>,
    board: Arc<Board>,
    store: Store,
    events: mpsc::Sender<Event>,
    tell: Tell,
    runs: Runs,
) {
    let tls = tls.filter(|_| listener.is_tls);
    assert_eq!(tls.is_some(), listener.is_tls, "the configuration has a certificate for it");
    let port = Port { board, store, events, tell, runs };
    let router = Router::new()
        .route(&format!("/{STREAM}"), post(on_stream))
        .route(&format!("/{SNAPSHOT}"), post(on_snapshot))
        .route("/members", get(members::list))
        .route("/members/hashkv", get(hash::answer))
        .route("/members/view", get(view::answer))
        .route("/version", get(members::version))
        .with_state(port);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (tls, service) = (tls.clone(), TowerToHyperService::new(router.clone()));
                actix::spawn(async move {
                    let Some(stream) = secured(stream, from, tls).await else { return };
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection on the peer port ended");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely; they come back.
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connection after its handshake, if it has one. `None` when that failed.
async fn secured(
    stream: Box<dyn dial::Stream>,
    from: Option<IpAddr>,
    tls: Option<tls::Acceptor>,
) -> Option<Box<dyn dial::Stream>> {
    let Some(tls) = tls else { return Some(stream) };
    match tls.handshake(stream, from).await {
        Ok(handshaken) => Some(Box::new(handshaken.stream)),
        Err(error) => {
            let from = from.map(|from| from.to_string()).unwrap_or_default();
            tracing::warn!(from, %error, "rejected connection on peer endpoint");
            None
        }
    }
}

fn wants(headers: &HeaderMap, protocol: &str) -> bool {
    headers.get(UPGRADE).is_some_and(|value| value == protocol)
}

fn switch(protocol: &'static str) -> Response {
    (StatusCode::SWITCHING_PROTOCOLS, [(CONNECTION, "upgrade"), (UPGRADE, protocol)])
        .into_response()
}

async fn on_stream(State(port): State<Port>, request: Request) -> Response {
    if !wants(request.headers(), STREAM) {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    }
    actix::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(stream) => receive(port, TokioIo::new(stream)).await,
            Err(error) => tracing::debug!(%error, "a peer connection was not upgraded"),
        }
    });
    switch(STREAM)
}

async fn on_snapshot(State(port): State<Port>, request: Request) -> Response {
    if !wants(request.headers(), SNAPSHOT) {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    }
    actix::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(stream) => snapshot::receive(port, TokioIo::new(stream)).await,
            Err(error) => tracing::debug!(%error, "a snapshot connection was not upgraded"),
        }
    });
    switch(SNAPSHOT)
}

/// Answers the first frame of a connection. `None` when the peer is not one of ours.
pub(super) async fn greet<S: dial::Stream>(
    port: &Port,
    reader: &mut frame::Reader<tokio::io::ReadHalf<S>>,
    writer: &mut tokio::io::WriteHalf<S>,
) -> io::Result<Option<NodeId>> {
    let Some(theirs) = reader.hello().await? else { return Ok(None) };
    let from = NodeId(theirs.from);
    let mut ours = hello(&port.board, from);
    let is_ours = theirs.protocol == ours.protocol
        && theirs.cluster_id == ours.cluster_id
        && theirs.to == ours.from;
    ours.is_removed = is_ours && port.board.is_removed(theirs.from);
    frame::write(writer, &ours).await?;
    if is_ours && !ours.is_removed {
        // The actor ends only with the process.
        let _ = port.events.send(Event::Greeted(from, theirs.peer_urls)).await;
        return Ok(Some(from));
    }
    if ours.is_removed {
        tracing::warn!(%from, "refused a member that was removed from the cluster");
    } else {
        tracing::warn!(
            %from,
            theirs = format_args!("{:x}", theirs.cluster_id),
            ours = format_args!("{:x}", ours.cluster_id),
            protocol = theirs.protocol,
            "refused a peer of another cluster or protocol, or one that looked for another member"
        );
    }
    writer.shutdown().await?;
    Ok(None)
}

async fn receive<S: dial::Stream>(port: Port, stream: S) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = frame::Reader::new(reader);
    let mut meters = None;
    let result: io::Result<()> = async {
        let Some(from) = greet(&port, &mut reader, &mut writer).await? else { return Ok(()) };
        let meters = meters.insert(FromPeer::new(from.0));
        while let Some(frame) = reader.next::<PeerFrame>().await? {
            meters.received_bytes.increment(reader.taken_bytes());
            // Also by a probe: who has nothing to say would not be told. It hears the reason when it
            // connects again.
            if port.board.is_removed(from.0) {
                return Err(io::Error::other("the peer was removed from the cluster"));
            }
            if frame.probe > 0 {
                let echo = PeerFrame { probe: frame.probe, ..PeerFrame::default() };
                frame::write(&mut writer, &echo).await?;
                continue;
            }
            if port.events.send(Event::Frame(from, frame)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = result {
        if let Some(FromPeer { failures, .. }) = meters {
            failures.increment(1);
        }
        tracing::debug!(%error, "a peer's stream ended");
    }
}
