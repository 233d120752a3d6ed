//! The actor of a replica of a range beside range 0: it drives the range's machine, carries out its
//! effects, and passes on what it tells the spine.
//!
//! Its mailbox has the limit of the spine's for what clients and peers send; what answers the machine
//! itself is always taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix::prelude::*;
use flotilla_core::group::{self, Ignored, Role};
use flotilla_core::proto::internal::{RaftMessage, SnapshotMark};
use flotilla_core::range::Tell;
use flotilla_core::range::replica::{Effect, Input, Replica};
use flotilla_core::stage::Work;
use flotilla_core::time::Time;
use flotilla_core::{GroupId, NodeId};

use super::moments::Moments;
use super::outbox::Outbox;
use super::{
    ApplyMessage, MAILBOX_REQUESTS_MAX, Meters, Ranges, SpineActor, TICKS_PER_LOOK, deliver,
};
use crate::store::{Sealed, Store};
use crate::supervise::fatal;

/// At the level `debug` a replica tells where it stands once in so many ticks.
const TICKS_PER_TELLING: u64 = 100;

/// Something for the machine.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Mail(pub Input);

/// A tick has passed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Tick;

/// The node is stopping: hand leadership over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct HandOverRange;

/// Try to lead: the node leads the range that this one was split off.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct LeadRange;

/// The range has ended on this node: leave, with all that is left of it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EndRange {
    /// The node may hold the range again: the log keeps where it ended, and the votes.
    pub keeps_votes: bool,
}

/// Everything that was in the mailbox has been gathered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Turn;

/// When the log has no room for what an actor that leaves has left, it tries again after this.
const LEAVE_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// How often it is tried, once a tick: the first votes come when others have the range, too.
const CAMPAIGNS_MAX: u32 = 50;

/// What a step of a range's machine has for the rest of the node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Said {
    /// Which range.
    pub range: GroupId,
    /// For the spine's machine.
    pub tells: Vec<Tell>,
    /// For peers.
    pub messages: Vec<RaftMessage>,
    /// Snapshots that peers need.
    pub snapshots: Vec<(NodeId, RaftMessage)>,
}

/// All of a snapshot has arrived and is on disk.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Received {
    /// The leader's message.
    pub message: RaftMessage,
    /// Where the snapshot stands.
    pub mark: SnapshotMark,
    /// Its rows.
    pub sealed: Sealed,
}

/// An actor among those of its node.
pub struct Place {
    /// All of them.
    pub ranges: Arc<Ranges>,
    /// A tick is in the mailbox.
    pub is_tick_waiting: Arc<AtomicBool>,
}

/// A range's replica on this node.
pub struct RangeActor {
    replica: Replica,
    store: Store,
    outbox: Outbox,
    /// When what is on its way came how far.
    moments: Moments,
    spine: Addr<SpineActor>,
    place: Place,
    /// When the machine's time began.
    started: Instant,
    meters: Arc<Meters>,
    /// It is given ticks.
    is_awake: bool,
    ticks_count: u64,
    /// How often this replica is still to campaign.
    campaigns_left: u32,
    is_turn_due: bool,
    staged: Option<Sealed>,
    out: Vec<Effect>,
}

impl RangeActor {
    /// An actor around a machine.
    pub fn new(
        replica: Replica,
        store: Store,
        outbox: Outbox,
        spine: Addr<SpineActor>,
        place: Place,
        started: Instant,
        meters: Arc<Meters>,
    ) -> Self {
        Self {
            replica,
            store,
            outbox,
            moments: Moments::default(),
            spine,
            place,
            started,
            meters,
            is_awake: true,
            ticks_count: 0,
            campaigns_left: 0,
            is_turn_due: false,
            staged: None,
            out: Vec::new(),
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        // Another group may have filled both, and a tick may be all that comes here.
        self.outbox.send_appends();
        self.outbox.send_tasks();
        let now = self.now();
        if matches!(input, Input::Tick) {
            self.ticks_count += 1;
            self.campaign_again(ctx);
            if self.ticks_count.is_multiple_of(TICKS_PER_LOOK) {
                self.meters.look(self.replica.range(), self.replica.group());
            }
            if self.ticks_count.is_multiple_of(TICKS_PER_TELLING) {
                let (replica, role) = (&self.replica, self.replica.role());
                let (load, applied) = (replica.load(), replica.applied());
                tracing::debug!(range = %replica.range(), ?role, ?load, ?applied, commit = replica.group().commit(), last = replica.group().last_index(), numbered = replica.committed(), serving = replica.is_serving(), "range");
            }
        }
        if let Input::Persisted(token) = input {
            self.moments.flushed(token, now);
        }
        let mut out = std::mem::take(&mut self.out);
        let before = self.standing();
        if let Err(error) = self.replica.step(now, &self.store, input, &mut out) {
            fatal(&format!("{error}"));
        }
        self.moments.committed(self.replica.group().commit(), now);
        let after = self.standing();
        if after != before {
            let (role, is_serving, transferee) = after;
            let range = self.replica.range();
            tracing::debug!(%range, ?role, is_serving, ?transferee, "leadership of a range");
        }
        let (mut tells, mut messages, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        for effect in out.drain(..) {
            match Tell::from_effect(effect, &self.replica) {
                Ok(tell) => tells.push(tell),
                Err(Effect::Send(message)) => messages.push(message),
                Err(Effect::SendSnapshot(to, message)) => snapshots.push((to, message)),
                Err(effect) => self.carry_out(effect, ctx),
            }
        }
        self.out = out;
        self.look_whether_awake(ctx);
        if !(tells.is_empty() && messages.is_empty() && snapshots.is_empty()) {
            let range = self.replica.range();
            deliver(&self.spine, Said { range, tells, messages, snapshots });
        }
    }

    /// Who leads, whether writes are taken here, and to whom the leader is handing over.
    fn standing(&self) -> (Role, bool, Option<NodeId>) {
        let replica = &self.replica;
        (replica.role(), replica.is_serving(), replica.group().transferee())
    }

    /// An actor of a replica that needs no ticks has no timer, and costs nothing until something
    /// comes for it.
    fn look_whether_awake(&mut self, ctx: &Context<Self>) {
        let is_awake = self.replica.needs_ticks() || self.campaigns_left > 0;
        if is_awake == std::mem::replace(&mut self.is_awake, is_awake) {
            return;
        }
        let range = self.replica.range();
        if is_awake {
            metrics::counter!(crate::metrics::RANGE_WAKES).increment(1);
            let is_tick_waiting = self.place.is_tick_waiting.clone();
            self.place.ranges.wake(range, ctx.address(), is_tick_waiting);
        } else {
            // What placement knows of it stays as it is.
            self.meters.look(range, self.replica.group());
            self.place.ranges.sleep(range);
        }
    }

    fn campaign_again(&mut self, ctx: &mut Context<Self>) {
        if self.campaigns_left == 0 {
            return;
        }
        self.campaigns_left -= 1;
        if self.replica.role().leader.is_none() {
            self.step(Input::Campaign, ctx);
        } else {
            self.campaigns_left = 0;
        }
    }

    fn carry_out(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        let range = self.replica.range();
        match effect {
            Effect::Append(append) => {
                if self.replica.role().part == group::Part::Leader {
                    self.moments.proposed(&append, self.now());
                }
                self.outbox.append(append);
            }
            Effect::Truncate(position) => self.outbox.truncate(position),
            Effect::Apply(mut task) => {
                let now = self.now();
                self.moments.ordered(task.position.index, &mut task.steps, now);
                if self.replica.role().part == group::Part::Leader {
                    self.meters.count(range, &task.steps);
                }
                self.outbox.apply(ApplyMessage::Work(Work::Range(task)));
            }
            Effect::CatchingUp => self.outbox.apply(ApplyMessage::Work(Work::CatchingUp(range))),
            Effect::CaughtUp => self.outbox.apply(ApplyMessage::Work(Work::CaughtUp(range))),
            Effect::Install(mark) => {
                let staged = self.staged.take().expect("a snapshot is staged before its install");
                tracing::info!(%range, index = mark.index, "installing a snapshot from the leader");
                self.outbox.apply(ApplyMessage::Install(range, staged));
            }
            Effect::SnapshotRefused(reason) => {
                tracing::info!(%range, %reason, "a received snapshot is not needed");
                // Its files are removed from the disk.
                let staged = self.staged.take();
                tokio::task::spawn_blocking(move || drop(staged));
            }
            Effect::FlushStore => self.flush_store(ctx),
            Effect::Ignored(from, _, Ignored::LostEntries) => fatal(&format!(
                "member {from} leads range {range} and expects entries that this member \
                 acknowledged and does not have: its log was lost. Remove the member from the \
                 cluster and add it anew"
            )),
            Effect::Ignored(from, kind, reason) => {
                tracing::debug!(%range, %from, kind, %reason, "ignored a message of a peer");
            }
            Effect::Replicas(_, conf) => {
                tracing::info!(%range, voters = ?conf.voters, learners = ?conf.learners, "members");
            }
            // Tried again by the next tick.
            Effect::ReplicasRefused(_) => {}
            Effect::Send(_)
            | Effect::SendSnapshot(..)
            | Effect::Report(_)
            | Effect::WantNumbers
            | Effect::Prepared(..)
            | Effect::PrepareFailed(_)
            | Effect::AbortTxn(_)
            | Effect::WantTicket(_)
            | Effect::Reply(..)
            | Effect::Unproposed(..)
            | Effect::WantFinish(..)
            | Effect::Retired
            | Effect::Removed
            | Effect::Outside
            | Effect::Gone(..)
            | Effect::Role(_) => unreachable!("these go to the spine's actor"),
        }
    }

    fn flush_store(&self, ctx: &mut Context<Self>) {
        let index = self.replica.applied().index;
        let store = self.store.clone();
        let addr = ctx.address();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.flush() {
                fatal(&format!("the store cannot be made durable: {error}"));
            }
            deliver(&addr, Mail(Input::Flushed(index)));
        });
    }

    fn leave(&mut self, keeps_votes: bool, ctx: &mut Context<Self>) {
        self.outbox.send_appends();
        if self.outbox.has_appends() {
            ctx.run_later(LEAVE_AGAIN_AFTER, move |actor, ctx| actor.leave(keeps_votes, ctx));
            return;
        }
        let staged = self.staged.take();
        tokio::task::spawn_blocking(move || drop(staged));
        let last = keeps_votes.then(|| self.replica.group().last_position());
        self.outbox.forget(self.store.clone(), last);
        ctx.stop();
    }

    fn hand_over(&mut self, ctx: &mut Context<Self>) {
        if self.replica.role().part != group::Part::Leader {
            return;
        }
        let me = self.replica.group().id();
        let candidates: Vec<_> = self
            .replica
            .group()
            .progress()
            .iter()
            .filter(|it| it.node != me && !it.is_learner && it.is_recently_active)
            .map(|it| flotilla_placement::Successor { node: it.node.0, matched: it.matched })
            .collect();
        if let Some(target) = flotilla_placement::successor(me.0, &candidates) {
            self.step(Input::Transfer(NodeId(target)), ctx);
        }
    }
}

impl Actor for RangeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_REQUESTS_MAX);
    }
}

impl Handler<Mail> for RangeActor {
    type Result = ();

    fn handle(&mut self, Mail(input): Mail, ctx: &mut Self::Context) {
        match input {
            Input::Submit(to, command) => {
                let now = self.now();
                if let Err(error) = self.replica.gather(now, &self.store, to, command) {
                    fatal(&format!("{error}"));
                }
                if !std::mem::replace(&mut self.is_turn_due, true) {
                    // Comes after everything that is in the mailbox already.
                    ctx.notify(Turn);
                }
            }
            input => self.step(input, ctx),
        }
    }
}

impl Handler<Tick> for RangeActor {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Self::Context) {
        self.place.is_tick_waiting.store(false, Ordering::Relaxed);
        self.step(Input::Tick, ctx);
    }
}

impl Handler<Turn> for RangeActor {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        self.is_turn_due = false;
        self.step(Input::Turn, ctx);
    }
}

impl Handler<LeadRange> for RangeActor {
    type Result = ();

    fn handle(&mut self, _: LeadRange, ctx: &mut Self::Context) {
        self.campaigns_left = CAMPAIGNS_MAX;
        self.step(Input::Campaign, ctx);
    }
}

impl Handler<Received> for RangeActor {
    type Result = ();

    fn handle(&mut self, received: Received, ctx: &mut Self::Context) {
        let Received { message, mark, sealed } = received;
        self.staged = Some(sealed);
        self.step(Input::SnapshotReceived(message, mark), ctx);
    }
}

impl Handler<EndRange> for RangeActor {
    type Result = ();

    fn handle(&mut self, end: EndRange, ctx: &mut Self::Context) {
        self.leave(end.keeps_votes, ctx);
    }
}

impl Handler<HandOverRange> for RangeActor {
    type Result = ();

    fn handle(&mut self, _: HandOverRange, ctx: &mut Self::Context) {
        self.hand_over(ctx);
    }
}
