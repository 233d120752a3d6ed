//! Watching clients. Some watch all keys of one node from the first revision, as evidence; others
//! watch a part somewhere, read slowly, go away and come back elsewhere for the rest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::etcdserverpb::watch_client::WatchClient;
use flotilla_proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::history::{ClientId, Received, WatchRecord};
use crate::process::run::Run;
use crate::process::traffic::connect;
use crate::sim::chance::Chance;

/// Pause before a client opens another stream.
const REOPEN_AFTER: Duration = Duration::from_millis(100);
/// How long the headers of a stream may take.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// A stream without a word for this long is given up: its node may be gone without a trace.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How often a watcher asks for progress, on average.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the run is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After a run a watcher that has everything listens for a little longer.
const LISTEN_ON: Duration = Duration::from_millis(300);
/// Receive window of a stream that reads slowly: what is beyond piles up at the server.
const SLOW_WINDOW_BYTES: u32 = 65_535;
/// Largest response, in bytes.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A watching client and how it behaves.
#[derive(Clone, Debug)]
pub struct Watcher {
    /// Who it is.
    pub client: ClientId,
    /// The node it always watches; otherwise anywhere.
    pub home: Option<usize>,
    /// What it asks for.
    pub create: WatchCreateRequest,
    /// Its events are evidence.
    pub is_evidence: bool,
    /// How long it takes for a response.
    pub slowness: Duration,
}

impl Watcher {
    /// One that watches everything on one node, from the beginning.
    pub fn of_everything(client: ClientId, home: usize) -> Self {
        let all = Bytes::from_static(&[0]);
        let create = WatchCreateRequest {
            key: all.clone(),
            range_end: all,
            start_revision: 1,
            progress_notify: true,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        Self { client, home: Some(home), create, is_evidence: true, slowness: Duration::ZERO }
    }

    /// One that watches some part, from somewhere.
    pub fn draw(client: ClientId, keys_count: u64, chance: &mut Chance) -> Self {
        let key = Bytes::from(format!("k{}", chance.below(keys_count)));
        let range_end = match chance.below(3) {
            0 => Bytes::new(),
            1 => Bytes::from(format!("k{}", keys_count.saturating_sub(1))).max(key.clone()),
            _ => Bytes::from_static(&[0]),
        };
        // The same key twice is an empty span, which is refused; once is enough to know that.
        let range_end = if range_end == key { Bytes::new() } else { range_end };
        let filters = match chance.below(6) {
            0 => vec![0],
            1 => vec![1],
            _ => Vec::new(),
        };
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: *chance.pick(&[0, 1, 1, 20, 500, 5_000]),
            progress_notify: chance.one_in(2),
            filters,
            prev_kv: chance.one_in(2),
            fragment: chance.one_in(2),
            ..WatchCreateRequest::default()
        };
        let slowness = Duration::from_millis(*chance.pick(&[0, 0, 20, 150]));
        Self { client, home: None, create, is_evidence: false, slowness }
    }
}

/// What a stream came to.
enum End {
    /// The run is over and the watcher has read all there was.
    Over,
    /// The stream broke, or the client went away.
    Lost,
    /// What it asks for is wrong by itself.
    Refused,
}

/// Watches until the run is over. Returns one record for each stream.
pub async fn watch(run: Arc<Run>, watcher: Watcher, mut chance: Chance) -> Vec<WatchRecord> {
    let mut records = Vec::new();
    let mut next = watcher.create.start_revision;
    while !run.is_over() {
        let node = watcher.home.unwrap_or_else(|| *chance.pick(&run.members()));
        let mut record = WatchRecord {
            client: watcher.client,
            invoked: run.recorder.clock.now(),
            create: WatchCreateRequest { start_revision: next, ..watcher.create.clone() },
            received: Vec::new(),
            cancel_sent: None,
            open_at_end: false,
        };
        let end = match open(&run, node, &watcher, &record).await {
            Some((requests, answers)) => {
                let mut stream =
                    Stream { run: &run, watcher: &watcher, record: &mut record, next, requests };
                let end = stream.read(answers, node, &mut chance).await;
                next = stream.next;
                end
            }
            None => End::Lost,
        };
        record.open_at_end = matches!(end, End::Over);
        if !record.received.is_empty() {
            records.push(record);
        }
        match end {
            End::Over | End::Refused => break,
            End::Lost => sleep(REOPEN_AFTER).await,
        }
    }
    records
}

type Requests = mpsc::Sender<WatchRequest>;

/// Opens a stream and asks for what the record says.
async fn open(
    run: &Run,
    node: usize,
    watcher: &Watcher,
    record: &WatchRecord,
) -> Option<(Requests, Streaming<WatchResponse>)> {
    let channel = if watcher.slowness.is_zero() {
        connect(run, node).await?
    } else {
        let endpoint = Channel::from_shared(run.client_url(node)).ok()?;
        let endpoint = endpoint
            .initial_stream_window_size(SLOW_WINDOW_BYTES)
            .initial_connection_window_size(SLOW_WINDOW_BYTES);
        timeout(OPEN_WITHIN, endpoint.connect()).await.ok()?.ok()?
    };
    let (requests, queue) = mpsc::channel(16);
    send(&requests, RequestUnion::CreateRequest(record.create.clone()));
    let mut client = WatchClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
    let opening = client.watch(Request::new(ReceiverStream::new(queue)));
    let answers = timeout(OPEN_WITHIN, opening).await.ok()?.ok()?.into_inner();
    Some((requests, answers))
}

fn send(requests: &Requests, union: RequestUnion) {
    // A queue that is full, or whose stream is gone, needs no further question.
    let _ = requests.try_send(WatchRequest { request_union: Some(union) });
}

struct Stream<'a> {
    run: &'a Run,
    watcher: &'a Watcher,
    record: &'a mut WatchRecord,
    /// The first revision that was not sent.
    next: i64,
    requests: Requests,
}

impl Stream<'_> {
    async fn read(
        &mut self,
        mut answers: Streaming<WatchResponse>,
        node: usize,
        chance: &mut Chance,
    ) -> End {
        let source = format!("a watcher of n{node}");
        let mut heard = Instant::now();
        let mut acts_at = Instant::now() + Self::draw_act(chance);
        let mut listens_until = None;
        let mut has_asked = false;
        loop {
            let head = self.run.final_head();
            if let Some(head) = head {
                if !std::mem::replace(&mut has_asked, true) {
                    send(&self.requests, RequestUnion::ProgressRequest(WatchProgressRequest {}));
                    acts_at = Instant::now() + ASK_EVERY;
                }
                if self.next > head {
                    listens_until.get_or_insert(Instant::now() + LISTEN_ON);
                }
                let is_heard_out = listens_until.is_some_and(|until| Instant::now() >= until);
                if is_heard_out || self.run.is_over() {
                    return End::Over;
                }
            }
            if Instant::now() >= acts_at {
                acts_at = Instant::now() + Self::draw_act(chance);
                if head.is_some() || self.watcher.is_evidence {
                    send(&self.requests, RequestUnion::ProgressRequest(WatchProgressRequest {}));
                } else if self.act(chance) {
                    return End::Lost;
                }
            }
            let message = match timeout_at(Instant::now() + LOOK_EVERY, answers.message()).await {
                Err(_) if heard.elapsed() > SILENCE_MAX => return End::Lost,
                Err(_) => continue,
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None) | Err(_)) => return End::Lost,
            };
            heard = Instant::now();
            if self.watcher.is_evidence {
                self.run.recorder.tell(&source, &message);
            }
            if let Some(end) = self.take(message) {
                return end;
            }
            if head.is_none() && !self.watcher.slowness.is_zero() {
                sleep(self.watcher.slowness).await;
            }
        }
    }

    fn draw_act(chance: &mut Chance) -> Duration {
        Duration::from_micros(chance.wait(ASK_EVERY.as_micros() as u64))
    }

    /// Asks for progress, cancels, or goes away. Returns true if it went away.
    fn act(&mut self, chance: &mut Chance) -> bool {
        match chance.below(6) {
            0..=2 => send(&self.requests, RequestUnion::ProgressRequest(WatchProgressRequest {})),
            4 => {
                let now = self.run.recorder.clock.now();
                self.record.cancel_sent.get_or_insert(now);
                let watch_id =
                    self.record.received.first().map_or(0, |received| received.response.watch_id);
                let cancel = WatchCancelRequest { watch_id };
                send(&self.requests, RequestUnion::CancelRequest(cancel));
            }
            5 => return true,
            _ => {}
        }
        false
    }

    /// Takes a response. Returns the end of the stream, if it is one.
    fn take(&mut self, response: WatchResponse) -> Option<End> {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        if let Some(pair) = last {
            // Of a revision in pieces only the whole is resumed after.
            self.next = self.next.max(pair.mod_revision + i64::from(!response.fragment));
        } else if response.created && self.next == 0 {
            self.next = header + 1;
        } else if !response.created && !response.canceled {
            self.next = self.next.max(header + 1);
        }
        if response.compact_revision > 0 {
            self.next = response.compact_revision;
        }
        let end = match (response.canceled, response.created) {
            (true, true) => Some(End::Refused),
            (true, false) => Some(End::Lost),
            (false, _) => None,
        };
        self.record.received.push(Received { at: self.run.recorder.clock.now(), response });
        end
    }
}
