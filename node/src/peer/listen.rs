//! The peer port: upgrades to frames, and the few things peers ask over plain HTTP.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use flotilla_core::NodeId;
use flotilla_core::proto::internal::{PeerFrame, PeerHello};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;

use super::{Identity, PROTOCOL, SNAPSHOT, STREAM, dial, frame, members, snapshot};
use crate::range::Completion;
use crate::router::Board;
use crate::store::Store;

/// Where peers come in.
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

#[derive(Clone)]
pub(super) struct Port {
    pub(super) identity: Arc<Identity>,
    pub(super) board: Arc<Board>,
    pub(super) store: Store,
    pub(super) completions: mpsc::Sender<Completion>,
}

/// Serves peers until the process ends.
pub async fn serve(
    listener: Listener,
    identity: Arc<Identity>,
    board: Arc<Board>,
    store: Store,
    completions: mpsc::Sender<Completion>,
) {
    let port = Port { identity, board, store, completions };
    let router = Router::new()
        .route(&format!("/{STREAM}"), post(on_stream))
        .route(&format!("/{SNAPSHOT}"), post(on_snapshot))
        .route("/members", get(members::list))
        .route("/version", get(members::version))
        .with_state(port);
    loop {
        let stream: io::Result<Box<dyn dial::Stream>> = match &listener {
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, _)) => dial::tune(&stream).map(|()| Box::new(stream) as _),
                Err(error) => Err(error),
            },
            Listener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as _)
            }
        };
        match stream {
            Ok(stream) => {
                let service = TowerToHyperService::new(router.clone());
                actix::spawn(async move {
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
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
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
    let Some(hello) = reader.next::<PeerHello>().await? else { return Ok(None) };
    let identity = &port.identity;
    let cluster_id = identity.cluster_id.load(Ordering::Relaxed);
    let answer =
        PeerHello { protocol: PROTOCOL, cluster_id, from: identity.node.0, to: hello.from };
    frame::write(writer, &answer).await?;
    let is_ours =
        hello.protocol == PROTOCOL && hello.cluster_id == cluster_id && hello.to == identity.node.0;
    if !is_ours {
        tracing::warn!(
            from = %NodeId(hello.from),
            theirs = format_args!("{:x}", hello.cluster_id),
            ours = format_args!("{cluster_id:x}"),
            protocol = hello.protocol,
            "refused a peer of another cluster or protocol, or one that looked for another member"
        );
        writer.shutdown().await?;
        return Ok(None);
    }
    Ok(Some(NodeId(hello.from)))
}

async fn receive<S: dial::Stream>(port: Port, stream: S) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = frame::Reader::new(reader);
    let result: io::Result<()> = async {
        let Some(from) = greet(&port, &mut reader, &mut writer).await? else { return Ok(()) };
        while let Some(frame) = reader.next::<PeerFrame>().await? {
            if port.completions.send(Completion::Frame(from, frame)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a peer's stream ended");
    }
}
