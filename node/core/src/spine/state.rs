//! The spine's state: a pure function of the committed log (I1). Revisions come into being here
//! and nowhere else. It is small and kept in memory; every change is also a row of the Meta column,
//! written in the same batch as the data, so state and data can never disagree after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::auth::{Admission, Auth, Forget, News, Pass, token_text};
use crate::command::RequestId;
use crate::mutant::{self, Mutant};
use crate::proto::internal::{self, Share, record::Body, void::Reason};
use crate::proto::{NodeId, Span};
use crate::range::numbering;
use crate::spine::decisions::Decisions;
use crate::spine::ranges::{Predicates, Range, Ranges};
use crate::spine::txns::{self, Decision, Txns};
use crate::view::{Batch, Column, View, ViewError};
use crate::{Error, GroupId, LeaseId, mvcc};

pub use crate::proto::internal::Member;

/// Request ids remembered per origin: an older one is taken for a duplicate. A gateway keeps far
/// fewer requests under way than this.
pub const WINDOW_REQUESTS_MAX: u64 = 8_192;
/// Origins remembered; the one that was silent longest is forgotten first.
pub const WINDOW_ORIGINS_MAX: usize = 64;
/// How many nodes hold each range if nobody says otherwise: as many as vote in the clusters that
/// etcd's users run.
pub const REPLICAS_WANTED: usize = 5;
/// How many may be wanted.
pub const REPLICAS_WANTED_MAX: u32 = 9;
/// Alarm kind CORRUPT of etcd's API.
pub const ALARM_CORRUPT: i32 = 2;
/// Alarm kind NOSPACE of etcd's API.
pub const ALARM_NOSPACE: i32 = 1;

/// First byte of a Meta key of the spine; the rest is written big-endian. Zero belongs to the node
/// (`snapshot::NODE_LOCAL`) and `m` to `mvcc`.
mod row {
    pub(super) const APPLIED: u8 = b'a';
    pub(super) const CLUSTER: u8 = b'c';
    pub(super) const DECISION: u8 = b'd';
    pub(super) const AUTH: u8 = b'e';
    pub(super) const CONF: u8 = b'f';
    pub(super) const RANGE: u8 = b'g';
    pub(super) const NEXT_RANGE: u8 = b'h';
    pub(super) const LEASE: u8 = b'l';
    pub(super) const MEMBER: u8 = b'n';
    pub(super) const REPLICAS_WANTED: u8 = b'q';
    pub(super) const ROLE: u8 = b'o';
    pub(super) const REMOVED: u8 = b'r';
    pub(super) const TXN: u8 = b't';
    pub(super) const ALARM: u8 = b's';
    pub(super) const USER: u8 = b'u';
    pub(super) const VERSION: u8 = b'v';
    pub(super) const WINDOW: u8 = b'w';
}

/// Where the applied state stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Index of the last applied entry of the spine.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The store's revision.
    pub revision: i64,
    /// The last compacted revision; -1 before any compaction.
    pub compact_revision: i64,
}

impl Position {
    /// As a Meta row, written with every applied batch.
    pub fn write(&self, batch: &mut Batch) {
        let mut value = BytesMut::with_capacity(32);
        value.put_u64(self.index);
        value.put_u64(self.term);
        value.put_i64(self.revision);
        value.put_i64(self.compact_revision);
        batch.put(Column::Meta, vec![row::APPLIED], value.freeze());
    }

    fn read(value: &[u8]) -> Option<Self> {
        let word = |at: usize| value.get(at..at + 8)?.try_into().ok();
        let position = Self {
            index: u64::from_be_bytes(word(0)?),
            term: u64::from_be_bytes(word(8)?),
            revision: i64::from_be_bytes(word(16)?),
            compact_revision: i64::from_be_bytes(word(24)?),
        };
        let Self { revision, compact_revision, .. } = position;
        let is_sound = revision >= 1 && (-1..=revision).contains(&compact_revision);
        (is_sound && value.len() == 32).then_some(position)
    }
}

/// A granted lease; its deadline is known to the leader alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Granted seconds.
    pub ttl: i64,
    /// Seconds that were left at the last checkpoint; 0 when there is none.
    pub remaining_ttl: i64,
    /// Ranges other than 0 in which a key was ever attached to it.
    pub ranges: BTreeSet<u64>,
    /// Index of the entry that granted it; 0 if the cluster began with it.
    pub granted_at: u64,
}

impl Lease {
    /// Whether this is another than the one that was found to have expired, with the same id.
    fn is_another(&self, expired_in_term: u64, granted_at: u64) -> bool {
        let is_told = expired_in_term != 0 && granted_at != 0;
        is_told && granted_at != self.granted_at && !mutant::is(Mutant::LeaseMistaken)
    }
}

/// What the fold makes of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// A write that has this revision; its effects are to be applied.
    Numbered(i64),
    /// The state changed without a revision, or there was nothing to change.
    Done,
    /// Void, and this is why.
    Rejected(Error),
    /// A transaction over several ranges. It has this revision, or 0 if it changes no key.
    Committed(i64),
    /// A transaction over several ranges that ended without effect: its locks were lost.
    Ended,
    /// Users, roles, permissions or tokens have changed.
    AuthNews(News),
    /// Writes of other ranges were numbered.
    Assigned(Vec<(GroupId, internal::Run)>),
    /// Seen before (I13): void, and whoever waits was answered the first time.
    Duplicate,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window {
    top: u64,
    /// Bit `n % WINDOW_REQUESTS_MAX`, for the ids in (top - WINDOW_REQUESTS_MAX, top].
    seen: Vec<u64>,
    index: u64,
}

impl Window {
    const WORDS: usize = (WINDOW_REQUESTS_MAX / 64) as usize;

    /// True when `n` is new; marks it.
    fn admit(&mut self, n: u64, index: u64) -> bool {
        self.seen.resize(Self::WORDS, 0);
        self.index = index;
        if n.saturating_add(WINDOW_REQUESTS_MAX) <= self.top {
            return false;
        }
        if n > self.top {
            let steps = (n - self.top).min(WINDOW_REQUESTS_MAX);
            for passed in 1..=steps {
                self.set(self.top + passed, false);
            }
            self.top = n;
            // A jump past the whole window leaves every bit cleared above only for the last ids.
            if steps == WINDOW_REQUESTS_MAX {
                self.seen.fill(0);
            }
        } else if self.is_set(n) {
            return false;
        }
        self.set(n, true);
        true
    }

    /// Whether this was admitted, or is too old to tell.
    fn has_seen(&self, n: u64) -> bool {
        n.saturating_add(WINDOW_REQUESTS_MAX) <= self.top || (n <= self.top && self.is_set(n))
    }

    fn is_set(&self, n: u64) -> bool {
        let bit = n % WINDOW_REQUESTS_MAX;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, n: u64, is_on: bool) {
        let bit = n % WINDOW_REQUESTS_MAX;
        let word = &mut self.seen[(bit / 64) as usize];
        if is_on {
            *word |= 1 << (bit % 64);
        } else {
            *word &= !(1 << (bit % 64));
        }
    }

    fn encode(&self) -> Bytes {
        let mut seen = Vec::with_capacity(self.seen.len() * 8);
        for word in &self.seen {
            seen.extend_from_slice(&word.to_le_bytes());
        }
        internal::RequestWindow { top: self.top, seen: seen.into(), index: self.index }
            .encode_to_vec()
            .into()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let stored = internal::RequestWindow::decode(value).ok()?;
        if stored.seen.len() != Self::WORDS * 8 {
            return None;
        }
        let seen = stored
            .seen
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().expect("chunks of eight")))
            .collect();
        Some(Self { top: stored.top, seen, index: stored.index })
    }
}

/// The state after some prefix of the spine.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    position: Position,
    cluster_id: u64,
    cluster_version: String,
    conf: internal::ConfState,
    leases: BTreeMap<i64, Lease>,
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    /// (kind, member) of every active alarm.
    alarms: BTreeSet<(i32, u64)>,
    windows: BTreeMap<u64, Window>,
    ranges: Ranges,
    /// The id of the next new range; ids never come back.
    next_range: u64,
    /// How many nodes are to hold each range.
    replicas_wanted: usize,
    txns: Txns,
    decisions: Decisions,
    /// Shared with whoever checks requests of clients.
    auth: Arc<Auth>,
}

impl State {
    /// The state every founding node starts from: revision 1 (I15), and a log that begins after
    /// index 1 of term 1.
    pub fn bootstrap(cluster_id: u64, members: Vec<Member>) -> Self {
        let ids = |are_learners: bool| {
            let members = members.iter().filter(|member| member.is_learner == are_learners);
            members.map(|member| member.id).collect()
        };
        let (voters, learners) = (ids(false), ids(true));
        let conf = internal::ConfState { voters, learners, ..Default::default() };
        Self {
            position: Position { index: 1, term: 1, revision: 1, compact_revision: -1 },
            cluster_id,
            cluster_version: String::new(),
            conf,
            leases: BTreeMap::new(),
            members: members.into_iter().map(|member| (member.id, member)).collect(),
            removed: BTreeSet::new(),
            alarms: BTreeSet::new(),
            windows: BTreeMap::new(),
            ranges: Ranges::default(),
            next_range: 1,
            replicas_wanted: REPLICAS_WANTED,
            txns: Txns::default(),
            decisions: Decisions::default(),
            auth: Arc::new(Auth::default()),
        }
    }

    /// The state of a node that joins a running cluster and knows nothing yet: its log is empty
    /// and a snapshot will replace all of this.
    pub fn empty(cluster_id: u64) -> Self {
        let mut state = Self::bootstrap(cluster_id, Vec::new());
        state.position = Position { index: 0, term: 0, revision: 1, compact_revision: -1 };
        state
    }

    /// Reads the state that was stored with the data; `None` when the store is new.
    ///
    /// # Errors
    /// The store cannot be read, or a row cannot be understood.
    pub fn load(view: &dyn View) -> Result<Option<Self>, ViewError> {
        let mut state = Self::empty(0);
        let mut is_found = false;
        let mut damage = None;
        view.scan(Column::Meta, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            match state.load_row(key, value) {
                Some(is_position) => is_found |= is_position,
                None => damage = Some(format!("spine state row {key:02x?}")),
            }
            if damage.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match damage {
            Some(what) => Err(ViewError(what)),
            None => Ok(is_found.then_some(state)),
        }
    }

    /// Takes one Meta row: whether it is the position, or `None` when it is damaged.
    fn load_row(&mut self, key: &[u8], value: &[u8]) -> Option<bool> {
        let (kind, rest) = key.split_first()?;
        let id = || rest.try_into().ok().map(u64::from_be_bytes);
        match *kind {
            row::APPLIED => {
                self.position = Position::read(value)?;
                return Some(true);
            }
            row::CLUSTER => self.cluster_id = u64::from_be_bytes(value.try_into().ok()?),
            row::CONF => self.conf = internal::ConfState::decode(value).ok()?,
            row::LEASE => {
                let stored = internal::StoredLease::decode(value).ok()?;
                let (ttl, remaining_ttl) = (stored.ttl, stored.remaining_ttl);
                let ranges = stored.ranges.into_iter().collect();
                let lease = Lease { ttl, remaining_ttl, ranges, granted_at: stored.granted_at };
                self.leases.insert(id()?.cast_signed(), lease);
            }
            row::MEMBER => {
                self.members.insert(id()?, Member::decode(value).ok()?);
            }
            row::REMOVED => {
                self.removed.insert(id()?);
            }
            row::ALARM => {
                let (kind, member) = rest.split_first_chunk::<4>()?;
                let member = u64::from_be_bytes(member.try_into().ok()?);
                self.alarms.insert((i32::from_be_bytes(*kind), member));
            }
            row::VERSION => self.cluster_version = String::from_utf8(value.to_vec()).ok()?,
            row::WINDOW => {
                self.windows.insert(id()?, Window::decode(value)?);
            }
            row::RANGE => self.ranges.decode(GroupId(id()?), value)?,
            row::REPLICAS_WANTED => {
                self.replicas_wanted = u32::from_be_bytes(value.try_into().ok()?) as usize;
            }
            row::NEXT_RANGE => self.next_range = u64::from_be_bytes(value.try_into().ok()?),
            row::TXN => {
                let (origin, n) = rest.split_first_chunk::<8>()?;
                let n = u64::from_be_bytes(n.try_into().ok()?);
                let id = RequestId { origin: u64::from_be_bytes(*origin), n };
                self.txns.decode(id, value)?;
            }
            row::DECISION => self.decisions.decode(id()?, value)?,
            row::AUTH => Arc::make_mut(&mut self.auth).decode(value)?,
            row::USER => Arc::make_mut(&mut self.auth).decode_user(value)?,
            row::ROLE => Arc::make_mut(&mut self.auth).decode_role(value)?,
            // Rows of other modules.
            _ => {}
        }
        Some(false)
    }

    /// A new cluster begins with the state of a backup, whose keys are in range 0: at this revision and
    /// compacted at that one, with its leases, users and roles.
    ///
    /// # Panics
    /// The cluster is not new, or the revisions are none.
    pub fn restore(
        &mut self,
        revision: i64,
        compact_revision: i64,
        leases: BTreeMap<i64, Lease>,
        auth: Auth,
    ) {
        assert!(self.ranges.is_empty() && self.position.revision == 1, "only a new cluster");
        assert!((-1..=revision).contains(&compact_revision) && revision >= 1, "a head is sound");
        self.position = Position { revision, compact_revision, ..self.position };
        self.leases = leases;
        self.auth = Arc::new(auth);
    }

    /// Everything as rows: for a new store.
    pub fn write_all(&self, batch: &mut Batch) {
        self.position.write(batch);
        for (id, lease) in &self.leases {
            write_lease(batch, *id, lease);
        }
        self.write_auth(batch);
        batch.put(
            Column::Meta,
            vec![row::CLUSTER],
            Bytes::copy_from_slice(&self.cluster_id.to_be_bytes()),
        );
        self.write_conf(batch);
        for member in self.members.values() {
            write_member(batch, member);
        }
        for (id, _) in self.ranges.iter() {
            self.write_range(id, batch);
        }
        self.write_next_range(batch);
        self.write_replicas_wanted(batch);
    }

    /// Cuts the keyspace of a new cluster: a range begins at each of the keys, which rise, and range
    /// 0 keeps what is before the first. Ids count up from 1. Each is held by as many of the nodes as
    /// are wanted, in turn.
    pub fn pre_split(&mut self, keys: &[Bytes], nodes: &[NodeId]) {
        assert!(self.ranges.is_empty() && self.position.revision == 1, "only a new cluster");
        for (n, start) in keys.iter().enumerate() {
            let span = Span { start: start.clone(), end: keys.get(n + 1).cloned() };
            let id = GroupId(n as u64 + 1);
            let count = nodes.len().min(self.replicas_wanted);
            let in_turn = nodes.iter().cycle().skip(n * count % nodes.len().max(1));
            let mut replicas: Vec<NodeId> = in_turn.take(count).copied().collect();
            replicas.sort_unstable();
            self.ranges.insert(id, Range::new(span, replicas));
            self.next_range = id.0 + 1;
        }
    }

    /// Only so many members vote in the spine, those with the lowest ids, of a new cluster.
    pub fn limit_votes(&mut self, count: u64) {
        assert!(self.position.revision == 1, "only a new cluster");
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.conf.voters.sort_unstable();
        let without = self.conf.voters.split_off(count.min(self.conf.voters.len()));
        self.conf.learners.extend(without);
    }

    /// How many nodes are to hold each range, of a new cluster.
    pub fn want_replicas(&mut self, count: usize) {
        self.replicas_wanted = count;
    }

    /// How many nodes are to hold each range. A new member is given replicas of those that have
    /// fewer; for the rest, placement sees to it.
    pub fn replicas_wanted(&self) -> usize {
        self.replicas_wanted
    }

    /// Where the state stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether a request was folded (I13), or is too old to tell; `None` if its origin may have been
    /// forgotten.
    pub fn has_seen(&self, id: RequestId) -> Option<bool> {
        match self.windows.get(&id.origin) {
            _ if id.origin == 0 => Some(true),
            Some(window) => Some(window.has_seen(id.n)),
            None if self.windows.len() < WINDOW_ORIGINS_MAX => Some(false),
            None => None,
        }
    }

    /// Index of the entry with the newest request of a client; 0 if there is none.
    pub fn newest_window(&self) -> u64 {
        self.windows.values().map(|window| window.index).max().unwrap_or(0)
    }

    /// The id of the next new range.
    pub fn next_range(&self) -> u64 {
        self.next_range
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// The version all members agreed on; empty until the first leader set it.
    pub fn cluster_version(&self) -> &str {
        &self.cluster_version
    }

    /// Whether a node votes in the spine. In its ranges a member votes in any case, unless it is a
    /// learner.
    pub fn has_vote(&self, node: NodeId) -> bool {
        self.conf.voters.contains(&node.0)
    }

    /// Voters and learners of the spine.
    pub fn conf(&self) -> &internal::ConfState {
        &self.conf
    }

    /// Members by id.
    pub fn members(&self) -> &BTreeMap<u64, Member> {
        &self.members
    }

    /// Ids of removed members.
    pub fn removed(&self) -> &BTreeSet<u64> {
        &self.removed
    }

    /// A member that was removed can never come back under the same id.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.removed.contains(&id.0)
    }

    /// Who owns which keys, and how their writes were numbered.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Transactions that not all ranges know of.
    pub fn txns(&self) -> &Txns {
        &self.txns
    }

    /// What placement decided of late.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Users, roles and permissions.
    pub fn auth(&self) -> &Arc<Auth> {
        &self.auth
    }

    /// Granted leases.
    pub fn leases(&self) -> &BTreeMap<i64, Lease> {
        &self.leases
    }

    /// Active alarms, (kind, member).
    pub fn alarms(&self) -> &BTreeSet<(i32, u64)> {
        &self.alarms
    }

    /// Whether any member has an alarm of this kind.
    pub fn has_alarm(&self, kind: i32) -> bool {
        self.alarms.range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }

    /// Moves to the entry at `index`, whose records are then folded in their order.
    ///
    /// # Panics
    /// When an entry is skipped or folded twice.
    pub fn enter(&mut self, index: u64, term: u64) {
        assert!(
            index == self.position.index + 1 && term >= self.position.term,
            "entries are folded in order: entry {index} of term {term} after {:?}",
            self.position
        );
        self.position.index = index;
        self.position.term = term;
    }

    /// Folds one record of the entry just entered. Changed rows are added to `batch`.
    pub fn fold(&mut self, record: &internal::Record, batch: &mut Batch) -> Verdict {
        let id = RequestId { origin: record.origin, n: record.n };
        let Some(body) = &record.body else { return Verdict::Done };
        if !self.admit(id, batch) {
            return Verdict::Duplicate;
        }
        match body {
            Body::Write(write) => self.fold_write(write),
            Body::LeaseGrant(grant) => self.fold_grant(grant, batch),
            Body::LeaseRevoke(revoke) => self.fold_revoke(revoke, batch),
            Body::LeaseCheckpoint(checkpoint) => self.fold_checkpoint(checkpoint, batch),
            Body::Compact(compact) => self.fold_compact(compact.revision),
            Body::Alarm(alarm) => self.fold_alarm(*alarm, batch),
            Body::MemberAttributes(attributes) => self.fold_attributes(attributes, batch),
            Body::MemberUrls(urls) => self.fold_urls(urls, batch),
            Body::MemberDrain(drain) => self.fold_drain(*drain, batch),
            Body::Decision(decision) => self.fold_decision(decision, batch),
            Body::DecisionOutcome(outcome) => self.fold_outcome(outcome, batch),
            Body::Replicas(replicas) => self.fold_replicas(replicas, batch),
            Body::Recovery(recovery) => self.fold_recovery(recovery, batch),
            Body::ReplicasWanted(wanted) => {
                self.replicas_wanted = wanted.count as usize;
                self.write_replicas_wanted(batch);
                Verdict::Done
            }
            Body::ClusterVersion(version) => {
                self.cluster_version.clone_from(&version.version);
                let value = Bytes::copy_from_slice(version.version.as_bytes());
                batch.put(Column::Meta, vec![row::VERSION], value);
                Verdict::Done
            }
            Body::AuthChange(change) => self.fold_auth_change(change, batch),
            Body::AuthToken(token) => self.fold_auth_token(token),
            Body::Refs(refs) => self.fold_refs(&refs.refs, batch),
            Body::TxnCommit(commit) => self.fold_commit(id, commit, batch),
            Body::TxnAbort(abort) => {
                // From now on a commit is a duplicate.
                let id = abort.id.as_ref().filter(|_| !mutant::is(Mutant::NoAbortCheck));
                match id.map(txns::from_proto) {
                    Some(id) if !self.admit(id, batch) => Verdict::Duplicate,
                    _ => Verdict::Done,
                }
            }
        }
    }

    /// Folds a membership change of the entry just entered; `conf` is what Raft made of it.
    pub fn fold_change(
        &mut self,
        change: &internal::MemberChange,
        conf: internal::ConfState,
        batch: &mut Batch,
    ) {
        use internal::member_change::Kind;
        self.conf = conf;
        self.write_conf(batch);
        let Some(member) = &change.member else { return };
        match change.kind() {
            Kind::None | Kind::Vote | Kind::NoVote => {}
            Kind::Add => {
                self.members.insert(member.id, member.clone());
                write_member(batch, member);
                self.set_replicas_of(member.id, true, batch);
            }
            Kind::Remove => {
                self.set_replicas_of(member.id, false, batch);
                self.members.remove(&member.id);
                self.removed.insert(member.id);
                batch.delete(Column::Meta, numbered(row::MEMBER, member.id));
                batch.put(Column::Meta, numbered(row::REMOVED, member.id), Bytes::new());
                let alarms: Vec<_> =
                    self.alarms.iter().copied().filter(|(_, id)| *id == member.id).collect();
                for (kind, id) in alarms {
                    self.set_alarm(kind, id, false, batch);
                }
            }
            Kind::Promote => {
                if let Some(known) = self.members.get_mut(&member.id) {
                    known.is_learner = false;
                    write_member(batch, known);
                }
            }
        }
    }

    fn set_replicas_of(&mut self, member: u64, is_member: bool, batch: &mut Batch) {
        self.ranges.set_member(NodeId(member), is_member, self.replicas_wanted);
        let all: Vec<GroupId> = self.ranges.iter().map(|(range, _)| range).collect();
        all.into_iter().for_each(|range| self.write_range(range, batch));
    }

    /// The rows of the request windows that changed since the entry at `after`.
    pub fn write_windows(&self, after: u64, batch: &mut Batch) {
        for (origin, window) in &self.windows {
            if window.index > after {
                batch.put(Column::Meta, numbered(row::WINDOW, *origin), window.encode());
            }
        }
    }

    fn admit(&mut self, id: RequestId, batch: &mut Batch) -> bool {
        if id.origin == 0 {
            return true;
        }
        let index = self.position.index;
        if !self.windows.contains_key(&id.origin) && self.windows.len() >= WINDOW_ORIGINS_MAX {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.index);
            let oldest = *oldest.expect("there are origins").0;
            self.windows.remove(&oldest);
            batch.delete(Column::Meta, numbered(row::WINDOW, oldest));
        }
        let is_new = self.windows.entry(id.origin).or_default().admit(id.n, index);
        is_new || mutant::is(Mutant::FoldedTwice)
    }

    fn fold_write(&mut self, write: &internal::Write) -> Verdict {
        if let Err(error) = self.admits(write.pass) {
            return Verdict::Rejected(error);
        }
        let is_lease_known = |effect: &internal::Effect| {
            effect.lease == 0
                || self.leases.contains_key(&effect.lease)
                || mutant::is(Mutant::NoLeaseCheck)
        };
        if !write.effects.iter().all(is_lease_known) {
            return Verdict::Rejected(Error::LeaseNotFound);
        }
        self.next_revision()
    }

    fn fold_refs(&mut self, refs: &[internal::Ref], batch: &mut Batch) -> Verdict {
        let mut assigned = Vec::new();
        for reference in refs {
            for id in &reference.resolved {
                let (id, range) = (txns::from_proto(id), GroupId(reference.range));
                if self.txns.resolved(range, id) {
                    self.write_txn(id, batch);
                }
            }
            let facts = Facts {
                leases: &self.leases,
                compact_revision: self.position.compact_revision,
                admission: self.auth.admission(),
            };
            let revision = &mut self.position.revision;
            let run = self.ranges.assign(reference, revision, &facts);
            let id = GroupId(reference.range);
            self.write_range(id, batch);
            let Some(run) = run else { continue };
            let is_numbered = |it: &&internal::Predicate| {
                let seqs = run.first..run.first + run.count;
                seqs.contains(&it.seq) && run.voids.iter().all(|void| void.seq != it.seq)
            };
            for predicate in reference.predicates.iter().filter(is_numbered) {
                self.attach(&predicate.leases, id, batch);
            }
            assigned.push((id, run));
        }
        Verdict::Assigned(assigned)
    }

    /// Keys of a range are attached to leases that exist.
    fn attach(&mut self, leases: &[i64], range: GroupId, batch: &mut Batch) {
        for id in leases {
            let lease = self.leases.get_mut(id).expect("a lease that was attached to exists");
            let is_noted = range != GroupId::SPINE && !mutant::is(Mutant::AttachForgotten);
            if is_noted && lease.ranges.insert(range.0) {
                write_lease(batch, *id, lease);
            }
        }
    }

    fn fold_commit(
        &mut self,
        id: RequestId,
        commit: &internal::TxnCommit,
        batch: &mut Batch,
    ) -> Verdict {
        let term = self.position.term;
        if commit.spine_term != 0 && commit.spine_term != term && !mutant::is(Mutant::StaleLocks) {
            return Verdict::Ended;
        }
        // A range that has ceased holds no locks any more; of keys it holds none before.
        let is_there =
            |id: &u64| *id == GroupId::SPINE.0 || self.ranges.get(GroupId(*id)).is_some();
        if !commit.ranges.iter().all(is_there) {
            return Verdict::Ended;
        }
        if let Some(end) = &commit.lease_end {
            let lease = self.leases.get(&end.id);
            let is_late = end.expired_in_term != 0 && end.expired_in_term != term;
            let is_meant = |lease: &&Lease| !lease.is_another(end.expired_in_term, end.granted_at);
            let Some(lease) = lease.filter(|lease| !is_late && is_meant(lease)) else {
                return Verdict::Rejected(Error::LeaseNotFound);
            };
            let is_elsewhere = lease.ranges.iter().any(|range| !commit.ranges.contains(range));
            if is_elsewhere && !mutant::is(Mutant::RevokeNotRetried) {
                return Verdict::Ended;
            }
        }
        let facts = Facts {
            leases: &self.leases,
            compact_revision: self.position.compact_revision,
            admission: self.auth.admission(),
        };
        let (leases, reads_at, pass) = (commit.leases.clone(), commit.reads_at, commit.pass);
        let predicate = internal::Predicate { seq: 0, leases, reads_at, pass };
        if let Some(reason) = facts.check(&predicate) {
            return Verdict::Rejected(numbering::error_of(reason));
        }
        if let Some(end) = &commit.lease_end {
            self.leases.remove(&end.id);
            batch.delete(Column::Meta, numbered(row::LEASE, end.id.cast_unsigned()));
        }
        if let Some(split) = &commit.split {
            return self.fold_split(id, split, batch);
        }
        if let Some(merge) = &commit.merge {
            return self.fold_merge(id, merge, batch);
        }
        if commit.shares.is_empty() {
            return Verdict::Committed(0);
        }
        self.position.revision += 1;
        for share in &commit.shares {
            let leases = mvcc::attached_leases(&share.effects);
            self.attach(&leases, GroupId(share.range), batch);
        }
        let is_elsewhere = |share: &&internal::Share| share.range != GroupId::SPINE.0;
        let mut shares: Vec<_> = commit.shares.iter().filter(is_elsewhere).cloned().collect();
        if mutant::is(Mutant::CommitInParts) && shares.len() > 1 {
            shares.pop();
        }
        if !shares.is_empty() {
            self.txns.commit(id, self.position.revision, shares);
            self.write_txn(id, batch);
        }
        Verdict::Committed(self.position.revision)
    }

    /// The keys are locked in the range they belonged to when they were. It may have been merged with
    /// others since, so what is cut off must be what is locked.
    fn fold_split(&mut self, id: RequestId, split: &internal::Split, batch: &mut Batch) -> Verdict {
        let parent = GroupId(split.parent);
        let is_border = self.ranges.get(parent).is_some_and(|it| it.span.start == split.key);
        let locked = Span::from_request(split.key.clone(), split.end.clone());
        let rest = Span { start: split.key.clone(), end: None };
        let piece = self.ranges.pieces(&rest).into_iter().next();
        if piece != Some((parent, locked)) || is_border {
            return Verdict::Ended;
        }
        let replicas = match self.ranges.get(parent) {
            Some(parent) => parent.replicas.clone(),
            None => self.members.keys().copied().map(NodeId).collect(),
        };
        let child = GroupId(self.next_range);
        self.next_range += 1;
        self.ranges.split(parent, child, split.key.clone(), replicas);
        self.write_range(parent, batch);
        self.write_range(child, batch);
        self.write_next_range(batch);
        let exists = |lease: &&i64| self.leases.contains_key(*lease);
        let had_keys = |lease: &&Lease| lease.ranges.contains(&parent.0);
        let leases: Vec<i64> = if split.is_any_lease {
            let known = self.leases.iter().filter(|(_, lease)| had_keys(lease));
            known.map(|(id, _)| *id).collect()
        } else {
            split.leases.iter().filter(exists).copied().collect()
        };
        if !mutant::is(Mutant::SplitForgetsLeases) {
            self.attach(&leases, child, batch);
        }
        if parent != GroupId::SPINE {
            let split_at = split.prepared_at;
            let split = Some(internal::Split { child: child.0, ..split.clone() });
            let share = Share { range: parent.0, prepared_at: split_at, split, ..Share::default() };
            self.txns.commit(id, 0, vec![share]);
            self.write_txn(id, batch);
        }
        Verdict::Committed(0)
    }

    /// The right range and the membership of both are locked. Others may have changed what is before
    /// it, or have merged another into it, before it was locked.
    fn fold_merge(&mut self, id: RequestId, merge: &internal::Merge, batch: &mut Batch) -> Verdict {
        let (left, right) = (GroupId(merge.left), GroupId(merge.right));
        let (Some(stays), Some(ceases)) = (self.ranges.get(left), self.ranges.get(right)) else {
            return Verdict::Ended;
        };
        let locked = Span::from_request(ceases.span.start.clone(), merge.end.clone());
        if stays.span.end.as_ref() != Some(&ceases.span.start) || ceases.span != locked {
            return Verdict::Ended;
        }
        let children = self.ranges.children(right);
        self.ranges.merge(left, right);
        batch.delete(Column::Meta, numbered(row::RANGE, right.0));
        self.write_range(left, batch);
        children.into_iter().for_each(|child| self.write_range(child, batch));
        for (id, lease) in &mut self.leases {
            if lease.ranges.remove(&right.0) {
                lease.ranges.extend((!mutant::is(Mutant::MergeForgetsLeases)).then_some(left.0));
                write_lease(batch, *id, lease);
            }
        }
        // Its log tells of everything that was decided before, but perhaps not the spine.
        let open: Vec<RequestId> = self.txns.open(right).map(|(id, _)| id).collect();
        for id in open {
            self.txns.resolved(right, id);
            self.write_txn(id, batch);
        }
        let (range, prepared_at, merge) = (left.0, merge.left_at, Some(merge.clone()));
        self.txns.commit(id, 0, vec![Share { range, prepared_at, merge, ..Share::default() }]);
        self.write_txn(id, batch);
        Verdict::Committed(0)
    }

    /// Whether a range was merged away. Ids never come back.
    pub fn has_ceased(&self, range: GroupId) -> bool {
        range != GroupId::SPINE && range.0 < self.next_range && self.ranges.get(range).is_none()
    }

    /// Somebody may have changed it since this was decided, or a member have gone.
    fn fold_replicas(&mut self, wanted: &internal::Replicas, batch: &mut Batch) -> Verdict {
        let id = GroupId(wanted.range);
        let Some(known) = self.ranges.get(id) else {
            return Verdict::Rejected(Error::RangeNotFound);
        };
        let are_members = wanted.nodes.iter().all(|node| self.members.contains_key(node));
        let mut nodes: Vec<NodeId> = wanted.nodes.iter().copied().map(NodeId).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let is_late = known.changes != wanted.changes || !known.may_change_to(&nodes);
        if is_late || !are_members || nodes.is_empty() {
            return Verdict::Rejected(Error::ReplicasChanged);
        }
        self.ranges.set_replicas(id, nodes);
        self.write_range(id, batch);
        Verdict::Done
    }

    /// One member is left, and holds every range. What was decided of ranges that begin anew has no
    /// place there any more.
    fn fold_recovery(&mut self, recovery: &internal::Recovery, batch: &mut Batch) -> Verdict {
        let all: Vec<GroupId> = self.ranges.iter().map(|(range, _)| range).collect();
        for range in all {
            self.ranges.hold_alone(range, NodeId(recovery.node));
            self.write_range(range, batch);
        }
        for range in recovery.abandoned.iter().copied().map(GroupId) {
            let open: Vec<RequestId> = self.txns.open(range).map(|(id, _)| id).collect();
            for id in open {
                self.txns.resolved(range, id);
                self.write_txn(id, batch);
            }
        }
        Verdict::Done
    }

    fn write_replicas_wanted(&self, batch: &mut Batch) {
        let count = u32::try_from(self.replicas_wanted).unwrap_or(u32::MAX);
        let value = Bytes::copy_from_slice(&count.to_be_bytes());
        batch.put(Column::Meta, vec![row::REPLICAS_WANTED], value);
    }

    fn write_next_range(&self, batch: &mut Batch) {
        let value = Bytes::copy_from_slice(&self.next_range.to_be_bytes());
        batch.put(Column::Meta, vec![row::NEXT_RANGE], value);
    }

    /// What became of a transaction, as far as a range is concerned whose log does not tell of it
    /// yet; `None` while it is undecided.
    pub fn decision(&self, range: GroupId, id: RequestId) -> Option<Decision> {
        // What a range has locked that was merged away stays locked.
        if self.has_ceased(range) {
            return None;
        }
        if let Some((revision, share)) = self.txns.share(range, id) {
            return Some(Decision::Commit(revision, share.clone()));
        }
        let window = self.windows.get(&id.origin)?;
        window.has_seen(id.n).then_some(Decision::Abort)
    }

    fn write_txn(&self, id: RequestId, batch: &mut Batch) {
        let mut key = BytesMut::with_capacity(17);
        key.put_u8(row::TXN);
        key.put_u64(id.origin);
        key.put_u64(id.n);
        match self.txns.encode(id) {
            Some(value) => batch.put(Column::Meta, key.freeze(), value),
            None => batch.delete(Column::Meta, key.freeze()),
        }
    }

    fn write_range(&self, id: GroupId, batch: &mut Batch) {
        if let Some(value) = self.ranges.encode(id) {
            batch.put(Column::Meta, numbered(row::RANGE, id.0), value);
        }
    }

    fn fold_grant(&mut self, grant: &internal::LeaseGrant, batch: &mut Batch) -> Verdict {
        if self.leases.contains_key(&grant.id) {
            return Verdict::Rejected(Error::LeaseExist);
        }
        let granted_at = self.position.index;
        let lease = Lease { ttl: grant.ttl, granted_at, ..Lease::default() };
        write_lease(batch, grant.id, &lease);
        self.leases.insert(grant.id, lease);
        Verdict::Done
    }

    fn fold_revoke(&mut self, revoke: &internal::LeaseRevoke, batch: &mut Batch) -> Verdict {
        if revoke.expired_in_term != 0 && revoke.expired_in_term != self.position.term {
            return Verdict::Rejected(Error::LeaseNotFound);
        }
        if revoke.expired_in_term == 0
            && let Err(error) = self.admits(revoke.pass)
        {
            return Verdict::Rejected(error);
        }
        match self.leases.get(&revoke.id) {
            None => return Verdict::Rejected(Error::LeaseNotFound),
            Some(lease) if lease.is_another(revoke.expired_in_term, revoke.granted_at) => {
                return Verdict::Rejected(Error::LeaseNotFound);
            }
            // A key was attached elsewhere since the record was made.
            Some(_) if mutant::is(Mutant::RevokeNotRetried) => {}
            Some(lease) if !lease.ranges.is_empty() => return Verdict::Ended,
            Some(_) => {}
        }
        self.leases.remove(&revoke.id);
        batch.delete(Column::Meta, numbered(row::LEASE, revoke.id.cast_unsigned()));
        let has_keys = revoke.is_all_keys || !revoke.keys.is_empty();
        if has_keys { self.next_revision() } else { Verdict::Done }
    }

    fn fold_checkpoint(
        &mut self,
        checkpoint: &internal::LeaseCheckpoint,
        batch: &mut Batch,
    ) -> Verdict {
        for mark in &checkpoint.leases {
            if let Some(lease) = self.leases.get_mut(&mark.id) {
                lease.remaining_ttl = mark.remaining_ttl;
                write_lease(batch, mark.id, lease);
            }
        }
        Verdict::Done
    }

    fn fold_compact(&mut self, revision: i64) -> Verdict {
        if revision <= self.position.compact_revision {
            return Verdict::Rejected(Error::Compacted);
        }
        if revision > self.position.revision {
            return Verdict::Rejected(Error::FutureRevision);
        }
        self.position.compact_revision = revision;
        Verdict::Done
    }

    fn fold_alarm(&mut self, alarm: internal::Alarm, batch: &mut Batch) -> Verdict {
        self.set_alarm(alarm.kind, alarm.member, alarm.is_active, batch);
        Verdict::Done
    }

    fn fold_attributes(
        &mut self,
        attributes: &internal::MemberAttributes,
        batch: &mut Batch,
    ) -> Verdict {
        let Some(member) = self.members.get_mut(&attributes.id) else {
            return Verdict::Rejected(Error::MemberNotFound);
        };
        member.name.clone_from(&attributes.name);
        member.client_urls.clone_from(&attributes.client_urls);
        write_member(batch, member);
        Verdict::Done
    }

    fn fold_urls(&mut self, urls: &internal::MemberUrls, batch: &mut Batch) -> Verdict {
        if !self.members.contains_key(&urls.id) {
            return Verdict::Rejected(Error::MemberNotFound);
        }
        let is_taken = self.members.values().any(|other| {
            other.id != urls.id && other.peer_urls.iter().any(|url| urls.peer_urls.contains(url))
        });
        if is_taken {
            return Verdict::Rejected(Error::PeerUrlExist);
        }
        let member = self.members.get_mut(&urls.id).expect("checked above");
        member.peer_urls.clone_from(&urls.peer_urls);
        write_member(batch, member);
        Verdict::Done
    }

    fn fold_drain(&mut self, drain: internal::MemberDrain, batch: &mut Batch) -> Verdict {
        let Some(member) = self.members.get_mut(&drain.id) else {
            return Verdict::Rejected(Error::MemberNotFound);
        };
        member.is_draining = drain.is_draining;
        write_member(batch, member);
        Verdict::Done
    }

    fn fold_decision(&mut self, decision: &internal::Decision, batch: &mut Batch) -> Verdict {
        let (number, forgotten) = self.decisions.add(decision.clone());
        write_decision(batch, number, decision);
        for number in forgotten {
            batch.delete(Column::Meta, numbered(row::DECISION, number));
        }
        Verdict::Done
    }

    fn fold_outcome(&mut self, outcome: &internal::DecisionOutcome, batch: &mut Batch) -> Verdict {
        if let Some((number, decision)) = self.decisions.conclude(outcome) {
            write_decision(batch, number, decision);
        }
        Verdict::Done
    }

    fn admits(&self, pass: u64) -> Result<(), Error> {
        self.auth.admission().admits(Pass::from_number(pass))
    }

    fn fold_auth_change(&mut self, change: &internal::AuthChange, batch: &mut Batch) -> Verdict {
        let auth = Arc::make_mut(&mut self.auth);
        let touched = match auth.change(change, self.position.index) {
            Ok(Some(touched)) => touched,
            Ok(None) => return Verdict::Done,
            Err(error) => return Verdict::Rejected(error),
        };
        batch.put(Column::Meta, vec![row::AUTH], self.auth.encode());
        for name in &touched.users {
            write_named(batch, row::USER, name, self.auth.encode_user(name));
        }
        for name in &touched.roles {
            write_named(batch, row::ROLE, name, self.auth.encode_role(name));
        }
        Verdict::AuthNews(self.auth_news(touched.forget))
    }

    /// What a node that shows this state is told of users, roles and permissions.
    pub fn auth_news(&self, forget: Forget) -> News {
        News::Changed(self.auth.clone(), forget)
    }

    /// A password was found right. It counts only if nothing has changed since it was looked at.
    fn fold_auth_token(&self, token: &internal::AuthToken) -> Verdict {
        if !self.auth.is_enabled() {
            return Verdict::Rejected(Error::AuthNotEnabled);
        }
        if let Err(error) = self.admits(token.pass) {
            return Verdict::Rejected(error);
        }
        let user = token.user.clone();
        let token = token_text(&token.letters, self.position.index);
        Verdict::AuthNews(News::Token { user, token })
    }

    fn set_alarm(&mut self, kind: i32, member: u64, is_active: bool, batch: &mut Batch) {
        let mut key = BytesMut::with_capacity(13);
        key.put_u8(row::ALARM);
        key.put_i32(kind);
        key.put_u64(member);
        if is_active {
            self.alarms.insert((kind, member));
            batch.put(Column::Meta, key.freeze(), Bytes::new());
        } else {
            self.alarms.remove(&(kind, member));
            batch.delete(Column::Meta, key.freeze());
        }
    }

    /// All of users and roles, unless they are those of a new cluster.
    fn write_auth(&self, batch: &mut Batch) {
        if *self.auth == Auth::default() {
            return;
        }
        batch.put(Column::Meta, vec![row::AUTH], self.auth.encode());
        for name in self.auth.user_names() {
            write_named(batch, row::USER, name, self.auth.encode_user(name));
        }
        for name in self.auth.role_names() {
            write_named(batch, row::ROLE, name, self.auth.encode_role(name));
        }
    }

    fn next_revision(&mut self) -> Verdict {
        self.position.revision += 1;
        Verdict::Numbered(self.position.revision)
    }

    fn write_conf(&self, batch: &mut Batch) {
        batch.put(Column::Meta, vec![row::CONF], self.conf.encode_to_vec());
    }
}

/// Whether a row of Meta is one of the spine's state.
pub fn is_row(key: &[u8]) -> bool {
    const KINDS: [u8; 17] = [
        row::APPLIED,
        row::CLUSTER,
        row::DECISION,
        row::AUTH,
        row::CONF,
        row::RANGE,
        row::NEXT_RANGE,
        row::LEASE,
        row::MEMBER,
        row::REPLICAS_WANTED,
        row::ROLE,
        row::REMOVED,
        row::TXN,
        row::ALARM,
        row::USER,
        row::VERSION,
        row::WINDOW,
    ];
    key.first().is_some_and(|kind| KINDS.contains(kind))
}

/// The key of a range's row in Meta.
#[cfg(test)]
pub(crate) fn range_row(range: GroupId) -> Bytes {
    numbered(row::RANGE, range.0)
}

/// The key of a user's row in Meta.
pub fn user_row(name: &str) -> Bytes {
    named(row::USER, name)
}

/// The key of a role's row in Meta.
pub fn role_row(name: &str) -> Bytes {
    named(row::ROLE, name)
}

/// The granted leases as a store has them.
pub struct StoredLeases<'a>(pub &'a dyn View);

impl crate::mvcc::LeaseTable for StoredLeases<'_> {
    fn exists(&self, lease: LeaseId) -> bool {
        let key = numbered(row::LEASE, lease.0.cast_unsigned());
        // A store that cannot be read is noticed by the evaluation itself.
        self.0.get(Column::Meta, &key).is_ok_and(|row| row.is_some())
    }
}

/// What the fold checks before it numbers a write of another range.
struct Facts<'a> {
    leases: &'a BTreeMap<i64, Lease>,
    compact_revision: i64,
    admission: Admission,
}

impl Predicates for Facts<'_> {
    fn check(&self, predicate: &internal::Predicate) -> Option<Reason> {
        match self.admission.admits(Pass::from_number(predicate.pass)) {
            Ok(()) => {}
            Err(Error::UserEmpty) => return Some(Reason::NoUser),
            Err(_) => return Some(Reason::AuthChanged),
        }
        let is_known = |lease| self.leases.contains_key(lease) || mutant::is(Mutant::NoLeaseCheck);
        if !predicate.leases.iter().all(is_known) {
            return Some(Reason::LeaseNotFound);
        }
        let is_compacted = predicate.reads_at != 0
            && predicate.reads_at < self.compact_revision
            && !mutant::is(Mutant::CompactUnchecked);
        is_compacted.then_some(Reason::Compacted)
    }
}

/// Whether a lease exists, as evaluation needs to know.
impl crate::mvcc::LeaseTable for State {
    fn exists(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease.0)
    }
}

/// The granted leases as a store has them, in the order of their bytes.
///
/// # Errors
/// The store cannot be read.
pub fn lease_ids(view: &dyn View) -> Result<Vec<LeaseId>, ViewError> {
    let mut ids = Vec::new();
    let mut damage = None;
    let (from, to) = ([row::LEASE], [row::LEASE + 1]);
    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    view.scan(Column::Meta, bounds.0, bounds.1, &mut |key, _| match key[1..].try_into() {
        Ok(id) => {
            ids.push(LeaseId(i64::from_be_bytes(id)));
            ControlFlow::Continue(())
        }
        Err(_) => {
            damage = Some(ViewError(format!("spine state row {key:02x?}")));
            ControlFlow::Break(())
        }
    })?;
    damage.map_or(Ok(ids), Err)
}

/// The decisions of placement as a store has them, oldest first.
///
/// # Errors
/// The store cannot be read.
pub fn decisions(view: &dyn View) -> Result<Vec<internal::Decision>, ViewError> {
    let mut decisions = Vec::new();
    let mut damage = None;
    let (from, to) = ([row::DECISION], [row::DECISION + 1]);
    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    view.scan(
        Column::Meta,
        bounds.0,
        bounds.1,
        &mut |key, value| match internal::Decision::decode(value) {
            Ok(decision) => {
                decisions.push(decision);
                ControlFlow::Continue(())
            }
            Err(_) => {
                damage = Some(ViewError(format!("spine state row {key:02x?}")));
                ControlFlow::Break(())
            }
        },
    )?;
    damage.map_or(Ok(decisions), Err)
}

fn numbered(kind: u8, id: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(kind);
    key.put_u64(id);
    key.freeze()
}

fn named(kind: u8, name: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + name.len());
    key.put_u8(kind);
    key.put_slice(name.as_bytes());
    key.freeze()
}

fn write_named(batch: &mut Batch, kind: u8, name: &str, value: Option<Bytes>) {
    match value {
        Some(value) => batch.put(Column::Meta, named(kind, name), value),
        None => batch.delete(Column::Meta, named(kind, name)),
    }
}

fn write_member(batch: &mut Batch, member: &Member) {
    batch.put(Column::Meta, numbered(row::MEMBER, member.id), member.encode_to_vec());
}

fn write_decision(batch: &mut Batch, number: u64, decision: &internal::Decision) {
    batch.put(Column::Meta, numbered(row::DECISION, number), decision.encode_to_vec());
}

fn write_lease(batch: &mut Batch, id: i64, lease: &Lease) {
    let stored = internal::StoredLease {
        ttl: lease.ttl,
        remaining_ttl: lease.remaining_ttl,
        ranges: lease.ranges.iter().copied().collect(),
        granted_at: lease.granted_at,
    };
    batch.put(Column::Meta, numbered(row::LEASE, id.cast_unsigned()), stored.encode_to_vec());
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
