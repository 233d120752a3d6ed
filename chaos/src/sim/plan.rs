//! What one seed makes of a run: size, timing, limits and which faults there are. Every run has
//! its own mixture, since faults that are always there hide what only their absence shows.

use bytes::Bytes;
use flotilla_core::group::Retention;
use flotilla_core::spine;
use flotilla_core::spine::REPLICAS_WANTED;
use flotilla_core::time::Length;
use flotilla_core::{snapshot, watch};

use super::chance::Chance;
use super::mutant::Mutant;
use super::reduction::Reduction;
use super::scale::Scale;
use crate::traffic::{self, Kind};

/// Microseconds in a millisecond.
pub const MS: u64 = 1_000;
/// Microseconds in a second.
pub const SECOND: u64 = 1_000 * MS;

/// What can be asked of a run beside its seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Founding members; drawn when it is zero.
    pub nodes_count: u64,
    /// Whether the keyspace is cut into ranges; drawn when it is not said.
    pub is_split: Option<bool>,
    /// Ranges are cut and merged all the time, and trouble comes three times as often.
    pub is_restless: bool,
    /// Trouble strikes in the middle of cuts and merges, logs are short, and now and then a node is
    /// lost for good. For a restless run.
    pub is_aimed: bool,
    /// What clients mostly do, if it is to be something.
    pub focus: Option<Focus>,
    /// Authentication is turned on, and permissions come and go.
    pub has_users: bool,
    /// A bug to plant in the driver.
    pub mutant: Option<Mutant>,
    /// A bug to plant in the machines, in a build that has some.
    pub machine_mutant: Option<flotilla_core::mutant::Mutant>,
    /// Leave out the checks that look into the nodes, so that only what clients see is judged.
    pub is_black_box: bool,
    /// Keep so many of the last lines of the trace.
    pub lines_max: usize,
    /// See how far a cluster scales, and nothing else.
    pub scale: Option<Scale>,
    /// What is left out of the run.
    pub reduction: Reduction,
}

/// What clients mostly do, beside what they always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// They grant leases, attach keys to them, and end them.
    Leases,
    /// They read the past, in transactions too, and compact it.
    History,
}

impl Focus {
    /// As on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leases => "leases",
            Self::History => "history",
        }
    }
}

impl std::str::FromStr for Focus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "leases" => Ok(Self::Leases),
            "history" => Ok(Self::History),
            _ => Err(format!("there is no focus on {text}, but on leases and history")),
        }
    }
}

impl Options {
    /// Whether there are users: a bug about them is not met without.
    pub fn has_users(&self) -> bool {
        self.has_users || self.mutant == Some(Mutant::PassForgotten)
    }
}

/// Where there are users, at least so many kinds of trouble, and half of them, are changes of users.
const USERS_MIN: usize = 6;
/// Of the kinds of trouble in a restless run, so many are cuts.
const RESTLESS_SPLITS: usize = 6;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node loses power and comes back.
    Crash,
    /// All nodes lose power at about the same time.
    CrashAll,
    /// Nodes are stopped in good order and started again, one after the other.
    Rolling,
    /// Some pairs of nodes hear nothing of each other.
    Partition,
    /// One node hears all others, who do not hear each other.
    Bridge,
    /// One direction of one pair is silent.
    OneWay,
    /// A connection breaks.
    Break,
    /// A node does nothing for a while.
    Pause,
    /// The disk under a log is slow.
    SlowDisk,
    /// It does nothing at all.
    StuckDisk,
    /// The leadership is moved.
    MoveLeader,
    /// A node is added as a learner, promoted, later removed.
    Members,
    /// A range is cut; no trouble, but it must not become any.
    Split,
    /// The leader of a range is to hand over. Likewise.
    MoveRange,
    /// Ranges are merged; as little trouble.
    Merge,
    /// Another node is to hold a range, or one less, or one more. Likewise.
    MoveReplica,
    /// Users, roles or permissions are changed. Likewise.
    Users,
    /// A member gets or loses its vote in the spine. Likewise.
    Votes,
    /// A node has the leaders send it their state in place of its own.
    Rebuild,
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::Crash,
        Self::CrashAll,
        Self::Rolling,
        Self::Partition,
        Self::Bridge,
        Self::OneWay,
        Self::Break,
        Self::Pause,
        Self::SlowDisk,
        Self::StuckDisk,
        Self::MoveLeader,
        Self::Members,
        Self::Rebuild,
    ];
}

/// How the network behaves. Chances are in millionths.
#[derive(Clone, Debug)]
pub struct Network {
    /// Mean time a frame is under way.
    pub delay_mean: u64,
    /// Frames that are lost without a broken connection.
    pub loss: u64,
    /// Frames that arrive twice.
    pub repeat: u64,
    /// Frames that do not wait for the ones before.
    pub overtake: u64,
    /// Frames with a flipped bit.
    pub flip: u64,
}

/// How clients behave.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// How many there are.
    pub clients_count: u32,
    /// Mean pause between two calls of one client.
    pub think_mean: u64,
    /// Keys they share.
    pub keys_count: u64,
    /// After this a client gives a call up.
    pub patience: u64,
    /// Relative weights of the calls, as in `traffic::KINDS`.
    pub weights: Vec<u64>,
    /// Watchers of parts of the keyspace.
    pub watchers_count: usize,
    /// One in so many puts attaches its key to a lease.
    pub attached_one_in: u64,
    /// One in so many puts keeps the value of its key, and as many the lease.
    pub kept_one_in: u64,
    /// See `Options::focus`.
    pub focus: Option<Focus>,
    /// Every other key is one from here to there.
    pub hot: Option<(u64, u64)>,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Founding members.
    pub nodes_count: u64,
    /// How long there is trouble.
    pub trouble_for: u64,
    /// Mean time between two faults.
    pub fault_every: u64,
    /// Kinds of trouble.
    pub faults: Vec<Fault>,
    /// Length of a tick.
    pub tick: u64,
    /// Ticks of an election timeout.
    pub election_ticks: u64,
    /// Ticks after which a range's group sleeps that has nothing to do.
    pub sleep_after_ticks: u64,
    /// After this a request is answered with a time-out.
    pub request_timeout: u64,
    /// Clocks run up to this much too fast or too slow, in millionths.
    pub drift_ppm: u64,
    /// Network.
    pub network: Network,
    /// Clients.
    pub traffic: Traffic,
    /// Mean time of a flush of the log.
    pub flush_mean: u64,
    /// Mean time of a step of the apply stage.
    pub apply_mean: u64,
    /// Most tasks of a batch.
    pub batch_tasks_max: u64,
    /// Once in so many batches the store flushes by itself.
    pub store_flush_one_in: u64,
    /// Rows a step of compaction looks at.
    pub compaction_rows_max: usize,
    /// Limits of the machine.
    pub limits: spine::Limits,
    /// Bytes of entries in one append message.
    pub message_bytes_max: u64,
    /// Append messages under way to one peer.
    pub inflight_messages_max: usize,
    /// Limits of the hubs.
    pub watch_limits: watch::Limits,
    /// How often quiet watchers hear of progress.
    pub progress_every: u64,
    /// Snapshots.
    pub snapshot_limits: snapshot::Limits,
    /// Once in so many chunks a transfer fails.
    pub snapshot_fails_one_in: u64,
    /// Whether there are, or come to be, several ranges.
    pub is_split: bool,
    /// Keys at which the keyspace is cut when the cluster is founded.
    pub cuts: Vec<Bytes>,
    /// Trouble strikes in the middle of cuts and merges.
    pub is_aimed: bool,
    /// A node is lost for good at the end, and the others must do without it.
    pub loses_one: bool,
    /// One in so many pages of a read is read on another node though this one could; 0 for none.
    pub reads_elsewhere_one_in: u64,
    /// How many nodes are to hold each range.
    pub replicas_wanted: usize,
    /// One in so many pieces of history for watchers is read on another node though this one could.
    pub blocks_elsewhere_one_in: u64,
    /// See `Options::scale`.
    pub scale: Option<Scale>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(chance: &mut Chance, options: &Options) -> Self {
        let nodes_count = match options.nodes_count {
            0 => *chance.pick(&[3, 3, 3, 5]),
            count => count,
        };
        let tick = chance.between(10, 60) * MS;
        let election_ticks = 10;
        let election = tick * election_ticks;
        let mut faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| !chance.one_in(3)).collect();
        if faults.is_empty() || options.mutant.is_some() {
            faults.extend([Fault::Crash, Fault::Partition, Fault::Bridge, Fault::CrashAll]);
        }
        let mut plan = Self {
            nodes_count,
            trouble_for: chance.between(8, 20) * SECOND,
            fault_every: chance.between(election / 2, election * 4),
            faults,
            tick,
            election_ticks,
            sleep_after_ticks: 0,
            request_timeout: chance.between(election * 2, election * 6),
            drift_ppm: *chance.pick(&[0, 100, 10_000]),
            network: Network::draw(chance),
            traffic: Traffic::draw(chance, election, options.focus),
            flush_mean: *chance.pick(&[200, 2 * MS, 10 * MS, 30 * MS]),
            apply_mean: chance.between(20, 3 * MS),
            batch_tasks_max: *chance.pick(&[1, 4, 64]),
            store_flush_one_in: *chance.pick(&[5, 50, 1_000]),
            compaction_rows_max: *chance.pick(&[1, 7, 100]),
            limits: draw_limits(chance),
            message_bytes_max: *chance.pick(&[64, 1_000, 1 << 20]),
            inflight_messages_max: *chance.pick(&[1, 4, 256]),
            watch_limits: draw_watch_limits(chance),
            progress_every: chance.between(100, 2_000) * MS,
            snapshot_limits: snapshot::Limits {
                chunk_bytes_max: *chance.pick(&[500, 4_000, 1 << 20]),
                window_chunks_max: chance.between(1, 8),
                ..snapshot::Limits::default()
            },
            snapshot_fails_one_in: *chance.pick(&[10, 100, 1_000_000]),
            is_split: false,
            cuts: Vec::new(),
            reads_elsewhere_one_in: 0,
            replicas_wanted: REPLICAS_WANTED,
            blocks_elsewhere_one_in: 0,
            is_aimed: options.is_aimed,
            loses_one: false,
            scale: None,
        };
        plan.draw_cuts(chance, options);
        if options.is_aimed {
            plan.loses_one = chance.one_in(3);
            let retention = &mut plan.limits.retention;
            retention.flush_entries = *chance.pick(&[20, 20, 100]);
            retention.catch_up_entries = *chance.pick(&[0, 0, 10]);
        }
        if chance.one_in(2) {
            plan.faults.push(Fault::Votes);
        }
        plan.blocks_elsewhere_one_in = *chance.pick(&[2, 5, 20]);
        if options.has_users() {
            let count = plan.faults.len().max(USERS_MIN);
            plan.faults.extend(std::iter::repeat_n(Fault::Users, count));
            plan.fault_every /= 2;
        }
        if let Some(scale) = options.scale {
            plan.set_scale(scale);
        }
        plan
    }

    /// Every other run has more than one range.
    fn draw_cuts(&mut self, chance: &mut Chance, options: &Options) {
        let is_split = match options.is_split {
            Some(is_split) => is_split,
            None if options.is_restless => true,
            None => options.mutant.is_none() && chance.one_in(2),
        };
        self.is_split = is_split;
        if !is_split {
            return;
        }
        let cuts = super::ranges::CUTS.into_iter().map(Bytes::from_static);
        let rate = chance.between(1, 3);
        self.sleep_after_ticks = *chance.pick(&[1, 3, 10, 30]);
        self.cuts = cuts.filter(|_| chance.one_in(rate)).collect();
        if chance.one_in(2) {
            self.faults.push(Fault::Split);
        }
        // What was cut comes together again, and is cut anew.
        let merges = if options.is_restless {
            self.fault_every /= 3;
            self.faults.extend([Fault::Split; RESTLESS_SPLITS]);
            chance.between(6, 14)
        } else {
            chance.below(4)
        };
        self.faults.extend((0..merges).map(|_| Fault::Merge));
        if chance.one_in(2) {
            self.faults.push(Fault::MoveRange);
        }
        self.reads_elsewhere_one_in = *chance.pick(&[0, 0, 2, 10]);
        if chance.one_in(2) {
            self.replicas_wanted = usize::try_from(chance.between(2, 5)).expect("a small number");
            let moves = chance.between(1, if options.is_restless { 12 } else { 4 });
            self.faults.extend((0..moves).map(|_| Fault::MoveReplica));
        }
    }

    /// The election timeout.
    pub fn election(&self) -> u64 {
        self.tick * self.election_ticks
    }

    /// The election timeout, for a machine.
    pub fn election_timeout(&self) -> Length {
        Length(self.election())
    }
}

impl Network {
    fn draw(chance: &mut Chance) -> Self {
        let is_rough = chance.one_in(3);
        let mut share = |max: u64| if is_rough { chance.below(max) } else { 0 };
        let (loss, repeat, overtake) = (share(50_000), share(50_000), share(100_000));
        Self {
            delay_mean: chance.between(100, 5 * MS),
            loss,
            repeat,
            overtake,
            flip: if chance.one_in(4) { 1_000 } else { 0 },
        }
    }
}

impl Traffic {
    fn draw(chance: &mut Chance, election: u64, focus: Option<Focus>) -> Self {
        let weights = crate::traffic::KINDS
            .iter()
            .map(|(_, weight)| if chance.one_in(6) { 0 } else { *weight })
            .collect::<Vec<_>>();
        let mut traffic = Self {
            clients_count: u32::try_from(chance.between(3, 12)).expect("a small number"),
            think_mean: chance.between(2, 60) * MS,
            keys_count: chance.between(2, 10),
            patience: chance.between(election * 2, election * 8),
            weights,
            watchers_count: usize::try_from(chance.between(1, 6)).expect("a small number"),
            attached_one_in: 5,
            kept_one_in: traffic::KEPT_ONE_IN,
            focus,
            hot: None,
        };
        // A run without puts and reads says little.
        for at in [0, 1] {
            traffic.weights[at] = crate::traffic::KINDS[at].1;
        }
        traffic.look_at(focus);
        traffic
    }

    fn look_at(&mut self, focus: Option<Focus>) {
        let more: &[(Kind, u64)] = match focus {
            None => &[],
            Some(Focus::Leases) => &[(Kind::Grant, 20), (Kind::Revoke, 15), (Kind::KeepAlive, 8)],
            Some(Focus::History) => &[(Kind::Txn, 40), (Kind::OldRead, 20), (Kind::Compact, 15)],
        };
        for (weight, (kind, _)) in self.weights.iter_mut().zip(crate::traffic::KINDS) {
            *weight += more.iter().filter(|(it, _)| *it == kind).map(|(_, more)| more).sum::<u64>();
        }
        if focus == Some(Focus::Leases) {
            self.attached_one_in = 2;
        }
    }
}

fn draw_limits(chance: &mut Chance) -> spine::Limits {
    let flush_entries = *chance.pick(&[20, 100, 10_000]);
    spine::Limits {
        entry_bytes_max: *chance.pick(&[300, 1 << 20]),
        entry_records_max: *chance.pick(&[1, 3, 1_024]),
        open_requests_max: *chance.pick(&[4, 8_000, 8_000]),
        unapplied_entries_max: *chance.pick(&[10, 5_000]),
        retention: Retention {
            flush_entries,
            catch_up_entries: *chance.pick(&[0, 10, 200]),
            ..Retention::default()
        },
        ..spine::Limits::default()
    }
}

fn draw_watch_limits(chance: &mut Chance) -> watch::Limits {
    if chance.one_in(2) {
        return watch::Limits::default();
    }
    watch::Limits {
        queue_bytes_max: *chance.pick(&[600, 5_000]),
        fragment_bytes: *chance.pick(&[200, 2_000]),
        response_revisions_max: *chance.pick(&[1, 5, 1_000]),
        response_bytes_max: *chance.pick(&[200, 1 << 20]),
        block_rows_max: *chance.pick(&[2, 30]),
        block_events_max: *chance.pick(&[2, 30]),
        block_watchers_max: *chance.pick(&[1, 512]),
        stream_ready_max: *chance.pick(&[1, 512]),
        gather_events_max: *chance.pick(&[3, 1_000]),
        ..watch::Limits::default()
    }
}
