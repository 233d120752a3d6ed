//! The hub of one worker: its streams step the machine as they are polled, a task on the same
//! worker hands it the applied batches, the time, and slices of the history. The lock is never
//! held across a wait, and the streams it serializes run on one thread anyway.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::proto::etcdserverpb::WatchRequest;
use flotilla_core::time::{Length, Time};
use flotilla_core::watch::{self, Counts, Effect, Input, Response, StreamId};
use tokio::sync::Notify;

use super::inbox::HubReceiver;
use crate::config::Config;
use crate::metrics;
use crate::router::Router;
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
    router: Router,
    started: Instant,
    state: Mutex<State>,
    /// A stream did what the task must see to.
    is_woken: Notify,
}

struct State {
    machine: watch::Hub,
    outlets: HashMap<StreamId, Outlet>,
    opened_count: u64,
    /// Term, and whether there is a leader, as the machine was told last.
    leadership: (u64, bool),
    /// As the metrics were told last.
    counts: Counts,
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
        let head = router.board().head();
        let limits = config.limits();
        let machine = watch::Config {
            cluster_id: router.board().cluster_id(),
            member_id: router.board().member_id(),
            progress_interval: length(config.watch_progress_notify_interval),
            election_timeout: length(
                limits.leaderless_stream_timeout
                    / u32::try_from(watch::LEADERLESS_TIMEOUTS).expect("a small number"),
            ),
            limits: watch::Limits {
                fragment_bytes: limits.message_bytes_max,
                block_rows_max: SLICE_ROWS_MAX,
                block_events_max: SLICE_ROWS_MAX,
                ..watch::Limits::default()
            },
        };
        let state = State {
            machine: watch::Hub::new(machine, head.revision, head.compact_revision),
            outlets: HashMap::new(),
            opened_count: 0,
            leadership: (0, true),
            counts: Counts::default(),
        };
        let shared = Shared {
            router,
            started: Instant::now(),
            state: Mutex::new(state),
            is_woken: Notify::new(),
        };
        let hub = Self { shared: Arc::new(shared) };
        tokio::spawn(hub.clone().run(receiver));
        hub
    }

    /// Opens a stream. With `needs_leader` it is ended when there is no leader for long.
    pub fn open(&self, needs_leader: bool) -> Opened {
        let mut wakers = Vec::new();
        let mut state = self.state();
        state.opened_count += 1;
        let id = StreamId(state.opened_count);
        state.outlets.insert(id, Outlet::default());
        self.refresh(&mut state, &mut wakers);
        let input = Input::Open { stream: id, needs_leader, chance: rand::random() };
        self.step(&mut state, input, &mut wakers);
        drop(state);
        wake(wakers);
        // From here on the task looks at the leader.
        self.shared.is_woken.notify_one();
        Opened { hub: self.clone(), id }
    }

    /// Serves the hub until the worker ends.
    async fn run(self, mut batches: HubReceiver) {
        loop {
            let mut wakers = Vec::new();
            let mut is_busy = false;
            let deadline = {
                let mut state = self.state();
                self.refresh(&mut state, &mut wakers);
                for taken in 1..=BATCHES_TOGETHER_MAX {
                    let Some(published) = batches.take() else { break };
                    is_busy = taken == BATCHES_TOGETHER_MAX;
                    self.step(&mut state, Input::Published(published), &mut wakers);
                }
                if state.machine.next_deadline().is_some_and(|at| at <= self.now()) {
                    self.step(&mut state, Input::Tick, &mut wakers);
                }
                is_busy |= self.catch_up(&mut state, &mut wakers);
                state.count();
                self.deadline(&state)
            };
            wake(wakers);
            if is_busy {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = batches.filled() => {}
                () = self.shared.is_woken.notified() => {}
                () = tokio::time::sleep(deadline) => {}
            }
        }
    }

    /// Reads a slice of history, if any is wanted. Returns whether more is.
    fn catch_up(&self, state: &mut State, wakers: &mut Vec<Waker>) -> bool {
        if !state.machine.is_behind() {
            return false;
        }
        let router = &self.shared.router;
        let effects = state.machine.catch_up(router.store(), router.board().head());
        let effects = effects.unwrap_or_else(|error| fatal(&error.to_string()));
        state.carry_out(effects, wakers);
        state.machine.is_behind()
    }

    /// How long the task may sleep.
    fn deadline(&self, state: &State) -> Duration {
        let patience = if state.outlets.is_empty() { NO_DEADLINE } else { LEADER_LOOK };
        let tick = state.machine.next_deadline();
        let tick = tick.map(|at| Duration::from_micros(at.since(self.now()).0));
        tick.map_or(patience, |tick| tick.min(patience))
    }

    /// Tells the machine of a new leader or of none.
    fn refresh(&self, state: &mut State, wakers: &mut Vec<Waker>) {
        let board = self.shared.router.board();
        let leadership = (board.term(), board.leader() != 0);
        if leadership != state.leadership {
            state.leadership = leadership;
            let (term, is_known) = leadership;
            self.step(state, Input::Leader { term, is_known }, wakers);
        }
    }

    fn step(&self, state: &mut State, input: Input, wakers: &mut Vec<Waker>) {
        let effects = state.machine.step(self.now(), input);
        state.carry_out(effects, wakers);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A holder that panicked has ended the process.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.shared.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

impl State {
    fn carry_out(&mut self, effects: Vec<Effect>, wakers: &mut Vec<Waker>) {
        for effect in effects {
            let (stream, change) = match effect {
                Effect::Send { stream, response } => (stream, Change::Send(response)),
                Effect::Reading { stream, is_on } => (stream, Change::Reading(is_on)),
                Effect::CloseStream { stream, error } => (stream, Change::End(error)),
            };
            let Some(outlet) = self.outlets.get_mut(&stream) else { continue };
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
    fn count(&mut self) {
        let counts = self.machine.counts();
        if counts != self.counts {
            metrics::watching(self.counts, counts);
            self.counts = counts;
        }
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
        let mut wakers = Vec::new();
        let revision = self.hub.shared.router.board().head().revision;
        let mut state = self.hub.state();
        self.hub.refresh(&mut state, &mut wakers);
        let input = Input::Request { stream: self.id, request, revision };
        self.hub.step(&mut state, input, &mut wakers);
        drop(state);
        wake(wakers);
        // The watcher may want history, or a deadline may have come closer.
        self.hub.shared.is_woken.notify_one();
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
        let mut wakers = Vec::new();
        let input = Input::Sent { stream: self.id, bytes: response.charge() };
        self.hub.step(&mut state, input, &mut wakers);
        let is_behind = state.machine.is_behind();
        drop(state);
        wake(wakers);
        if is_behind {
            self.hub.shared.is_woken.notify_one();
        }
        Poll::Ready(Some(Ok(response)))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut wakers = Vec::new();
        let mut state = self.hub.state();
        state.outlets.remove(&self.id);
        self.hub.step(&mut state, Input::Close { stream: self.id }, &mut wakers);
        drop(state);
        wake(wakers);
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
