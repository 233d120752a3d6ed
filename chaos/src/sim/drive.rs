//! Driving one machine: inputs in, effects carried out, in the order in which the real node does
//! both. Log, apply stage, network and clients report back as completions.

use flotilla_core::auth::Pass;
use flotilla_core::command::{Answer, Command, Outcome};
use flotilla_core::group::{Append, Ignored, Kind};
use flotilla_core::proto::internal::{PeerFrame, RaftMessage};
use flotilla_core::spine::{self, Effect, Input, Parcel};
use flotilla_core::stage::Work;
use flotilla_core::time::Length;
use flotilla_core::{Error, GroupId, NodeId, range};
use prost::Message as _;

use super::event::{NodeEvent, Report};
use super::log_disk::Record;
use super::mutant::Mutant;
use super::node::{Job, OwnCommand, Waiting};
use super::plan::SECOND;
use super::world::World;

/// Ticks made up for at once after a node was kept from its timer.
const TICKS_LATE_MAX: u64 = 3;
/// The slowest flush of a disk that is not stuck, in microseconds: the end of a run waits for it.
const SLOW_FLUSH_MAX: u64 = 2 * SECOND;
/// Mean time a report takes from one thread to another, in microseconds.
const REPORT_MEAN: u64 = 30;

impl World {
    pub(super) fn step(&mut self, id: u64, input: Input) {
        let now = self.clock_of(id);
        let node = self.nodes.get_mut(&id).expect("a step is made by a node");
        let Some(running) = node.running.as_mut() else { return };
        let mut effects = Vec::new();
        let result = running.replica.step(now, &node.store.view, input, &mut effects);
        if let Err(error) = result {
            self.invariants.break_with(format!("node {id}: {error}"));
            return;
        }
        self.check_state(id);
        self.carry_out(id, effects);
        self.flush_links(id);
        let Some(running) = self.running(id) else { return };
        let unsent = std::mem::take(&mut running.unsent);
        if !unsent.is_empty() {
            self.step(id, Input::Unsent(unsent));
        }
        let Some(running) = self.running(id) else { return };
        for peer in std::mem::take(&mut running.dropped) {
            self.step(id, Input::Disconnected(NodeId(peer)));
        }
    }

    pub(super) fn clock_of(&self, id: u64) -> flotilla_core::Time {
        let node = &self.nodes[&id];
        let running = node.running.as_ref().expect("the clock of a node that is up");
        let time = running.clock(self.now, node.drift_ppm);
        if self.is_mutant(Mutant::ClockFast) {
            return flotilla_core::Time(time.0 * 4);
        }
        time
    }

    pub(super) fn on_timer(&mut self, id: u64) {
        let (now, tick) = (self.now, self.plan.tick);
        let clock = self.clock_of(id);
        let running = self.up(id);
        let due_count = (now - running.ticked) / tick;
        let stalled = running.unflushed.front().map_or(Length(0), |(_, since)| clock.since(*since));
        if due_count > 0 {
            running.ticked = now;
            self.step(id, Input::DiskStalled(stalled));
            for _ in 0..due_count.min(TICKS_LATE_MAX) {
                self.step(id, Input::Tick);
                let ranges = self.up(id).ranges.iter();
                let awake = ranges.filter(|(_, replica)| replica.needs_ticks());
                let awake: Vec<GroupId> = awake.map(|(range, _)| *range).collect();
                for range in awake {
                    self.step_range(id, range, range::replica::Input::Tick);
                }
                self.campaign_for_children(id);
            }
        }
        // The timer runs by the node's own clock.
        let drift = self.nodes[&id].drift_ppm;
        let half = i64::try_from(tick / 2).expect("short");
        let wait = half - half * drift / 1_000_000;
        self.on_node(id, u64::try_from(wait).expect("drift is small"), NodeEvent::Timer);
    }

    pub(super) fn on_turn(&mut self, id: u64) {
        self.up(id).is_turn_due = false;
        self.step(id, Input::Turn);
    }

    /// A command of a client of this node, or of the simulator.
    pub(super) fn submit(&mut self, id: u64, pass: Pass, command: Command, waiting: Waiting) {
        let now = self.clock_of(id);
        let node = self.nodes.get_mut(&id).expect("a request arrives at a node");
        let running = node.running.as_mut().expect("it is up");
        running.requests_count += 1;
        let n = running.requests_count;
        running.commands.insert(n, waiting);
        if let Err(error) = running.replica.gather(now, &node.store.view, n, pass, command) {
            self.invariants.break_with(format!("node {id}: {error}"));
        }
        self.plan_turn(id);
    }

    pub(super) fn submit_ticket(&mut self, id: u64, operation: usize) {
        let now = self.clock_of(id);
        let running = self.up(id);
        running.requests_count += 1;
        let n = running.requests_count;
        running.tickets.insert(n, operation);
        running.replica.gather_ticket(now, n);
        self.plan_turn(id);
    }

    fn plan_turn(&mut self, id: u64) {
        let running = self.up(id);
        if !std::mem::replace(&mut running.is_turn_due, true) {
            let wait = self.chance.below(200);
            self.on_node(id, wait, NodeEvent::Turn);
        }
    }

    /// Something reaches the machine after what was reported before it.
    pub(super) fn report(&mut self, id: u64, report: Report) {
        let wait = self.chance.wait(REPORT_MEAN);
        let now = self.now;
        let running = self.up(id);
        running.last_report = running.last_report.max(now + wait);
        let wait = running.last_report - now;
        self.on_node(id, wait, NodeEvent::Report(report));
    }

    pub(super) fn on_report(&mut self, id: u64, report: Report) {
        match report {
            Report::Persisted(token) => {
                let unflushed = &mut self.up(id).unflushed;
                while unflushed.front().is_some_and(|(waiting, _)| *waiting <= token) {
                    unflushed.pop_front();
                }
                self.step(id, Input::Persisted(token));
            }
            Report::Applied { spine, reach, remote, answered, early, begun, ended } => {
                let index = spine.map_or(0, |position| position.index);
                for (to, outcome) in remote {
                    let answer = spine::encode_answer(to.id, &outcome, index);
                    self.gather(id, to.node.0, Parcel::Answer(answer));
                    self.flush_links(id);
                }
                if !answered.is_empty() {
                    self.step(id, Input::Answered(answered));
                }
                if !early.is_empty() {
                    self.see("answered when more was shown");
                    self.step(id, Input::Early(early));
                }
                if let Some(position) = spine {
                    self.step(id, Input::Applied(position));
                }
                if let Some(reach) = reach {
                    self.step(id, Input::Reach(reach));
                }
                for range in begun {
                    self.begin_range(id, range);
                }
                self.end_ranges(id, ended);
            }
            Report::Tell(range, tell) => self.step(id, Input::Range(range, tell)),
            Report::Flushed(index) => self.step(id, Input::Flushed(index)),
            Report::Connected(peer) => self.step(id, Input::Connected(NodeId(peer))),
            Report::Disconnected(peer, unsent) => {
                if !unsent.is_empty() {
                    self.see("forwards given back");
                    self.step(id, Input::Unsent(unsent));
                }
                self.step(id, Input::Disconnected(NodeId(peer)));
            }
            Report::SnapshotReceived(message, mark) => {
                self.step(id, Input::SnapshotReceived(message, mark));
            }
            Report::SnapshotInstalled => self.step(id, Input::SnapshotInstalled),
            Report::SnapshotSent(to, is_ok) => {
                self.step(id, Input::SnapshotSent(NodeId(to), is_ok));
            }
        }
    }

    pub(super) fn carry_out(&mut self, id: u64, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(id, effect);
        }
    }

    fn carry_out_one(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::Append(append) => self.append(id, append),
            Effect::Truncate(place) => {
                self.see("log truncated");
                self.write_log(id, GroupId::SPINE, Record::Truncate(place));
            }
            Effect::Send(to, parcel) => {
                if let (Parcel::Raft(message), Some(Mutant::AckWithoutQuorum)) =
                    (&parcel, self.mutant)
                {
                    self.forge_ack(id, message);
                }
                let is_vote = matches!(
                    &parcel,
                    Parcel::Raft(message)
                        if message.kind == Kind::VoteAnswer as u32 && !message.reject
                );
                self.gather(id, to.0, parcel);
                if is_vote {
                    self.crash_after_vote(id);
                }
            }
            Effect::SendSnapshot(to, message) => self.send_snapshot(id, to.0, message),
            Effect::Install(mark) => {
                self.say(|| format!("node {id} installs a snapshot at {}", mark.index));
                self.install_staged(id, GroupId::SPINE);
            }
            Effect::SnapshotRefused(reason) => {
                self.say(|| format!("node {id} refuses a snapshot: {reason}"));
                self.see("snapshot refused");
                self.up(id).staged.remove(&GroupId::SPINE);
            }
            Effect::Ignored(from, kind, reason) => {
                if matches!(reason, Ignored::LostEntries | Ignored::SecondLeader) {
                    self.invariants.break_inside(format!("node {id}, told by {from}: {reason}"));
                }
                self.say(|| format!("node {id} ignores kind {kind} of {from}: {reason}"));
            }
            Effect::Apply(task) => {
                self.check_committed(id, &task);
                self.on_entry_folded(&task);
                self.work(id, Job::Apply(Work::Spine(task)));
            }
            Effect::FlushStore => self.flush_store(id, GroupId::SPINE),
            Effect::Reply(n, outcome) => self.reply(id, n, outcome),
            // Only who measures minds.
            Effect::Deciding(_) => {}
            Effect::TicketReady(n, result) => self.answer_ticket(id, n, result),
            Effect::Auth(news) => self.on_auth(id, news),
            Effect::Cluster(cluster) => {
                let members: Vec<u64> = cluster.members.iter().map(|member| member.id).collect();
                self.set_members(id, &members, &cluster.removed);
            }
            Effect::Told(n, told) => self.on_told(id, n, told),
            Effect::Answer(to, ask) => self.answer_question(id, to, &ask),
            Effect::Removed => self.on_removed(id),
            Effect::Status(status) => self.on_status(id, status),
            Effect::Range(range, input) => {
                match input {
                    range::replica::Input::CutOff(_) => {
                        self.see("node cut off from the spine only")
                    }
                    range::replica::Input::DiskStalled => self.see("node whose log has stalled"),
                    _ => {}
                }
                self.mail(id, range, input);
            }
            Effect::Begin { range, since } => self.begin_empty(id, range, since),
            Effect::Drop(range) => {
                self.see("merged range left behind");
                self.say(|| format!("node {id} has no use for its replica of range {range}"));
                self.work(id, Job::Apply(Work::Drop(range)));
            }
            Effect::Forget(range) => {
                self.see("log of a merged range forgotten");
                self.say(|| format!("node {id} forgets the log of range {range}"));
                self.plan_end_log(id, range, false);
            }
            Effect::End { range, keeps_votes } => {
                self.say(|| format!("node {id} ends its replica of range {range}"));
                self.after_mail(id, range, NodeEvent::EndRange(range, keeps_votes));
            }
            Effect::Leave(range) => {
                self.see("range left");
                self.say(|| format!("node {id} leaves range {range}"));
                self.work(id, Job::Apply(Work::Leave(range)));
            }
        }
    }

    pub(super) fn install_staged(&mut self, id: u64, group: GroupId) {
        let staged = self.up(id).staged.remove(&group);
        let rows = staged.expect("a snapshot is staged before its install");
        self.work(id, Job::Install(group, rows));
    }

    fn append(&mut self, id: u64, mut append: Append) {
        let clock = self.clock_of(id);
        let token = append.token;
        if self.is_mutant(Mutant::SuffixKept) && append.reset.is_some() {
            append.reset = None;
            append.entries.clear();
        }
        self.up(id).unflushed.push_back((token, clock));
        self.write_log(id, GroupId::SPINE, Record::Append(append));
        if self.is_mutant(Mutant::AckBeforeFlush) {
            self.report(id, Report::Persisted(token));
        }
    }

    pub(super) fn write_log(&mut self, id: u64, group: GroupId, record: Record) {
        let node = self.nodes.get_mut(&id).expect("a node writes its log");
        if let Err(error) = node.log.write(group, record) {
            self.invariants.break_with(format!("the log of node {id} refuses: {error}"));
            return;
        }
        self.plan_log_flush(id);
    }

    fn plan_log_flush(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node flushes its log");
        if !node.log.start_flush() {
            return;
        }
        let (slowness, stuck_until) = (node.slowness, node.stuck_until);
        let wait = self.chance.wait(self.plan.flush_mean * slowness).min(SLOW_FLUSH_MAX);
        let wait = wait.max(stuck_until.saturating_sub(self.now));
        self.on_node(id, wait, NodeEvent::LogFlushed);
    }

    pub(super) fn on_log_flushed(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node flushes its log");
        let tokens = node.log.end_flush();
        if !self.is_mutant(Mutant::AckBeforeFlush) {
            for (group, token) in tokens {
                match group {
                    GroupId::SPINE => self.report(id, Report::Persisted(token)),
                    range => self.mail(id, range, range::replica::Input::Persisted(token)),
                }
            }
        }
        self.plan_log_flush(id);
    }

    fn on_status(&mut self, id: u64, status: spine::Status) {
        let before = std::mem::replace(&mut self.up(id).status, status);
        if before != status {
            self.trace.number(status.term ^ status.leader.map_or(0, |leader| leader.0 << 32));
            self.say(|| {
                let role = if status.is_leader { "leads" } else { "follows" };
                format!("node {id} {role} in term {}, leader {:?}", status.term, status.leader)
            });
        }
        if status.is_leader {
            if !before.is_leader {
                self.see("leader elected");
            }
            self.invariants.leads(id, status.term);
        }
        self.tell_hub_of_leader(id);
    }

    /// The answer of a follower that never got the entries.
    fn forge_ack(&mut self, id: u64, message: &RaftMessage) {
        if message.kind != Kind::Append as u32 || message.entries.is_empty() {
            return;
        }
        let answer = RaftMessage {
            group: message.group,
            to: id,
            from: message.to,
            kind: Kind::AppendAnswer as u32,
            term: message.term,
            index: message.index + message.entries.len() as u64,
            ..RaftMessage::default()
        };
        let frame = PeerFrame { raft: vec![answer], ..PeerFrame::default() };
        let life = self.nodes[&id].life;
        let bytes = super::network::seal(&frame.encode_to_vec());
        let event = NodeEvent::Frame { from: message.to, life, connection: u64::MAX, bytes };
        self.on_node(id, 1, event);
    }

    /// The machine answers, at most once.
    fn reply(&mut self, id: u64, n: u64, outcome: Outcome) {
        if !self.up(id).replied.insert(n) {
            self.invariants.break_with(format!("node {id} answers request {n} twice"));
            return;
        }
        self.tell_client(id, n, outcome);
    }

    /// What the apply stage answers without asking the machine, which may be telling the client of
    /// a time-out at the same moment. The client hears what comes first.
    pub(super) fn reply_applied(&mut self, id: u64, n: u64, outcome: Outcome) {
        if !self.up(id).applied.insert(n) {
            self.invariants.break_with(format!("request {n} of node {id} is applied twice"));
            return;
        }
        self.tell_client(id, n, outcome);
    }

    fn tell_client(&mut self, id: u64, n: u64, outcome: Outcome) {
        let shown = self.up(id).stage.reach().shown.head.revision;
        let told = outcome.as_ref().map_or(0, Answer::revision);
        if told > shown {
            self.invariants.break_with(format!(
                "node {id} answers request {n} at revision {told}, and shows {shown}"
            ));
        }
        let Some(waiting) = self.up(id).commands.remove(&n) else { return };
        match waiting {
            Waiting::Call(operation) => self.answer_call(id, operation, outcome, None),
            Waiting::Decided(operation, branch) => {
                self.answer_call(id, operation, outcome, Some(branch));
            }
            Waiting::Own(own) => self.on_own_answer(own, &outcome),
        }
    }

    fn on_own_answer(&mut self, own: OwnCommand, outcome: &Outcome) {
        self.say(|| format!("{own:?} is answered: {outcome:?}"));
        match (own, outcome) {
            (OwnCommand::Split, Ok(_)) => self.see("range cut"),
            (OwnCommand::Drain, Ok(_)) => self.see("member drained or no longer"),
            (OwnCommand::ChangeUsers, Ok(_)) => self.see("users changed"),
            (OwnCommand::Decide, Ok(_)) => self.see("decision kept"),
            (OwnCommand::Conclude, Ok(_)) => self.see("decision concluded"),
            (OwnCommand::MoveReplica, Ok(_)) => self.see("replica moved"),
            (OwnCommand::Merge, Ok(_)) => self.see("ranges merged"),
            (OwnCommand::Merge, Err(Error::ReplicaBehind)) => self.see("merge given up"),
            (OwnCommand::Merge, Err(Error::NotNeighbours | Error::RangeNotFound)) => {
                self.see("merge of others than neighbours refused");
            }
            (OwnCommand::MoveLeader, Ok(Answer::MoveLeader(_))) => self.see("leader moved"),
            (OwnCommand::AddMember(_), Ok(_)) => self.see("member added"),
            (OwnCommand::PromoteMember(_), Ok(_)) => self.see("member promoted"),
            (OwnCommand::SpineVote, Ok(_)) => self.see("vote in the spine given or taken"),
            (OwnCommand::RemoveMember(_), Ok(_)) => self.see("member removed"),
            _ => {}
        }
    }

    pub(super) fn on_removed(&mut self, id: u64) {
        self.say(|| format!("node {id} was removed"));
        let node = self.nodes.get_mut(&id).expect("it is known");
        if !node.is_out {
            node.is_out = true;
            // Its process stops a little later, after the last messages are out.
            self.on_node(id, 1_000, NodeEvent::Broken(0, 0));
        }
    }
}
