//! The stream to one peer: a task that keeps it connected and writes what is queued. While it is
//! down, messages are dropped and forwards given back.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use flotilla_core::NodeId;
use flotilla_core::proto::internal::{Forward, PeerFrame, PeerHello};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::{Event, QUEUE_FRAMES_MAX, STREAM, dial, frame, hello};
use crate::metrics::peers::PeerMeters;
use crate::router::Board;
use crate::tls::Connector;

/// Pauses between attempts to connect, shortest and longest.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Messages of consensus gathered for a peer that does not take them.
const GATHERED_MESSAGES_MAX: usize = 1_024;
/// Frames are written together up to about so many bytes.
const WRITE_BYTES: usize = 1 << 20;
/// How often a peer is probed for the time that a message takes there and back.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// Microseconds since a moment, and never 0.
fn micros(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

pub(super) struct Link {
    urls: Vec<String>,
    gathering: PeerFrame,
    queue: mpsc::Sender<PeerFrame>,
    is_connected: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Link {
    pub(super) fn open(
        node: NodeId,
        urls: Vec<String>,
        tls: Connector,
        board: Arc<Board>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        let is_connected = Arc::new(AtomicBool::new(false));
        let meters = PeerMeters::new(board.member_id(), node.0);
        let task = Task {
            node,
            meters,
            urls: urls.clone(),
            tls,
            board,
            events,
            frames,
            is_connected: is_connected.clone(),
        };
        let task = actix::spawn(task.run());
        Self { urls, gathering: PeerFrame::default(), queue, is_connected, task }
    }

    pub(super) fn urls(&self) -> &[String] {
        &self.urls
    }

    pub(super) fn gathering(&mut self) -> &mut PeerFrame {
        &mut self.gathering
    }

    /// Queues what was gathered. While there is no room it stays, and the next frame will be
    /// larger; while there is no connection, the forwards are given back and the rest is dropped.
    pub(super) fn flush(&mut self) -> Vec<Forward> {
        if self.gathering == PeerFrame::default() {
            return Vec::new();
        }
        if !self.is_connected.load(Ordering::Acquire) {
            return mem::take(&mut self.gathering).forwards;
        }
        match self.queue.try_reserve() {
            Ok(place) => place.send(mem::take(&mut self.gathering)),
            Err(_) => {
                // Consensus sends again what is lost. Requests and answers are bounded by what
                // clients may have under way.
                if self.gathering.raft.len() > GATHERED_MESSAGES_MAX {
                    self.gathering.raft.clear();
                    metrics::counter!(crate::metrics::PEER_FRAMES_DROPPED).increment(1);
                }
            }
        }
        Vec::new()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    node: NodeId,
    urls: Vec<String>,
    tls: Connector,
    board: Arc<Board>,
    events: mpsc::Sender<Event>,
    frames: mpsc::Receiver<PeerFrame>,
    is_connected: Arc<AtomicBool>,
    meters: PeerMeters,
}

impl Task {
    async fn run(mut self) {
        let mut pause = RETRY_MIN;
        let mut last_error = String::new();
        for attempt in 0.. {
            let url = &self.urls[attempt % self.urls.len().max(1)];
            match self.connect(url).await {
                Ok(stream) => {
                    pause = RETRY_MIN;
                    last_error.clear();
                    tracing::info!(peer = %self.node, %url, "connected to a peer");
                    self.report(Event::Connected(self.node)).await;
                    self.is_connected.store(true, Ordering::Release);
                    self.meters.active.set(1.0);
                    let error = self.write(stream).await;
                    self.is_connected.store(false, Ordering::Release);
                    self.meters.active.set(0.0);
                    self.meters.disconnected.increment(1);
                    self.meters.sent_failures.increment(1);
                    tracing::warn!(peer = %self.node, %error, "lost a peer");
                    let unsent = self.drain();
                    self.report(Event::Disconnected(self.node, unsent)).await;
                }
                Err(error) => {
                    self.meters.sent_failures.increment(1);
                    let text = error.to_string();
                    // The same failure over and over says nothing new.
                    if text != last_error {
                        tracing::warn!(peer = %self.node, %url, %error, "cannot reach a peer");
                        last_error = text;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn connect(&self, url: &str) -> io::Result<Box<dyn dial::Stream>> {
        let mut stream = dial::upgrade(&self.tls, url, STREAM).await?;
        let hello = hello(&self.board, self.node);
        frame::write(&mut stream, &hello).await?;
        let answer: Option<PeerHello> = frame::Reader::new(&mut stream).next().await?;
        let is_removed = answer.as_ref().is_some_and(|answer| answer.is_removed);
        let is_accepted = answer.is_some_and(|answer| {
            answer.protocol == hello.protocol
                && answer.cluster_id == hello.cluster_id
                && answer.from == hello.to
        });
        if !is_accepted {
            return Err(io::Error::other(
                "the peer belongs to another cluster or is another member",
            ));
        }
        if is_removed {
            self.report(Event::Removed).await;
            return Err(io::Error::other("the peer says that this member was removed"));
        }
        Ok(Box::new(stream))
    }

    /// Writes frames until the connection breaks.
    async fn write(&mut self, stream: Box<dyn dial::Stream>) -> io::Error {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = frame::Reader::new(reader);
        let mut buffer = BytesMut::new();
        let mut probes = tokio::time::interval(PROBE_INTERVAL);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Numbers of probes are moments since this one.
        let epoch = Instant::now();
        loop {
            let first = tokio::select! {
                frame = self.frames.recv() => frame,
                _ = probes.tick() => {
                    Some(PeerFrame { probe: micros(epoch), ..PeerFrame::default() })
                }
                // A peer writes nothing here but echoes of probes.
                echo = reader.next::<PeerFrame>() => match echo {
                    Ok(Some(PeerFrame { probe, .. })) if probe > 0 => {
                        let took = micros(epoch).saturating_sub(probe);
                        self.meters.round_trip.record(Duration::from_micros(took));
                        continue;
                    }
                    Ok(_) => return io::ErrorKind::UnexpectedEof.into(),
                    Err(error) => return error,
                },
            };
            let Some(first) = first else { return io::ErrorKind::NotConnected.into() };
            buffer.clear();
            frame::put(&first, &mut buffer);
            while buffer.len() < WRITE_BYTES
                && let Ok(next) = self.frames.try_recv()
            {
                frame::put(&next, &mut buffer);
            }
            self.meters.sent_bytes.increment(buffer.len() as u64);
            if let Err(error) = writer.write_all(&buffer).await {
                return error;
            }
            if let Err(error) = writer.flush().await {
                return error;
            }
        }
    }

    fn drain(&mut self) -> Vec<Forward> {
        let mut unsent = Vec::new();
        while let Ok(frame) = self.frames.try_recv() {
            unsent.extend(frame.forwards);
        }
        unsent
    }

    async fn report(&self, event: Event) {
        // The actor ends only with the process.
        let _ = self.events.send(event).await;
    }
}
