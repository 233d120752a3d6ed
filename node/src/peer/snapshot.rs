//! A snapshot of one group from store to store: read on a thread of its own from one fixed moment, sent in
//! bounded chunks at a bounded rate, staged by the receiver and only then told to its machine.

use std::io;
use std::time::Duration;

use crossbeam::channel;
use flotilla_core::proto::internal::{
    RaftMessage, SnapshotAck, SnapshotChunk, SnapshotHeader, SnapshotMark, SnapshotRow,
};
use flotilla_core::snapshot::{self, Limits, Receiver, Scope, Sender};
use flotilla_core::view::View;
use flotilla_core::{GroupId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::listen::Port;
use super::{Event, SNAPSHOT, dial, frame, hello, listen};
use crate::failpoint::Failpoint;
use crate::metrics::peers::{SnapshotMeter, SnapshotWay};
use crate::metrics::upstream;
use crate::router::Board;
use crate::store::Store;
use crate::supervise::fatal;
use crate::tls::Connector;

/// Bytes a second of one snapshot, so that it does not take the network from the log. A range is sent while
/// it is in use, by those who serve it, and nobody waits for the copy: it takes its time. Without the spine a
/// member can do nothing.
const SPINE_BYTES_PER_SECOND_MAX: u64 = 100 << 20;
const RANGE_BYTES_PER_SECOND_MAX: u64 = 32 << 20;
/// What threads that read and write snapshots add to their niceness: those that serve clients go first.
const NICENESS: i32 = 10;
/// A receiver that says nothing for this long is given up.
const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Chunks read ahead of the network.
const CHUNKS_AHEAD_MAX: usize = 4;

enum Read {
    Header(SnapshotMark),
    Chunk(SnapshotChunk),
    Failed(String),
}

/// Sends what the store has of the message's group to a peer. Returns the bytes sent.
pub(super) async fn send(
    id: u64,
    to: NodeId,
    tls: &Connector,
    urls: &[String],
    board: &Board,
    store: Store,
    message: RaftMessage,
) -> io::Result<u64> {
    let url = urls.first().ok_or_else(|| io::Error::other("the peer has no URL"))?;
    let stream = dial::upgrade(tls, url, SNAPSHOT).await?;
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = frame::Reader::new(reader);
    let hello = hello(board, to);
    frame::write(&mut writer, &hello).await?;
    let greeting = reader.hello().await?;
    if greeting.is_none_or(|other| other.cluster_id != hello.cluster_id) {
        return Err(io::Error::other("the peer belongs to another cluster"));
    }

    let (chunks, mut incoming) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let (acks, acked) = channel::unbounded();
    let group = GroupId(message.group);
    let rate = match group {
        GroupId::SPINE => SPINE_BYTES_PER_SECOND_MAX,
        _ => RANGE_BYTES_PER_SECOND_MAX,
    };
    aside(move || store.with_snapshot(|view| read(id, group, view, &chunks, &acked)))?;

    let began = Instant::now();
    let mut sent_bytes = 0_u64;
    // The receiver hangs up after its last word; whether that was all is for the thread to say.
    let mut is_hung_up = false;
    loop {
        tokio::select! {
            read = incoming.recv() => {
                let bytes = match read {
                    Some(Read::Header(mark)) => {
                        let header =
                            SnapshotHeader { id, message: Some(message.clone()), mark: Some(mark) };
                        frame::write(&mut writer, &header).await?
                    }
                    Some(Read::Chunk(chunk)) => frame::write(&mut writer, &chunk).await?,
                    Some(Read::Failed(reason)) => return Err(io::Error::other(reason)),
                    // Everything is sent and acknowledged.
                    None => return Ok(sent_bytes),
                };
                Failpoint::SnapshotChunkSent.reached();
                sent_bytes += bytes as u64;
                let due = sent_bytes.saturating_mul(1_000_000) / rate;
                sleep_until(began + Duration::from_micros(due)).await;
            }
            ack = timeout(ACK_TIMEOUT, reader.next::<SnapshotAck>()), if !is_hung_up => {
                match ack.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
                    // The thread has gone only after a failure, which comes through the other arm.
                    Some(ack) => drop(acks.send(ack)),
                    None => is_hung_up = true,
                }
            }
        }
    }
}

fn read(
    id: u64,
    group: GroupId,
    view: &dyn View,
    chunks: &mpsc::Sender<Read>,
    acked: &channel::Receiver<SnapshotAck>,
) {
    let fail = |reason: String| {
        // Nobody listens when the connection has ended already.
        let _ = chunks.blocking_send(Read::Failed(reason));
    };
    let (mark, scope) = match snapshot::to_send(view, group) {
        Ok(Some(found)) => found,
        Ok(None) => return fail(format!("the store has nothing of group {group} to send")),
        Err(error) => fatal(&error.to_string()),
    };
    if chunks.blocking_send(Read::Header(mark)).is_err() {
        return;
    }
    let mut sender = Sender::new(id, scope, Limits::default());
    while !sender.is_finished() {
        match sender.next(view) {
            Ok(Some(chunk)) => {
                if chunks.blocking_send(Read::Chunk(chunk)).is_err() {
                    return;
                }
            }
            Ok(None) => match acked.recv_timeout(ACK_TIMEOUT) {
                Ok(ack) => {
                    if let Err(error) = sender.on_ack(&ack) {
                        return fail(error.to_string());
                    }
                }
                Err(_) => return fail("the receiver is silent".to_owned()),
            },
            Err(error) => return fail(error.to_string()),
        }
    }
}

/// Takes a snapshot from a peer and hands it to the machine.
pub(super) async fn receive<S: dial::Stream>(port: Port, stream: S) {
    if let Err(error) = receive_all(&port, stream).await {
        tracing::warn!(%error, "a snapshot was not received");
    }
}

async fn receive_all<S: dial::Stream>(port: &Port, stream: S) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = frame::Reader::new(reader);
    let Some(from) = listen::greet(port, &mut reader, &mut writer).await? else { return Ok(()) };
    let header = reader.next::<SnapshotHeader>().await?;
    let header = header.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let message = header.message.clone().unwrap_or_default();
    let group = GroupId(message.group);
    let store = port.store.clone();
    let runs = port.runs.clone();
    let scope = blocking(move || Ok(Scope::to_receive(&store, group, &*runs)?)).await?;
    // This node hears of a range in the spine's log, and may be behind.
    let scope = scope.ok_or_else(|| io::Error::other(format!("range {group} is not known yet")))?;
    let mut receiver =
        Receiver::new(&header, scope, Limits::default()).map_err(io::Error::other)?;
    tracing::info!(%from, %group, index = receiver.mark().index, "receiving a snapshot");
    let meter = SnapshotMeter::begin(SnapshotWay::From(from.0));
    let began = Instant::now();
    let store = port.store.clone();
    let mut staged = OffThread(Some(blocking(move || store.stage()).await?));
    while !receiver.is_complete() {
        let chunk = timeout(ACK_TIMEOUT, reader.next::<SnapshotChunk>()).await;
        let chunk = chunk.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let chunk = chunk.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let received = match receiver.on_chunk(chunk) {
            Ok(received) => received,
            Err(error) => {
                frame::write(&mut writer, &receiver.refuse()).await?;
                return Err(io::Error::other(error));
            }
        };
        let rows: Vec<SnapshotRow> = received
            .rows
            .into_iter()
            .map(|row| SnapshotRow { column: row.column as u32, key: row.key, value: row.value })
            .collect();
        let staging = staged.0.take().expect("put back below");
        staged.0 = Some(blocking(move || staging.append(&rows).map(|()| staging)).await?);
        Failpoint::SnapshotChunkWritten.reached();
        if receiver.is_complete() {
            let staging = staged.0.take().expect("put back above");
            let finishing = Instant::now();
            let (done, finished) = oneshot::channel();
            aside(move || drop(done.send(staging.finish(group))))?;
            let sealed = finished.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
            Failpoint::SnapshotSealed.reached();
            metrics::histogram!(upstream::SNAPSHOT_FSYNC_SECONDS).record(finishing.elapsed());
            metrics::histogram!(upstream::SNAPSHOT_SAVE_SECONDS).record(began.elapsed());
            meter.arrived();
            frame::write(&mut writer, &received.ack).await?;
            let mark = receiver.mark().clone();
            // The actor ends only with the process.
            let _ = port.events.send(Event::SnapshotReceived(message, mark, sealed)).await;
            return Ok(());
        }
        frame::write(&mut writer, &received.ack).await?;
    }
    Ok(())
}

/// What is removed from the disk when it is dropped, which must not keep this thread.
struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            tokio::task::spawn_blocking(move || drop(value));
        }
    }
}

/// Does it on a thread of its own, which yields to those that serve clients.
fn aside(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let niced = move || {
        // Not to be nice is no failure.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        work();
    };
    std::thread::Builder::new().name("snapshot".to_owned()).spawn(niced).map(drop)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::store::Error> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?.map_err(io::Error::other)
}
