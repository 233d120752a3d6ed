//! Clients of a real cluster. Each makes one call at a time, once, and never repeats it: a retry
//! would hide what happened to the first attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{RangeRequest, RequestOp};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::history::{ClientId, Outcome, Request};
use crate::process::call;
use crate::process::record::Recorder;
use crate::process::run::Run;
use crate::sim::chance::Chance;
use crate::traffic::SHARED;

/// After this a client gives a call up.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// Pause after a connection that failed.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// Writes at once whose traces do not name them.
const NAMELESS_AT_ONCE: usize = 3;
/// After this long nobody waits for an unknown write any more: servers give up after 7 s.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// What the clients of a run have in common.
#[derive(Debug)]
pub struct Traffic {
    /// Keys they share.
    pub keys_count: u64,
    /// Keys that are written besides. No call of a client that draws its calls names them: lists of so
    /// many would take all the time.
    pub fill_keys: u64,
    /// Relative weights of the calls, as in [`crate::traffic::KINDS`].
    pub weights: Vec<u64>,
    /// The usual mean pause between two calls of one client.
    pub think: Duration,
    /// The mean pause at present, in microseconds.
    think_mean: AtomicU64,
    nameless: Arc<Semaphore>,
}

impl Traffic {
    /// Traffic at its usual rate.
    pub fn new(keys_count: u64, fill_keys: u64, weights: Vec<u64>, think: Duration) -> Self {
        Self {
            keys_count,
            fill_keys,
            weights,
            think,
            think_mean: AtomicU64::new(think.as_micros() as u64),
            nameless: Arc::new(Semaphore::new(NAMELESS_AT_ONCE)),
        }
    }

    /// Sets the mean pause between two calls of a client.
    pub fn set_think_mean(&self, mean: Duration) {
        self.think_mean.store(mean.as_micros() as u64, Ordering::Relaxed);
    }

    /// A linearizable read of all keys that clients share.
    pub fn everything(&self) -> RangeRequest {
        match self.fill_keys {
            0 => everything(),
            _ => RangeRequest {
                key: bytes::Bytes::from_static(SHARED.0),
                range_end: bytes::Bytes::from_static(SHARED.1),
                ..RangeRequest::default()
            },
        }
    }

    fn draw_pause(&self, chance: &mut Chance) -> Duration {
        Duration::from_micros(chance.wait(self.think_mean.load(Ordering::Relaxed)))
    }
}

/// Where a client makes its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Always at this node, even when it is down.
    Node(usize),
    /// At whichever answers.
    Anywhere,
}

/// Makes calls until `until`, or until the traffic is over.
pub async fn client(run: Arc<Run>, id: ClientId, home: Home, mut chance: Chance, until: Instant) {
    let mut connection: Option<(usize, Channel)> = None;
    let mut lists_first = false;
    while run.is_under_load() && Instant::now() < until {
        sleep(run.traffic.draw_pause(&mut chance)).await;
        let (node, channel) = match connection.take() {
            Some(connection) => connection,
            None => {
                let node = match home {
                    Home::Node(node) => node,
                    Home::Anywhere => *chance.pick(&run.members()),
                };
                match connect(&run, node).await {
                    Some(channel) => (node, channel),
                    None => {
                        run.recorder.note_unreachable(node);
                        sleep(RECONNECT_AFTER).await;
                        continue;
                    }
                }
            }
        };
        let mut request = run.recorder.draw(&run.traffic, &mut chance);
        // Several failed writes in a row would leave much unknown.
        if lists_first {
            request = Request::Read(run.traffic.everything());
        }
        let mut permit = None;
        if is_nameless(&request) {
            match Arc::clone(&run.traffic.nameless).try_acquire_owned() {
                Ok(free) => permit = Some(free),
                Err(_) => request = Request::Read(run.traffic.everything()),
            }
        }
        let is_write = !matches!(request, Request::Read(_));
        let outcome = call_once(&run.recorder, id, node, channel.clone(), request).await;
        if outcome == Outcome::Unknown {
            lists_first |= is_write;
            if let Some(permit) = permit {
                tokio::spawn(async move {
                    sleep(FORGOTTEN_AFTER).await;
                    drop(permit);
                });
            }
        } else {
            lists_first &= !matches!(outcome, Outcome::Answered(_));
            connection = Some((node, channel));
        }
    }
}

/// Makes one call and writes it down.
pub async fn call_once(
    recorder: &Recorder,
    id: ClientId,
    node: usize,
    channel: Channel,
    request: Request,
) -> Outcome {
    let operation = recorder.begin(id, node, request.clone());
    let outcome = match timeout(PATIENCE, call::call(channel, request)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Unknown,
    };
    recorder.end(operation, outcome.clone());
    outcome
}

/// Connects to a node, or not.
pub async fn connect(run: &Run, node: usize) -> Option<Channel> {
    let endpoint = Channel::from_shared(run.client_url(node)).ok()?;
    let endpoint = endpoint.connect_timeout(CONNECT_WITHIN).tcp_nodelay(true);
    timeout(CONNECT_WITHIN, endpoint.connect()).await.ok()?.ok()
}

/// A linearizable read of all keys.
pub fn everything() -> RangeRequest {
    let all = bytes::Bytes::from_static(&[0]);
    RangeRequest { key: all.clone(), range_end: all, ..RangeRequest::default() }
}

/// True if it can change something without leaving a value that names it.
fn is_nameless(request: &Request) -> bool {
    fn is_named(operation: &RequestOp) -> bool {
        match &operation.request {
            Some(Op::RequestPut(put)) => !put.ignore_value,
            Some(Op::RequestTxn(txn)) => {
                txn.success.iter().any(is_named) && txn.failure.iter().any(is_named)
            }
            Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => false,
        }
    }
    fn can_write(operation: &RequestOp) -> bool {
        match &operation.request {
            Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => true,
            Some(Op::RequestTxn(txn)) => txn.success.iter().chain(&txn.failure).any(can_write),
            Some(Op::RequestRange(_)) | None => false,
        }
    }
    let is_nameless_branch =
        |branch: &[RequestOp]| branch.iter().any(can_write) && !branch.iter().any(is_named);
    match request {
        Request::DeleteRange(_) | Request::LeaseRevoke(_) => true,
        Request::Put(put) => put.ignore_value,
        Request::Txn(txn) => is_nameless_branch(&txn.success) || is_nameless_branch(&txn.failure),
        Request::Read(_)
        | Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, TxnRequest};

    use super::*;

    #[test]
    fn a_transaction_is_nameless_if_a_branch_can_only_delete() {
        let put = |ignore_value| RequestOp {
            request: Some(Op::RequestPut(PutRequest { ignore_value, ..PutRequest::default() })),
        };
        let delete =
            RequestOp { request: Some(Op::RequestDeleteRange(DeleteRangeRequest::default())) };
        let read = RequestOp { request: Some(Op::RequestRange(RangeRequest::default())) };
        let txn = |success: Vec<RequestOp>, failure: Vec<RequestOp>| {
            Request::Txn(TxnRequest { compare: Vec::new(), success, failure })
        };
        assert!(!is_nameless(&txn(vec![put(false), delete.clone()], vec![read.clone()])));
        assert!(is_nameless(&txn(vec![put(false)], vec![delete, read])));
        assert!(is_nameless(&txn(vec![put(true)], Vec::new())));
        assert!(is_nameless(&Request::DeleteRange(DeleteRangeRequest::default())));
    }
}
