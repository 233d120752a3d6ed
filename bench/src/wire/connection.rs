//! One HTTP/2 connection: calls under way, windows of flow control, and what waits to be written.
//!
//! Callers and the driver share one short lock; nothing is awaited under it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::driver;
use super::frame;
use super::hpack;
use super::method::Method;
use super::status::{Code, Status};

/// Bytes before each gRPC message: a flag and a length.
pub(super) const PREFIX_BYTES: usize = 5;
/// Largest message accepted.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a unary call may take.
    pub call_timeout: Duration,
    /// Bytes of one stream the server may send before we take them.
    pub stream_window_bytes: u32,
    /// Sent as the `token` header, if auth is on.
    pub token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { call_timeout: Duration::from_secs(10), stream_window_bytes: 1 << 20, token: None }
    }
}

/// An open connection. Clones share it.
#[derive(Clone)]
pub struct Connection {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to write.
    pub(super) writable: Notify,
    pub(super) options: Options,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves at worst a call that fails.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Stream ids are small odd numbers; multiplying spreads them well enough.
#[derive(Default)]
pub(super) struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

pub(super) struct State {
    pub(super) out: Vec<u8>,
    pub(super) calls: HashMap<u32, Call, BuildHasherDefault<StreamHasher>>,
    next_id: u32,
    pub(super) streams_max: usize,
    pub(super) send_window: i64,
    pub(super) stream_send_window: i64,
    /// Window of each stream in the other direction.
    pub(super) stream_window_bytes: u32,
    /// Calls whose request waits for a window.
    pub(super) blocked: VecDeque<u32>,
    pub(super) encoder: hpack::Encoder,
    pub(super) closed: Option<Status>,
    /// Callers that wait for a free stream.
    pub(super) waiting: VecDeque<Waker>,
}

/// One call under way.
pub(super) struct Call {
    /// Request bytes a window holds back.
    unsent: Vec<u8>,
    ends_after: bool,
    is_open: bool,
    pub(super) send_window: i64,
    /// Bytes of an incomplete message.
    pub(super) partial: Vec<u8>,
    pub(super) ready: VecDeque<Bytes>,
    pub(super) end: Option<Result<(), Status>>,
    pub(super) http_status: u16,
    pub(super) waker: Option<Waker>,
    pub(super) deadline: Option<Instant>,
    /// Bytes received, not yet given back to the server's window.
    pub(super) unreturned_bytes: u32,
    pub(super) is_unary: bool,
}

impl Call {
    /// Gives received bytes back to the server's window, unless messages wait to be taken: a
    /// caller who does not take them holds the server up. True if there is something to write.
    pub(super) fn return_window(&mut self, id: u32, window: u32, out: &mut Vec<u8>) -> bool {
        let is_due =
            self.end.is_none() && self.ready.is_empty() && self.unreturned_bytes >= window / 2;
        if is_due {
            frame::write_window_update(out, id, self.unreturned_bytes);
            self.unreturned_bytes = 0;
        }
        is_due
    }
}

impl State {
    fn open(&mut self, method: Method, deadline: Option<Instant>, is_unary: bool) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        let at = self.out.len();
        frame::write_head(&mut self.out, 0, frame::HEADERS, frame::END_HEADERS, id);
        self.encoder.encode(method, &mut self.out);
        let length = (self.out.len() - at - frame::HEAD_BYTES) as u32;
        self.out[at..at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
        let call = Call {
            unsent: Vec::new(),
            ends_after: false,
            is_open: true,
            send_window: self.stream_send_window,
            partial: Vec::new(),
            ready: VecDeque::new(),
            end: None,
            http_status: 200,
            waker: None,
            deadline,
            unreturned_bytes: 0,
            is_unary,
        };
        self.calls.insert(id, call);
        id
    }

    /// Queues one message, and the end of the request if `ends`.
    fn send(&mut self, id: u32, message: &[u8], ends: bool) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        let length = message.len() + PREFIX_BYTES;
        let prefix = (message.len() as u32).to_be_bytes();
        let fits = length <= frame::PAYLOAD_BYTES_MAX
            && length as i64 <= self.send_window
            && length as i64 <= call.send_window
            && call.unsent.is_empty();
        if fits {
            self.send_window -= length as i64;
            call.send_window -= length as i64;
            let flags = if ends { frame::END_STREAM } else { 0 };
            frame::write_head(&mut self.out, length, frame::DATA, flags, id);
            self.out.push(0);
            self.out.extend_from_slice(&prefix);
            self.out.extend_from_slice(message);
            call.is_open = !ends;
            return;
        }
        call.unsent.push(0);
        call.unsent.extend_from_slice(&prefix);
        call.unsent.extend_from_slice(message);
        call.ends_after = ends;
        if !self.blocked.contains(&id) {
            self.blocked.push_back(id);
        }
        self.send_blocked();
    }

    /// Ends the request of a call.
    fn finish(&mut self, id: u32) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.ends_after = true;
        if call.unsent.is_empty() && call.is_open {
            call.is_open = false;
            frame::write_head(&mut self.out, 0, frame::DATA, frame::END_STREAM, id);
        }
    }

    /// Writes what the windows now allow of requests held back.
    pub(super) fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else { return };
            let Some(call) = self.calls.get_mut(&id) else { continue };
            let mut sent = 0;
            while sent < call.unsent.len() {
                let window = self.send_window.min(call.send_window).max(0) as usize;
                let length = (call.unsent.len() - sent).min(frame::PAYLOAD_BYTES_MAX).min(window);
                if length == 0 {
                    break;
                }
                let is_last = sent + length == call.unsent.len() && call.ends_after;
                let flags = if is_last { frame::END_STREAM } else { 0 };
                frame::write_head(&mut self.out, length, frame::DATA, flags, id);
                self.out.extend_from_slice(&call.unsent[sent..sent + length]);
                sent += length;
                self.send_window -= length as i64;
                call.send_window -= length as i64;
                call.is_open = !is_last;
            }
            call.unsent.drain(..sent);
            if !call.unsent.is_empty() {
                self.blocked.push_back(id);
            }
        }
    }

    /// Forgets a call; tells the server if it is not over.
    fn remove(&mut self, id: u32) -> Option<Waker> {
        let call = self.calls.remove(&id)?;
        if call.end.is_none() && self.closed.is_none() {
            frame::write_reset(&mut self.out, id, frame::CANCEL);
        }
        self.waiting.pop_front()
    }
}

impl Connection {
    /// Connects to `address` (host:port).
    ///
    /// # Errors
    /// Unavailable: it cannot be reached or does not speak HTTP/2.
    pub async fn open(address: &str, options: Options) -> Result<Self, Status> {
        let lost = |error: &dyn std::fmt::Display| {
            Status::new(Code::UNAVAILABLE, format!("connect to {address}: {error}"))
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = connected.map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
        stream.set_nodelay(true).map_err(|error| lost(&error))?;
        let greeted = driver::greet(stream, &options);
        let greeted = tokio::time::timeout(CONNECT_TIMEOUT, greeted).await;
        let (io, peer, rest) =
            greeted.map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
        let state = State {
            out: Vec::new(),
            calls: HashMap::default(),
            next_id: 1,
            streams_max: peer.streams_max,
            send_window: i64::from(frame::WINDOW_BYTES_DEFAULT),
            stream_send_window: i64::from(peer.stream_window),
            stream_window_bytes: options.stream_window_bytes,
            blocked: VecDeque::new(),
            encoder: hpack::Encoder::new(address.into(), options.token.clone(), peer.table_bytes),
            closed: None,
            waiting: VecDeque::new(),
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), writable: Notify::new(), options });
        driver::start(&shared, io, rest);
        Ok(Self { shared })
    }

    /// Whether calls can still be made.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed.is_some()
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// The server's status, or ours if there is no answer in time.
    pub async fn unary(&self, method: Method, request: &[u8]) -> Result<Bytes, Status> {
        let deadline = Some(Instant::now() + self.shared.options.call_timeout);
        let id = self.start(method, deadline, true, Some(request)).await?;
        let mut stream = Stream { connection: self.clone(), id };
        let message = stream.next().await?;
        message.ok_or_else(|| Status::new(Code::INTERNAL, "an answer without a message"))
    }

    /// Opens a stream of requests and answers.
    ///
    /// # Errors
    /// The connection is closed.
    pub async fn stream(&self, method: Method) -> Result<Stream, Status> {
        let id = self.start(method, None, false, None).await?;
        Ok(Stream { connection: self.clone(), id })
    }

    async fn start(
        &self,
        method: Method,
        deadline: Option<Instant>,
        is_unary: bool,
        only: Option<&[u8]>,
    ) -> Result<u32, Status> {
        let id = std::future::poll_fn(|context| {
            let mut state = self.shared.lock();
            if let Some(status) = &state.closed {
                return Poll::Ready(Err(status.clone()));
            }
            if state.calls.len() >= state.streams_max {
                state.waiting.push_back(context.waker().clone());
                return Poll::Pending;
            }
            let id = state.open(method, deadline, is_unary);
            if let Some(message) = only {
                state.send(id, message, true);
            }
            Poll::Ready(Ok(id))
        })
        .await?;
        self.shared.writable.notify_one();
        Ok(id)
    }
}

/// A call with many requests or many answers. Dropping it cancels it.
pub struct Stream {
    connection: Connection,
    id: u32,
}

impl Stream {
    /// Sends one request. It is dropped if the call is over; `next` tells.
    pub fn send(&self, request: &[u8]) {
        self.connection.shared.lock().send(self.id, request, false);
        self.connection.shared.writable.notify_one();
    }

    /// Ends the requests.
    pub fn finish(&self) {
        self.connection.shared.lock().finish(self.id);
        self.connection.shared.writable.notify_one();
    }

    /// The next answer, or nothing at the end.
    ///
    /// # Errors
    /// The status with which the call failed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        std::future::poll_fn(|context| {
            let mut state = self.connection.shared.lock();
            let State { calls, out, .. } = &mut *state;
            let Some(call) = calls.get_mut(&self.id) else {
                return Poll::Ready(Err(Status::new(Code::CANCELLED, "the call is over")));
            };
            // A unary answer counts once its status is known, and only if that is good.
            let is_due = !call.is_unary || call.end == Some(Ok(()));
            if is_due && let Some(message) = call.ready.pop_front() {
                if call.return_window(
                    self.id,
                    self.connection.shared.options.stream_window_bytes,
                    out,
                ) {
                    self.connection.shared.writable.notify_one();
                }
                return Poll::Ready(Ok(Some(message)));
            }
            match &call.end {
                Some(Ok(())) => Poll::Ready(Ok(None)),
                Some(Err(status)) => Poll::Ready(Err(status.clone())),
                None => {
                    match &mut call.waker {
                        Some(waker) => waker.clone_from(context.waker()),
                        empty => *empty = Some(context.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (waker, has_output) = {
            let mut state = self.connection.shared.lock();
            (state.remove(self.id), !state.out.is_empty())
        };
        if has_output {
            self.connection.shared.writable.notify_one();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
