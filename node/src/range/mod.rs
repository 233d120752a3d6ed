//! The actor of a replica: it drives the machine of the core and carries out its effects. Here is
//! the one place where log, store, peers and clients meet; what happens after a commit has this
//! address and no other.
//!
//! A handler never waits for IO. The log's thread, the apply thread and the peers' tasks report
//! back as completions.

mod apply;
mod deliver;
mod effects;
mod entry;
mod look;
mod maker;
mod meter;
mod moments;
mod outbox;
mod replica;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;
use dashmap::DashMap;
use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::{ForwardAnswer, Heartbeat, Phases, Told};
use flotilla_core::range::Tell;
use flotilla_core::spine::apply::Requester;
use flotilla_core::spine::replica::LeaseCounts;
use flotilla_core::spine::state::Position;
use flotilla_core::spine::{self, Input, Replica};
use flotilla_core::stage::Reach;
use flotilla_core::time::{Length, Time};
use flotilla_core::{GroupId, NodeId};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

pub use apply::{Applier, ApplyMessage};
pub use deliver::deliver;
pub use entry::{from_wal, to_wal};
pub use look::{Beat, HEARTBEATS_MAX, Look, Looked};
pub use maker::{Maker, OperatingSystem};
pub use meter::{Led, Meters};
use moments::Moments;
pub use outbox::Outbox;
pub use replica::{
    EndRange, HandOverRange, LeadRange, Mail, Place, RangeActor, Received, Said, Tick,
};

use crate::auth::Gate;
use crate::failpoint::Failpoint;
use crate::metrics::{LOG_STALLS, upstream};
use crate::peer::{self, Peers};
use crate::router::{Board, Pending, Phase, Request};
use crate::store::{Sealed, Store};
use crate::supervise::fatal;

/// Completions that may wait for the actor; beyond it threads wait.
pub const COMPLETIONS_MAX: usize = 4_096;
/// Requests that may wait in the mailbox; beyond it clients are told so.
pub const MAILBOX_REQUESTS_MAX: usize = 16_384;
/// Requests gathered into a turn before it is ended early.
const TURN_REQUESTS_MAX: usize = 1_024;
/// Commands of ranges gathered into frames for peers before these are sent early.
const GATHERED_BYTES_MAX: usize = 1 << 20;
/// What is shown of the ranges is brought up to date once in so many ticks.
const TICKS_PER_LOOK: u64 = 50;
/// Ranges that are shown anew for each tick of rest.
const RANGES_SHOWN_PER_TICK: u64 = 100;
/// At the level `debug` the machine tells where it stands once in so many ticks.
const TICKS_PER_TELLING: u64 = 100;
/// A tick that comes later than this is a late heartbeat: two heartbeat intervals of five ticks.
const LATE_AFTER_TICKS: u32 = 10;
/// Ticks made up for at once after the actor was kept from its timer.
const TICKS_LATE_MAX: u64 = 3;

/// What other threads and tasks tell the actor.
pub enum Completion {
    /// The log has everything up to this token.
    Persisted(u64),
    /// What the apply thread has done.
    Applied {
        /// Where the spine's state stands, if it has moved.
        spine: Option<Position>,
        /// What may be read, if that has changed.
        reach: Option<Reach>,
        /// What is owed to clients of other nodes.
        remote: Vec<(Requester, Outcome, Option<Phases>)>,
        /// Clients of this node that were answered.
        answered: Vec<u64>,
        /// Those that are to be answered once more is shown.
        early: Vec<(u64, Outcome)>,
        /// Ranges whose replica on this node begins.
        begun: Vec<GroupId>,
        /// Ranges whose replica on this node has ended: another has their keys.
        ended: Vec<GroupId>,
    },
    /// A question of another node is answered.
    Told(NodeId, Told),
    /// The store is durable up to this index.
    Flushed(u64),
    /// The store was replaced by the snapshot that was staged.
    SnapshotInstalled,
    /// Whoever sent it waits until everything before it is known.
    Known(oneshot::Sender<()>),
}

/// What the actor works with.
pub struct Parts {
    /// The machine.
    pub replica: Replica,
    /// Length of a tick.
    pub tick: Duration,
    /// The applied state.
    pub store: Store,
    /// The way to the shared log and the apply thread.
    pub outbox: Outbox,
    /// The replicas of other ranges.
    pub ranges: Arc<Ranges>,
    /// Makes more of them.
    pub maker: Maker,
    /// The network.
    pub peers: Peers,
    /// Clients that wait.
    pub pending: Arc<Pending>,
    /// What everyone may read.
    pub board: Arc<Board>,
    /// Who clients are.
    pub gate: Arc<Gate>,
    /// Counts for the ranges led here.
    pub meters: Arc<Meters>,
    /// For placement: what nodes have and do.
    pub heartbeats: mpsc::Sender<(NodeId, Heartbeat)>,
    /// For tasks that report back.
    pub completions: mpsc::Sender<Completion>,
    /// When the machine's time began.
    pub started: Instant,
    /// Called once when this node was removed from the cluster.
    pub on_removed: Box<dyn FnOnce() + Send>,
}

/// The spine's replica on this node.
pub struct SpineActor {
    parts: Parts,
    reports: Option<mpsc::Receiver<Completion>>,
    events: Option<mpsc::Receiver<peer::Event>>,
    out: Vec<spine::Effect>,
    gathered_count: usize,
    is_turn_due: bool,
    /// What ranges say is gathered for frames to peers: many ranges may have something to say at
    /// once, and a frame for each would be too much for who reads it.
    is_gathering: bool,
    is_flush_due: bool,
    /// Bytes of commands in what is gathered.
    gathered_bytes: usize,
    ticked: Instant,
    /// When what is on its way came how far.
    moments: Moments,
    /// Appends that wait for the disk, with the time each was handed over.
    unflushed: VecDeque<(u64, Time)>,
    staged: Option<Sealed>,
    is_removed: bool,
    ticks_count: u64,
    /// What is shown of the ranges is not what is known.
    is_table_stale: bool,
    ticks_until_table: u64,
    /// Index of the spine's state that is shown of them.
    table_index: u64,
    address: Option<Addr<Self>>,
    /// Requests for which the actor of their range had no room.
    refused: Vec<(GroupId, Requester)>,
    /// Questions of other nodes that are being answered.
    answers_count: usize,
}

impl SpineActor {
    /// An actor around its parts. `reports` is the other end of `parts.completions`, `events` of
    /// what `parts.peers` was given.
    pub fn new(
        parts: Parts,
        reports: mpsc::Receiver<Completion>,
        events: mpsc::Receiver<peer::Event>,
    ) -> Self {
        let ticked = Instant::now();
        Self {
            parts,
            reports: Some(reports),
            events: Some(events),
            out: Vec::new(),
            gathered_count: 0,
            is_turn_due: false,
            is_gathering: false,
            is_flush_due: false,
            gathered_bytes: 0,
            ticked,
            moments: Moments::default(),
            unflushed: VecDeque::new(),
            staged: None,
            is_removed: false,
            ticks_count: 0,
            is_table_stale: false,
            ticks_until_table: 0,
            table_index: 0,
            address: None,
            refused: Vec::new(),
            answers_count: 0,
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.parts.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn instant(&self, time: Time) -> Instant {
        self.parts.started + Duration::from_micros(time.0)
    }

    fn step(&mut self, input: Input) {
        let now = self.now();
        let mut out = std::mem::take(&mut self.out);
        self.gathered_count = 0;
        if let Err(error) = self.parts.replica.step(now, &self.parts.store, input, &mut out) {
            fatal(&format!("{error}"));
        }
        self.moments.committed(self.parts.replica.group().commit(), now);
        self.carry_out(&mut out);
        self.out = out;
        let unsent = self.parts.peers.take_unsent();
        if !unsent.is_empty() {
            self.step(Input::Unsent(unsent));
        }
        for peer in self.parts.peers.take_dropped() {
            self.step(Input::Disconnected(peer));
        }
        for (range, to) in std::mem::take(&mut self.refused) {
            let refusal = Tell::Reply(to, Err(flotilla_core::Error::TooManyRequests));
            self.step(Input::Range(range, refusal));
        }
    }

    fn on_request(&mut self, request: Request, ctx: &mut Context<Self>) {
        let now = self.now();
        match request {
            Request::Command(n, pass, command, trace) => {
                if let Some(trace) = trace {
                    trace.reach(Phase::Queue, self.instant(now));
                }
                let result = self.parts.replica.gather(now, &self.parts.store, n, pass, command);
                if let Err(error) = result {
                    fatal(&format!("{error}"));
                }
            }
            Request::Ticket(n, trace) => {
                if let Some(trace) = trace {
                    trace.reach(Phase::Queue, self.instant(now));
                }
                self.parts.replica.gather_ticket(now, n);
            }
            Request::TicketUnwanted(n) => self.step(Input::TicketUnwanted(n)),
            Request::Transfer(range, to) => self.step(Input::TransferRange(range, to)),
            Request::Question(n, question) => self.step(Input::Question(n, question)),
            Request::QuestionUnwanted(n) => self.step(Input::QuestionUnwanted(n)),
        }
        self.gathered_count += 1;
        if self.gathered_count >= TURN_REQUESTS_MAX {
            self.step(Input::Turn);
        } else if !self.is_turn_due {
            // Comes after everything that is in the mailbox already.
            self.is_turn_due = true;
            ctx.notify(Turn);
        }
    }

    fn on_completion(&mut self, completion: Completion, ctx: &Context<Self>) {
        match completion {
            Completion::Persisted(token) => {
                while self.unflushed.front().is_some_and(|(waiting, _)| *waiting <= token) {
                    self.unflushed.pop_front();
                }
                self.parts.outbox.send_appends();
                self.moments.flushed(token, self.now());
                self.step(Input::Persisted(token));
            }
            Completion::Applied { spine, reach, remote, answered, early, begun, ended } => {
                self.parts.outbox.send_tasks();
                let index = spine.map_or(0, |position| position.index);
                for (to, outcome, phases) in remote {
                    let mut answer = spine::encode_answer(to.id, &outcome, index);
                    answer.phases = phases;
                    self.parts.peers.send_one(to.node, spine::Parcel::Answer(answer));
                }
                if !answered.is_empty() {
                    self.step(Input::Answered(answered));
                }
                if !early.is_empty() {
                    self.step(Input::Early(early));
                }
                if let Some(position) = spine {
                    self.step(Input::Applied(position));
                }
                if let Some(reach) = reach {
                    self.step(Input::Reach(reach));
                }
                for range in begun {
                    self.begin_range(range, ctx);
                }
                for range in ended {
                    self.end_range(range);
                }
            }
            Completion::Told(to, told) => {
                self.answers_count -= 1;
                self.parts.peers.send_one(to, spine::Parcel::Told(told));
            }
            Completion::Flushed(index) => self.step(Input::Flushed(index)),
            Completion::SnapshotInstalled => self.step(Input::SnapshotInstalled),
            Completion::Known(waiting) => drop(waiting.send(())),
        }
    }

    /// A range was split off. Where its parent is led, it is led at once.
    fn begin_range(&mut self, range: GroupId, ctx: &Context<Self>) {
        match self.parts.maker.restart(range, &ctx.address()) {
            Ok(true) => {
                tracing::info!(%range, "a replica of a range begins");
                Failpoint::SplitBegun.reached();
            }
            // It has ended meanwhile, as a snapshot of another range has its keys.
            Ok(false) => return,
            Err(error) => fatal(&error.to_string()),
        }
        if let Some(replica) = self.parts.ranges.get(range)
            && self.parts.replica.leads_parent_of(range)
        {
            deliver(&replica, LeadRange);
        }
        self.publish_ranges();
    }

    /// Another range has its keys here. Its machine is told, and says so when it is done.
    fn end_range(&mut self, range: GroupId) {
        tracing::info!(%range, "a replica of a range ends");
        if self.parts.ranges.get(range).is_some() {
            self.mail(range, flotilla_core::range::replica::Input::Retire);
        } else {
            self.parts.maker.forget(range);
        }
        self.publish_ranges();
    }

    /// The leader of a range will send a snapshot of it.
    fn begin_empty(&mut self, range: GroupId, since: u64, actor: &Addr<Self>) {
        if let Err(error) = self.parts.maker.empty(range, since, actor) {
            fatal(&error.to_string());
        }
        tracing::info!(%range, "a replica of a range begins without a state");
    }

    fn publish_ranges(&mut self) {
        self.is_table_stale = false;
        self.ticks_until_table = self.parts.ranges.count() as u64 / RANGES_SHOWN_PER_TICK;
        self.table_index = self.parts.replica.state().position().index;
        let replica = &self.parts.replica;
        self.parts.board.set_leaderless_ranges(replica.leaderless_ranges());
        let ranges = Arc::new(replica.range_table());
        self.parts.board.change(|notice| notice.ranges = ranges);
    }

    /// Brings what is shown of the ranges up to date: soon when a leader has changed, now and then
    /// when only writes were counted. With many ranges this takes its time, so it rests as long as
    /// there are ranges.
    fn tick_table(&mut self) {
        self.ticks_until_table = self.ticks_until_table.saturating_sub(1);
        let is_counted = self.ticks_count.is_multiple_of(TICKS_PER_LOOK)
            && self.table_index != self.parts.replica.state().position().index;
        if self.ticks_until_table == 0 && (self.is_table_stale || is_counted) {
            self.publish_ranges();
        }
    }

    fn on_peer_event(&mut self, event: peer::Event) {
        match event {
            peer::Event::Frame(from, mut frame) => {
                for heartbeat in std::mem::take(&mut frame.heartbeats) {
                    self.on_heartbeat(from, heartbeat);
                }
                self.note_answers(&frame.answers);
                self.step(Input::Frame(from, frame));
            }
            peer::Event::Connected(peer) => self.step(Input::Connected(peer)),
            peer::Event::Disconnected(peer, forwards) => {
                if !forwards.is_empty() {
                    self.step(Input::Unsent(forwards));
                }
                self.step(Input::Disconnected(peer));
            }
            peer::Event::Greeted(peer, urls) => self.parts.peers.greeted(peer, urls),
            peer::Event::Removed => self.on_removed(),
            peer::Event::SnapshotReceived(message, mark, sealed) => {
                let group = GroupId(message.group);
                if group == GroupId::SPINE {
                    self.staged = Some(sealed);
                    self.step(Input::SnapshotReceived(message, mark));
                } else if let Some(actor) = self.parts.ranges.get(group) {
                    deliver(&actor, Received { message, mark, sealed });
                }
            }
            peer::Event::SnapshotSent(GroupId::SPINE, to, is_ok) => {
                self.step(Input::SnapshotSent(to, is_ok));
            }
            peer::Event::SnapshotSent(range, to, is_ok) => {
                self.mail(range, flotilla_core::range::replica::Input::SnapshotSent(to, is_ok));
            }
        }
    }

    /// What other nodes tell of the way of requests that they have carried out.
    fn note_answers(&self, answers: &[ForwardAnswer]) {
        let origin = self.parts.maker.spine.origin;
        let now = Instant::now();
        for answer in answers.iter().filter(|it| it.origin == origin && !it.is_unproposed) {
            self.parts.pending.note(answer.n, |trace| trace.follow_remote(answer.phases, now));
        }
    }

    fn on_tick(&mut self) {
        let tick = self.parts.tick;
        let elapsed = self.ticked.elapsed();
        let due_count =
            u64::try_from(elapsed.as_nanos() / tick.as_nanos().max(1)).unwrap_or(u64::MAX);
        if due_count == 0 {
            return;
        }
        self.ticked = Instant::now();
        // Its followers wait for a heartbeat longer than they should.
        if elapsed > LATE_AFTER_TICKS * tick && self.parts.replica.status().is_leader {
            metrics::counter!(upstream::LATE_HEARTBEATS).increment(1);
        }
        let now = self.now();
        let stalled = self.unflushed.front().map_or(Length(0), |(_, since)| now.since(*since));
        let was_stalled = self.parts.replica.is_disk_stalled();
        self.step(Input::DiskStalled(stalled));
        match (was_stalled, self.parts.replica.is_disk_stalled()) {
            (false, true) => {
                metrics::counter!(LOG_STALLS).increment(1);
                let stalled_ms = stalled.0 / 1_000;
                tracing::error!(
                    stalled_ms,
                    "the log's disk does not answer, giving up leaderships"
                );
            }
            (true, false) => tracing::info!("the log's disk answers again"),
            _ => {}
        }
        for _ in 0..due_count.min(TICKS_LATE_MAX) {
            self.ticks_count += 1;
            self.tick_table();
            if self.ticks_count.is_multiple_of(TICKS_PER_LOOK) {
                self.parts.meters.look(GroupId::SPINE, self.parts.replica.group());
                let LeaseCounts { granted, renewed, revoked, expired } =
                    self.parts.replica.lease_counts();
                upstream::leases(granted, renewed, revoked, expired);
            }
            if self.ticks_count.is_multiple_of(TICKS_PER_TELLING) {
                tracing::debug!(load = self.parts.replica.load_text(), "spine");
            }
            let expired_before = self.parts.replica.lease_counts().expired;
            self.step(Input::Tick);
            if self.parts.replica.lease_counts().expired > expired_before {
                Failpoint::LeaseExpired.reached();
            }
            self.parts.ranges.tick();
        }
    }
}

/// The actors of the replicas of other ranges on this node, for every thread.
#[derive(Default)]
pub struct Ranges {
    actors: DashMap<GroupId, Addr<RangeActor>>,
    /// Those that need ticks.
    awake: Mutex<BTreeMap<GroupId, Awake>>,
}

/// An actor that needs ticks.
struct Awake {
    actor: Addr<RangeActor>,
    /// It was sent a tick that it has not come to. With many ranges that are awake a node may fall
    /// behind its ticks; time then goes slower for its ranges, and no mailbox fills.
    is_tick_waiting: Arc<AtomicBool>,
}

impl Ranges {
    /// Makes an actor reachable. It begins awake.
    pub fn insert(
        &self,
        range: GroupId,
        actor: Addr<RangeActor>,
        is_tick_waiting: Arc<AtomicBool>,
    ) {
        self.actors.insert(range, actor.clone());
        self.wake(range, actor, is_tick_waiting);
    }

    /// The actor of a range.
    pub fn get(&self, range: GroupId) -> Option<Addr<RangeActor>> {
        self.actors.get(&range).map(|actor| actor.value().clone())
    }

    /// An actor is not to be reached any more.
    pub fn remove(&self, range: GroupId) -> Option<Addr<RangeActor>> {
        let actor = self.actors.remove(&range).map(|(_, actor)| actor);
        self.sleep(range);
        actor
    }

    /// All of them.
    pub fn all(&self) -> Vec<Addr<RangeActor>> {
        self.actors.iter().map(|actor| actor.value().clone()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.actors.len()
    }

    /// A replica needs ticks from now on.
    pub fn wake(&self, range: GroupId, actor: Addr<RangeActor>, is_tick_waiting: Arc<AtomicBool>) {
        // Not one that is leaving.
        if self.actors.contains_key(&range) {
            self.awake().insert(range, Awake { actor, is_tick_waiting });
            self.show_asleep();
        }
    }

    /// A replica needs no ticks until it says so.
    pub fn sleep(&self, range: GroupId) {
        self.awake().remove(&range);
        self.show_asleep();
    }

    fn tick(&self) {
        for Awake { actor, is_tick_waiting } in self.awake().values() {
            let has_room = !is_tick_waiting.swap(true, Ordering::Relaxed);
            if has_room && actor.try_send(Tick).is_err() {
                // The next tick does as well.
                is_tick_waiting.store(false, Ordering::Relaxed);
            }
        }
    }

    fn show_asleep(&self) {
        let asleep = self.actors.len().saturating_sub(self.awake().len());
        ::metrics::gauge!(crate::metrics::RANGES_ASLEEP).set(asleep as f64);
    }

    fn awake(&self) -> MutexGuard<'_, BTreeMap<GroupId, Awake>> {
        self.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that ranges had to say has been gathered.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

/// Everything that was in the mailbox has been gathered.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// The node is stopping: hand leadership over.
#[derive(Message)]
#[rtype(result = "()")]
pub struct HandOver;

/// The data here are wrong: have the leaders send theirs.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Rebuild;

/// Ask to campaign at once: the only member has nobody to wait for.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Campaign;

impl Actor for SpineActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_REQUESTS_MAX);
        let reports = self.reports.take().expect("an actor is started once");
        ctx.add_stream(ReceiverStream::new(reports));
        let events = self.events.take().expect("an actor is started once");
        ctx.add_stream(ReceiverStream::new(events));
        ctx.run_interval(self.parts.tick / 2, |actor, _| actor.on_tick());
        self.address = Some(ctx.address());
        self.publish_ranges();
        let mut first = vec![spine::Effect::Status(self.parts.replica.status())];
        let cluster = self.parts.replica.cluster();
        // A node that joins has no members yet but those it was told of.
        if !cluster.members.is_empty() {
            first.push(spine::Effect::Cluster(cluster));
        }
        self.carry_out(&mut first);
    }
}

impl Handler<Request> for SpineActor {
    type Result = ();

    fn handle(&mut self, request: Request, ctx: &mut Self::Context) {
        self.on_request(request, ctx);
    }
}

impl Handler<Turn> for SpineActor {
    type Result = ();

    fn handle(&mut self, _: Turn, _: &mut Self::Context) {
        self.is_turn_due = false;
        self.step(Input::Turn);
    }
}

impl Handler<HandOver> for SpineActor {
    type Result = ();

    fn handle(&mut self, _: HandOver, _: &mut Self::Context) {
        self.parts.ranges.all().iter().for_each(|actor| deliver(actor, HandOverRange));
        self.step(Input::HandOver);
    }
}

impl Handler<Rebuild> for SpineActor {
    type Result = ();

    fn handle(&mut self, _: Rebuild, _: &mut Self::Context) {
        self.step(Input::RequestSnapshots);
    }
}

impl Handler<Said> for SpineActor {
    type Result = ();

    fn handle(&mut self, said: Said, ctx: &mut Self::Context) {
        self.is_gathering = true;
        ::metrics::counter!(crate::metrics::RANGE_MESSAGES).increment(said.messages.len() as u64);
        for message in said.messages {
            self.gathered_bytes +=
                message.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            self.parts.peers.gather(NodeId(message.to), spine::Parcel::Raft(message));
        }
        for (to, message) in said.snapshots {
            self.parts.peers.send_snapshot(to, message);
        }
        for tell in said.tells {
            self.is_table_stale |= matches!(tell, Tell::Role(_));
            if matches!(tell, Tell::Prepared(..)) {
                Failpoint::TxnPrepared.reached();
            }
            self.step(Input::Range(said.range, tell));
        }
        self.is_gathering = false;
        if self.gathered_bytes >= GATHERED_BYTES_MAX {
            self.gathered_bytes = 0;
            self.parts.peers.flush();
        }
        if !std::mem::replace(&mut self.is_flush_due, true) {
            // Comes after everything that is in the mailbox already.
            ctx.notify(Flush);
        }
    }
}

impl Handler<Flush> for SpineActor {
    type Result = ();

    fn handle(&mut self, _: Flush, _: &mut Self::Context) {
        self.is_flush_due = false;
        self.gathered_bytes = 0;
        self.parts.peers.flush();
        let unsent = self.parts.peers.take_unsent();
        if !unsent.is_empty() {
            self.step(Input::Unsent(unsent));
        }
    }
}

impl Handler<Campaign> for SpineActor {
    type Result = ();

    fn handle(&mut self, _: Campaign, _: &mut Self::Context) {
        for actor in self.parts.ranges.all() {
            deliver(&actor, Mail(flotilla_core::range::replica::Input::Campaign));
        }
        self.step(Input::Campaign);
    }
}

impl StreamHandler<peer::Event> for SpineActor {
    fn handle(&mut self, event: peer::Event, _: &mut Self::Context) {
        self.on_peer_event(event);
    }

    fn finished(&mut self, _: &mut Self::Context) {
        fatal("the peer port has ended");
    }
}

impl StreamHandler<Completion> for SpineActor {
    fn handle(&mut self, completion: Completion, ctx: &mut Self::Context) {
        self.on_completion(completion, ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {
        fatal("every thread that reports to the spine has ended");
    }
}

/// The token of appends that nobody waits for.
pub const NO_TOKEN: u64 = u64::MAX;
