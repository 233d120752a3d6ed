//! The hub of one worker: its streams step the machine as they are polled, a task on the same
//! worker hands it the applied batches, the time, and slices of the history, which it reads itself
//! while the node shows all keys. The lock is never held across a wait, and the streams it serializes
//! run on one thread anyway.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::proto::etcdserverpb::WatchRequest;
use flotilla_core::time::{Length, Time};
use flotilla_core::watch::{self, BlockRequest, Counts, Effect, Input, Response, StreamId};
use tokio::sync::Notify;

use super::block;
use super::inbox::{HubReceiver, Inbox};
use crate::config::Config;
use crate::metrics;
use crate::router::{Board, Router};
use crate::supervise::fatal;

/// Batches taken before the worker's other tasks get their turn.
const BATCHES_TOGETHER_MAX: usize = 32;
/// Events looked at in one slice of history: a few milliseconds at most when each of them needs a
/// previous value.
const SLICE_ROWS_MAX: usize = 1_000;
/// How often a worker with streams looks whether there is a leader.
const LEADER_LOOK: Duration = Duration::from_millis(100);
/// Sleeps never end for a worker that waits for nothing but events.
const NO_DEADLINE: Duration = Duration::from_secs(3_600);

/// A handle on the worker's hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: Arc<Inbox>,
    router: Router,
    limits: watch::Limits,
    progress_interval: Length,
    election_timeout: Length,
    started: Instant,
    state: Mutex<State>,
    /// A stream did what the task must see to.
    is_woken: Notify,
}

struct State {
    /// `None` while there are no streams.
    machine: Option<Machine>,
    outlets: HashMap<StreamId, Outlet>,
    opened_count: u64,
    /// As the metrics were told last.
    counts: Counts,
}

struct Machine {
    hub: watch::Hub,
    /// The first stream, which no other machine had: names the machine.
    first: StreamId,
    /// Term, and whether there is a leader, as it was told last.
    leadership: (u64, bool),
}

/// What waits to be sent to one client.
#[derive(Default)]
struct Outlet {
    responses: VecDeque<Response>,
    /// After what waits, the stream ends with this.
    end: Option<Error>,
    is_reading_off: bool,
    /// Polls the stream again.
    waker: Option<Waker>,
}

impl Hub {
    /// Starts the hub of the calling thread's worker.
    pub fn start(receiver: HubReceiver, config: &Config, router: Router) -> Self {
        let limits = config.limits();
        let leaderless_timeouts =
            u32::try_from(watch::LEADERLESS_TIMEOUTS).expect("a small number");
        let shared = Shared {
            inbox: receiver.inbox,
            limits: watch::Limits {
                fragment_bytes: limits.message_bytes_max,
                block_rows_max: SLICE_ROWS_MAX,
                block_events_max: SLICE_ROWS_MAX,
                ..watch::Limits::default()
            },
            progress_interval: length(config.watch_progress_notify_interval),
            election_timeout: length(limits.leaderless_stream_timeout / leaderless_timeouts),
            started: Instant::now(),
            state: Mutex::new(State {
                machine: None,
                outlets: HashMap::new(),
                opened_count: 0,
                counts: Counts::default(),
            }),
            is_woken: Notify::new(),
            router,
        };
        let hub = Self { shared: Arc::new(shared) };
        tokio::spawn(hub.clone().run());
        hub
    }

    /// Opens a stream. With `needs_leader` it is ended when there is no leader for long.
    pub fn open(&self, needs_leader: bool) -> Opened {
        let mut state = self.state();
        state.opened_count += 1;
        let id = StreamId(state.opened_count);
        state.outlets.insert(id, Outlet::default());
        if state.machine.is_none() {
            state.machine = Some(self.machine(id));
        }
        let input = Input::Open { stream: id, needs_leader, chance: rand::random() };
        self.step(state, input);
        // From here on the task looks at the leader.
        self.shared.is_woken.notify_one();
        Opened { hub: self.clone(), id }
    }

    /// A machine that stands where the node does.
    fn machine(&self, first: StreamId) -> Machine {
        let board = self.shared.router.board();
        let config = watch::Config {
            cluster_id: board.cluster_id(),
            member_id: board.member_id(),
            progress_interval: self.shared.progress_interval,
            election_timeout: self.shared.election_timeout,
            limits: self.shared.limits.clone(),
        };
        // In this order: a batch that is not kept was on the board before the look at it.
        self.shared.inbox.open();
        let head = self.shared.router.head();
        let hub = watch::Hub::new(config, head.revision, head.compact_revision);
        Machine { hub, first, leadership: (0, true) }
    }

    /// Serves the hub until the worker ends.
    async fn run(self) {
        loop {
            let Turn { wakers, is_busy, wanted, patience } = self.turn();
            wake(wakers);
            if let Some((machine, request)) = wanted {
                tokio::spawn(self.clone().fetch(machine, request));
            }
            if is_busy {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.shared.inbox.filled() => {}
                () = self.shared.is_woken.notified() => {}
                () = tokio::time::sleep(patience) => {}
            }
        }
    }

    /// Reads a block that the node does not show all keys of, for a machine that may be gone by then.
    async fn fetch(self, machine: StreamId, request: BlockRequest) {
        let block = block::read(&self.shared.router, request.clone()).await;
        let mut wakers = Vec::new();
        let mut state = self.state();
        let State { machine: present, outlets, .. } = &mut *state;
        if let Some(present) = present.as_mut().filter(|present| present.first == machine) {
            carry_out(outlets, present.hub.take_block(&request, block), &mut wakers);
        }
        drop(state);
        wake(wakers);
        self.shared.is_woken.notify_one();
    }

    /// Takes what has come, does what is due, and reads a slice of history if any is wanted.
    fn turn(&self) -> Turn {
        let mut turn =
            Turn { wakers: Vec::new(), is_busy: false, wanted: None, patience: NO_DEADLINE };
        let mut state = self.state();
        let State { machine, outlets, counts, .. } = &mut *state;
        let Some(machine) = machine else {
            count(counts, Counts::default());
            return turn;
        };
        let (router, now) = (&self.shared.router, self.now());
        let mut effects = machine.refresh(router.board(), now);
        for taken in 1..=BATCHES_TOGETHER_MAX {
            let Some(published) = self.shared.inbox.take() else { break };
            turn.is_busy = taken == BATCHES_TOGETHER_MAX;
            effects.extend(machine.hub.step(now, Input::Published(published)));
        }
        if machine.hub.next_deadline().is_some_and(|at| at <= now) {
            effects.extend(machine.hub.step(now, Input::Tick));
        }
        let board = router.board();
        let replacements = board.replacements();
        let is_whole = board.is_whole();
        if machine.hub.is_behind() {
            let head = router.head();
            if is_whole {
                let is_same = || board.replacements() == replacements;
                let caught_up = machine.hub.catch_up(router.store(), head, is_same);
                effects.extend(caught_up.unwrap_or_else(|error| fatal(&error.to_string())));
            } else {
                let wanted = machine.hub.next_block(head, &mut effects);
                turn.wanted = wanted.map(|request| (machine.first, request));
            }
            turn.is_busy |= machine.hub.is_behind() && !machine.hub.is_asking();
        }
        carry_out(outlets, effects, &mut turn.wakers);
        count(counts, machine.hub.counts());
        let tick = machine.hub.next_deadline();
        let tick = tick.map(|at| Duration::from_micros(at.since(self.now()).0));
        turn.patience = tick.map_or(LEADER_LOOK, |tick| tick.min(LEADER_LOOK));
        turn
    }

    /// Hands the machine an input, and does what it asks for. Returns whether it wants to read
    /// history.
    fn step(&self, mut state: MutexGuard<'_, State>, input: Input) -> bool {
        let State { machine, outlets, .. } = &mut *state;
        let Some(machine) = machine else { return false };
        let now = self.now();
        let mut effects = machine.refresh(self.shared.router.board(), now);
        effects.extend(machine.hub.step(now, input));
        let mut wakers = Vec::new();
        carry_out(outlets, effects, &mut wakers);
        let is_behind = machine.hub.is_behind();
        drop(state);
        wake(wakers);
        is_behind
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A holder that panicked has ended the process.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.shared.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

/// What the task does after a look at everything.
struct Turn {
    wakers: Vec<Waker>,
    /// There is more to do at once.
    is_busy: bool,
    /// History to be read for a machine.
    wanted: Option<(StreamId, BlockRequest)>,
    /// How long it may sleep.
    patience: Duration,
}

impl Machine {
    /// Tells it of a new leader or of none.
    fn refresh(&mut self, board: &Board, now: Time) -> Vec<Effect> {
        let leadership = (board.term(), board.leader() != 0);
        if leadership == self.leadership {
            return Vec::new();
        }
        self.leadership = leadership;
        let (term, is_known) = leadership;
        self.hub.step(now, Input::Leader { term, is_known })
    }
}

fn carry_out(
    outlets: &mut HashMap<StreamId, Outlet>,
    effects: Vec<Effect>,
    wakers: &mut Vec<Waker>,
) {
    for effect in effects {
        let (stream, change) = match effect {
            Effect::Send { stream, response } => (stream, Change::Send(response)),
            Effect::Reading { stream, is_on } => (stream, Change::Reading(is_on)),
            Effect::CloseStream { stream, error } => (stream, Change::End(error)),
        };
        let Some(outlet) = outlets.get_mut(&stream) else { continue };
        match change {
            Change::Send(response) => {
                metrics::traffic().events.increment(response.events_count() as u64);
                outlet.responses.push_back(response);
            }
            Change::Reading(is_on) => outlet.is_reading_off = !is_on,
            Change::End(error) => outlet.end = Some(error),
        }
        wakers.extend(outlet.waker.take());
    }
}

/// Brings the metrics up to date.
fn count(told: &mut Counts, counts: Counts) {
    if counts != *told {
        metrics::watching(*told, counts);
        *told = counts;
    }
}

enum Change {
    Send(Response),
    Reading(bool),
    End(Error),
}

/// A stream of one client. Dropping it closes it.
pub struct Opened {
    hub: Hub,
    id: StreamId,
}

impl Opened {
    /// Whether the client's messages are to be read.
    pub fn is_reading(&self) -> bool {
        self.hub.state().outlets.get(&self.id).is_some_and(|outlet| !outlet.is_reading_off)
    }

    /// Takes a message of the client.
    pub fn request(&self, request: WatchRequest) {
        let revision = self.hub.shared.router.head().revision;
        let input = Input::Request { stream: self.id, request, revision };
        self.hub.step(self.hub.state(), input);
        // The watcher may want history, or a deadline may have come closer.
        self.hub.shared.is_woken.notify_one();
    }

    /// Answers a create request of a client who may not read the keys.
    pub fn refuse(&self, error: Error) {
        let revision = self.hub.shared.router.head().revision;
        let input = Input::Refuse { stream: self.id, error, revision };
        self.hub.step(self.hub.state(), input);
    }

    /// The next response to send, or the end of the stream.
    pub fn poll_response(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Response, Error>>> {
        let mut state = self.hub.state();
        let Some(outlet) = state.outlets.get_mut(&self.id) else { return Poll::Ready(None) };
        let Some(response) = outlet.responses.pop_front() else {
            return match outlet.end {
                Some(error) => {
                    state.outlets.remove(&self.id);
                    Poll::Ready(Some(Err(error)))
                }
                None => {
                    outlet.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let input = Input::Sent { stream: self.id, bytes: response.charge() };
        if self.hub.step(state, input) {
            self.hub.shared.is_woken.notify_one();
        }
        Poll::Ready(Some(Ok(response)))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.hub.state().outlets.remove(&self.id);
        self.hub.step(self.hub.state(), Input::Close { stream: self.id });
        let mut state = self.hub.state();
        if state.outlets.is_empty() {
            state.machine = None;
            self.hub.shared.inbox.close();
        }
        drop(state);
        self.hub.shared.is_woken.notify_one();
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}

fn length(duration: Duration) -> Length {
    Length(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
