//! The notice board of a node: what the range actors and the apply thread publish for everyone
//! else to read without asking them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use flotilla_core::mvcc::Head;
use flotilla_core::proto::internal::{Member, RangeInfo};
use flotilla_core::spine::{Shown, Status};
use flotilla_core::stage::Reach;
use flotilla_core::{GroupId, NodeId};

use super::{SharedOverview, Usage};

/// What changes together and seldom.
#[derive(Clone, Debug, Default)]
pub struct Notice {
    /// Role, leader and term.
    pub status: Status,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// (kind, member) of every active alarm, kinds as in etcd's API.
    pub alarms: BTreeSet<(i32, u64)>,
    /// The version the cluster agreed on; empty until it is known.
    pub cluster_version: String,
    /// Members that were removed; their ids never come back.
    pub removed: BTreeSet<u64>,
    /// All ranges, in the order of their keys; range 0, which has what is left, comes last.
    pub ranges: Arc<Vec<RangeInfo>>,
}

/// Read by many threads, written by few.
#[derive(Debug)]
pub struct Board {
    cluster_id: u64,
    member_id: u64,
    revision: AtomicI64,
    compact_revision: AtomicI64,
    /// Committed and applied spine index.
    commit_index: AtomicU64,
    applied_index: AtomicU64,
    /// What is physically gone: everything that compaction at this revision makes useless.
    compacted: AtomicI64,
    term: AtomicU64,
    leader: AtomicU64,
    is_learner: AtomicBool,
    leaderless_ranges: AtomicUsize,
    /// All of the store may be read.
    is_whole: AtomicBool,
    reach: RwLock<Arc<Reach>>,
    /// Parts of the store whose replacement has begun.
    replacements: AtomicU64,
    notice: RwLock<Notice>,
    usage: Usage,
    overview: SharedOverview,
}

impl Board {
    /// A board of this member.
    pub fn new(cluster_id: u64, member_id: u64) -> Self {
        Self {
            cluster_id,
            member_id,
            revision: AtomicI64::new(1),
            compact_revision: AtomicI64::new(-1),
            commit_index: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            compacted: AtomicI64::new(-1),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            is_learner: AtomicBool::new(false),
            leaderless_ranges: AtomicUsize::new(0),
            is_whole: AtomicBool::new(true),
            reach: RwLock::new(Arc::new(Reach::none(Shown {
                index: 0,
                head: Head { revision: 1, compact_revision: -1 },
            }))),
            replacements: AtomicU64::new(0),
            notice: RwLock::new(Notice::default()),
            usage: Usage::default(),
            overview: SharedOverview::default(),
        }
    }

    /// What the clients of this node ask for.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What placement tells operators.
    pub fn overview(&self) -> &SharedOverview {
        &self.overview
    }

    /// Where the applied state stands. The compact revision is read first, so it may be older than
    /// the revision's moment but never above it: whoever reads at the head asks again afterwards
    /// whether the revision is still there.
    pub fn head(&self) -> Head {
        let compact_revision = self.compact_revision.load(Ordering::Acquire);
        let revision = self.revision.load(Ordering::Acquire);
        Head { revision, compact_revision }
    }

    /// The apply thread has put everything up to here into the store.
    pub fn set_head(&self, head: Head, applied_index: u64) {
        self.revision.store(head.revision, Ordering::Release);
        self.compact_revision.store(head.compact_revision, Ordering::Release);
        self.applied_index.store(applied_index, Ordering::Release);
    }

    /// Physical compaction is finished for this compact revision.
    pub fn set_compacted(&self, compact_revision: i64) {
        self.compacted.store(compact_revision, Ordering::Release);
    }

    /// The last compact revision whose physical compaction is finished; -1 before any.
    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// This member's id.
    pub fn member_id(&self) -> u64 {
        self.member_id
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// The leader's id; 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Relaxed)
    }

    /// Whether this member is a learner.
    pub fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    /// Whether the store has everything that is shown. Not while a part of it is being replaced by a
    /// snapshot, or is newer than the rest.
    pub fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire)
    }

    /// What may be read of the store, range by range. The same as `head` while it is whole.
    pub fn reach(&self) -> Arc<Reach> {
        self.reach.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The apply thread has come so far. While the store is whole, `set_head` goes before.
    pub fn set_reach(&self, reach: &Reach) {
        let is_whole = reach.lacking.is_empty();
        if !is_whole {
            self.is_whole.store(false, Ordering::Release);
        }
        let mut known = self.reach.write().unwrap_or_else(PoisonError::into_inner);
        if **known != *reach {
            *known = Arc::new(reach.clone());
        }
        drop(known);
        self.is_whole.store(is_whole, Ordering::Release);
    }

    /// How often a part of the store has begun to be replaced or removed: what was read before and after
    /// a change of this was not read from one state.
    pub fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::Acquire)
    }

    /// The apply thread is about to replace a part of the store. Until it says what may be read after
    /// that, nothing may: the part need not have the keys that its range has in what was shown.
    pub fn begin_replacement(&self) {
        let mut reach = Reach::clone(&self.reach());
        reach.lacking = reach.owners.ranges().chain([GroupId::SPINE]).collect();
        self.set_reach(&reach);
        self.replacements.fetch_add(1, Ordering::AcqRel);
    }

    /// The apply thread is about to remove keys that are not shown here any more. Who began to read them
    /// while they were must not take them for all there are.
    pub fn begin_removal(&self) {
        self.replacements.fetch_add(1, Ordering::AcqRel);
    }

    /// Other ranges with a replica here whose leader is not known.
    pub fn leaderless_ranges(&self) -> usize {
        self.leaderless_ranges.load(Ordering::Relaxed)
    }

    /// The spine's actor has counted them.
    pub fn set_leaderless_ranges(&self, count: usize) {
        self.leaderless_ranges.store(count, Ordering::Relaxed);
    }

    /// The member that leads a range, 0 if none is known; `None` if there is no such range.
    pub fn range_leader(&self, range: GroupId) -> Option<NodeId> {
        let notice = self.notice.read().unwrap_or_else(PoisonError::into_inner);
        let found = notice.ranges.iter().find(|it| it.range == range.0);
        found.map(|it| NodeId(it.leader))
    }

    /// Whether a member with this id was removed from the cluster.
    pub fn is_removed(&self, id: u64) -> bool {
        self.notice.read().unwrap_or_else(PoisonError::into_inner).removed.contains(&id)
    }

    /// Whether this member's name is known, or it is none of the cluster's.
    pub fn is_announced(&self) -> bool {
        let notice = self.notice.read().unwrap_or_else(PoisonError::into_inner);
        let me = notice.members.iter().find(|member| member.id == self.member_id);
        me.is_none_or(|member| !member.name.is_empty())
    }

    /// Committed spine index.
    pub fn commit_index(&self) -> u64 {
        self.commit_index.load(Ordering::Relaxed)
    }

    /// Applied spine index.
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    /// The spine's actor has seen this index committed.
    pub fn set_commit_index(&self, index: u64) {
        self.commit_index.store(index, Ordering::Relaxed);
    }

    /// Publishes a new role, leader or term.
    pub fn set_status(&self, status: Status) {
        self.term.store(status.term, Ordering::Relaxed);
        self.leader.store(status.leader.map_or(0, |leader| leader.0), Ordering::Relaxed);
        self.is_learner.store(status.is_learner, Ordering::Relaxed);
        self.change(|notice| notice.status = status);
    }

    /// Changes the notice.
    pub fn change(&self, change: impl FnOnce(&mut Notice)) {
        change(&mut self.notice.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// A copy of the notice.
    pub fn notice(&self) -> Notice {
        self.notice.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The range that owns a key. Those other than range 0 are in the order of their keys.
pub fn owner(ranges: &[RangeInfo], key: &[u8]) -> u64 {
    let others = ranges.partition_point(|range| range.range != 0 && range.start[..] <= *key);
    let before = others.checked_sub(1).map(|n| &ranges[n]);
    before.filter(|it| it.end.is_empty() || *key < it.end[..]).map_or(0, |it| it.range)
}
