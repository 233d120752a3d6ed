//! The tasks behind a connection: one reads frames, one writes what callers left, one gives up
//! calls past their deadline.

use std::io;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::connection::{Call, MESSAGE_BYTES_MAX, Options, PREFIX_BYTES, Shared, State};
use super::frame::{self, Head};
use super::hpack::{self, Fields};
use super::status::{Code, Status};

/// Bytes read from the socket at once.
const READ_BYTES: usize = 256 * 1024;
/// Window of the whole connection; streams have their own.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// How often calls past their deadline are given up.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// What the server's first SETTINGS said.
pub(super) struct Peer {
    pub(super) streams_max: usize,
    pub(super) stream_window: u32,
    pub(super) table_bytes: usize,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            streams_max: usize::MAX,
            stream_window: frame::WINDOW_BYTES_DEFAULT,
            table_bytes: hpack::TABLE_BYTES_MAX,
        }
    }
}

impl Peer {
    fn learn(&mut self, payload: &[u8]) {
        for (id, value) in settings(payload) {
            match id {
                frame::SETTING_TABLE_BYTES => self.table_bytes = value as usize,
                frame::SETTING_STREAMS_MAX => self.streams_max = value as usize,
                frame::SETTING_WINDOW => self.stream_window = value,
                _ => {}
            }
        }
    }
}

fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.chunks_exact(6).map(|setting| {
        let id = u16::from_be_bytes([setting[0], setting[1]]);
        (id, u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]))
    })
}

/// Says hello and waits for the server's settings; returns the bytes read after them.
pub(super) async fn greet(
    mut io: TcpStream,
    options: &Options,
) -> io::Result<(TcpStream, Peer, Vec<u8>)> {
    let mut hello = frame::PREFACE.to_vec();
    let window = options.stream_window_bytes;
    frame::write_settings(&mut hello, &[(frame::SETTING_PUSH, 0), (frame::SETTING_WINDOW, window)]);
    let more = CONNECTION_WINDOW_BYTES - frame::WINDOW_BYTES_DEFAULT;
    frame::write_window_update(&mut hello, 0, more);
    io.write_all(&hello).await?;
    let mut read = Vec::new();
    loop {
        if read.len() >= frame::HEAD_BYTES {
            let head = Head::read(&read);
            if head.kind != frame::SETTINGS || head.length > frame::PAYLOAD_BYTES_MAX {
                return Err(io::Error::other("the server does not speak HTTP/2"));
            }
            let end = frame::HEAD_BYTES + head.length;
            if read.len() >= end {
                let mut peer = Peer::default();
                peer.learn(&read[frame::HEAD_BYTES..end]);
                let mut ack = Vec::new();
                frame::write_head(&mut ack, 0, frame::SETTINGS, frame::ACK, 0);
                io.write_all(&ack).await?;
                return Ok((io, peer, read.split_off(end)));
            }
        }
        if io.read_buf(&mut read).await? == 0 {
            return Err(io::Error::other("the server hung up"));
        }
    }
}

/// Starts the tasks; they end with the connection or its last handle.
pub(super) fn start(shared: &Arc<Shared>, io: TcpStream, rest: Vec<u8>) {
    let (reader, writer) = io.into_split();
    let reading = tokio::spawn(read_frames(Arc::downgrade(shared), reader, rest));
    tokio::spawn(write_frames(Arc::downgrade(shared), writer, reading.abort_handle()));
}

/// Fails every call and refuses new ones.
fn close(shared: &Shared, why: &str) {
    let mut wakers = Vec::new();
    {
        let mut state = shared.lock();
        let status = Status::new(Code::UNAVAILABLE, why);
        for call in state.calls.values_mut() {
            if call.end.is_none() {
                call.end = Some(Err(status.clone()));
            }
            wakers.extend(call.waker.take());
        }
        wakers.extend(state.waiting.drain(..));
        state.closed = Some(status);
    }
    wakers.into_iter().for_each(Waker::wake);
    shared.writable.notify_one();
}

async fn write_frames(
    shared: Weak<Shared>,
    mut writer: OwnedWriteHalf,
    reading: tokio::task::AbortHandle,
) {
    let mut batch = Vec::new();
    loop {
        let Some(strong) = shared.upgrade() else { break };
        {
            let mut state = strong.lock();
            if state.closed.is_some() {
                break;
            }
            std::mem::swap(&mut batch, &mut state.out);
        }
        if batch.is_empty() {
            // The sleep also notices that the last handle is gone, and sweeps.
            let wait = tokio::time::timeout(SWEEP_INTERVAL, strong.writable.notified());
            if wait.await.is_err() {
                sweep(&strong);
            }
            continue;
        }
        drop(strong);
        let written = writer.write_all(&batch).await;
        batch.clear();
        if let Err(error) = written {
            if let Some(strong) = shared.upgrade() {
                close(&strong, &format!("connection lost: {error}"));
            }
            break;
        }
    }
    reading.abort();
}

/// Gives up calls past their deadline.
fn sweep(shared: &Shared) {
    let now = Instant::now();
    let mut wakers = Vec::new();
    for call in shared.lock().calls.values_mut() {
        if call.end.is_none() && call.deadline.is_some_and(|deadline| deadline < now) {
            let status = Status::new(Code::DEADLINE_EXCEEDED, "no answer in time");
            call.end = Some(Err(status));
            wakers.extend(call.waker.take());
        }
    }
    wakers.into_iter().for_each(Waker::wake);
}

async fn read_frames(shared: Weak<Shared>, mut reader: OwnedReadHalf, mut rest: Vec<u8>) {
    let mut headers = HeaderBlocks { decoder: hpack::Decoder::new(), block: Vec::new(), flags: 0 };
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = rest.len();
    buffer[..filled].copy_from_slice(&rest);
    rest.clear();
    let mut wakers = Vec::new();
    let mut unreturned: u32 = 0;
    let mut swept = Instant::now();
    loop {
        let mut used = 0;
        if let Some(strong) = shared.upgrade() {
            let mut state = strong.lock();
            loop {
                let bytes = &buffer[used..filled];
                if bytes.len() < frame::HEAD_BYTES {
                    break;
                }
                let head = Head::read(bytes);
                let end = frame::HEAD_BYTES + head.length;
                if head.length > frame::PAYLOAD_BYTES_MAX {
                    drop(state);
                    return close(&strong, "a frame over the limit");
                }
                if bytes.len() < end {
                    break;
                }
                if head.kind == frame::DATA {
                    unreturned += head.length as u32;
                }
                let payload = &bytes[frame::HEAD_BYTES..end];
                if let Err(why) = on_frame(&mut state, &mut headers, head, payload, &mut wakers) {
                    drop(state);
                    return close(&strong, &why);
                }
                used += end;
            }
            if unreturned > CONNECTION_WINDOW_BYTES / 2 {
                frame::write_window_update(&mut state.out, 0, unreturned);
                unreturned = 0;
            }
            if !state.out.is_empty() {
                strong.writable.notify_one();
            }
        } else {
            return;
        }
        wakers.drain(..).for_each(Waker::wake);
        buffer.copy_within(used..filled, 0);
        filled -= used;
        let read = reader.read(&mut buffer[filled..]).await;
        let Some(strong) = shared.upgrade() else { return };
        if swept.elapsed() > SWEEP_INTERVAL {
            swept = Instant::now();
            sweep(&strong);
        }
        match read {
            Ok(0) => return close(&strong, "the server hung up"),
            Ok(count) => filled += count,
            Err(error) => return close(&strong, &format!("connection lost: {error}")),
        }
    }
}

/// Header blocks, which may span frames.
struct HeaderBlocks {
    decoder: hpack::Decoder,
    block: Vec<u8>,
    flags: u8,
}

fn on_frame(
    state: &mut State,
    headers: &mut HeaderBlocks,
    head: Head,
    payload: &[u8],
    wakers: &mut Vec<Waker>,
) -> Result<(), String> {
    let malformed = || format!("a malformed frame of kind {}", head.kind);
    match head.kind {
        frame::DATA => {
            let content = frame::content(head, payload).ok_or_else(malformed)?;
            let State { calls, out, stream_window_bytes, .. } = state;
            if let Some(call) = calls.get_mut(&head.stream) {
                on_data(call, content);
                call.unreturned_bytes += head.length as u32;
                call.return_window(head.stream, *stream_window_bytes, out);
                if head.has(frame::END_STREAM) {
                    finish(call, &Fields::default());
                }
                if !call.is_unary || call.end.is_some() {
                    wakers.extend(call.waker.take());
                }
            }
        }
        frame::HEADERS | frame::CONTINUATION => {
            if head.kind == frame::HEADERS {
                headers.flags = head.flags;
                let content = frame::content(head, payload).ok_or_else(malformed)?;
                if head.has(frame::END_HEADERS) {
                    let fields = headers.decoder.decode(content).ok_or_else(malformed)?;
                    on_headers(state, head.stream, head.flags, fields, wakers);
                    return Ok(());
                }
                headers.block.clear();
                headers.block.extend_from_slice(content);
            } else {
                headers.block.extend_from_slice(payload);
            }
            if head.has(frame::END_HEADERS) {
                let fields = headers.decoder.decode(&headers.block).ok_or_else(malformed)?;
                on_headers(state, head.stream, headers.flags, fields, wakers);
            }
        }
        frame::RST_STREAM => {
            let code = read_u32(payload).ok_or_else(malformed)?;
            if let Some(call) = state.calls.get_mut(&head.stream) {
                if call.end.is_none() {
                    let why = format!("the server reset the stream with error {code}");
                    call.end = Some(Err(Status::new(Code::UNAVAILABLE, why)));
                }
                wakers.extend(call.waker.take());
            }
        }
        frame::SETTINGS if !head.has(frame::ACK) => {
            for (id, value) in settings(payload) {
                match id {
                    frame::SETTING_STREAMS_MAX => state.streams_max = value as usize,
                    frame::SETTING_WINDOW => {
                        let change = i64::from(value) - state.stream_send_window;
                        state.stream_send_window = i64::from(value);
                        for call in state.calls.values_mut() {
                            call.send_window += change;
                        }
                    }
                    _ => {}
                }
            }
            frame::write_head(&mut state.out, 0, frame::SETTINGS, frame::ACK, 0);
            state.send_blocked();
        }
        frame::PING if !head.has(frame::ACK) => {
            frame::write_head(&mut state.out, payload.len(), frame::PING, frame::ACK, 0);
            state.out.extend_from_slice(payload);
        }
        frame::GOAWAY => return Err("the server goes away".into()),
        frame::WINDOW_UPDATE => {
            let bytes = i64::from(read_u32(payload).ok_or_else(malformed)? & 0x7fff_ffff);
            if head.stream == 0 {
                state.send_window += bytes;
            } else if let Some(call) = state.calls.get_mut(&head.stream) {
                call.send_window += bytes;
            }
            if !state.blocked.is_empty() {
                state.send_blocked();
            }
        }
        _ => {}
    }
    Ok(())
}

fn read_u32(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.get(..4)?.try_into().ok()?))
}

fn on_headers(state: &mut State, id: u32, flags: u8, fields: Fields, wakers: &mut Vec<Waker>) {
    let Some(call) = state.calls.get_mut(&id) else { return };
    if let Some(status) = fields.http_status {
        call.http_status = status;
    }
    if flags & frame::END_STREAM != 0 {
        finish(call, &fields);
        wakers.extend(call.waker.take());
    }
}

fn finish(call: &mut Call, fields: &Fields) {
    if call.end.is_some() {
        return;
    }
    let message = || fields.message.clone().unwrap_or_default();
    call.end = Some(match fields.grpc_status {
        Some(0) => Ok(()),
        Some(code) => Err(Status::new(Code(code), message())),
        None => Err(Status::new(
            Code::UNKNOWN,
            format!("the answer has no status; HTTP says {}", call.http_status),
        )),
    });
}

/// Cuts the bytes of an answer into messages.
fn on_data(call: &mut Call, mut content: &[u8]) {
    loop {
        if call.partial.is_empty() {
            // The usual case: the frame holds the whole message.
            let Some(length) = message_length(content) else {
                call.partial.extend_from_slice(content);
                return;
            };
            if content.len() >= PREFIX_BYTES + length {
                let (message, rest) = content[PREFIX_BYTES..].split_at(length);
                call.ready.push_back(Bytes::copy_from_slice(message));
                content = rest;
                if content.is_empty() {
                    return;
                }
                continue;
            }
            if length > MESSAGE_BYTES_MAX {
                call.end = Some(Err(Status::new(Code::RESOURCE_EXHAUSTED, "a message too large")));
                return;
            }
            call.partial.reserve_exact(PREFIX_BYTES + length);
            call.partial.extend_from_slice(content);
            return;
        }
        let wanted = match message_length(&call.partial) {
            Some(length) => PREFIX_BYTES + length,
            None => PREFIX_BYTES,
        };
        let (head, rest) = content.split_at(content.len().min(wanted - call.partial.len()));
        call.partial.extend_from_slice(head);
        content = rest;
        if let Some(length) = message_length(&call.partial)
            && call.partial.len() == PREFIX_BYTES + length
        {
            let whole = Bytes::from(std::mem::take(&mut call.partial));
            call.ready.push_back(whole.slice(PREFIX_BYTES..));
        }
        if content.is_empty() {
            return;
        }
    }
}

fn message_length(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.get(1..PREFIX_BYTES)?;
    Some(u32::from_be_bytes(prefix.try_into().ok()?) as usize)
}
