//! Which snapshots and increments a directory of backups has, and what can be made of them. Names and
//! revisions alone: the files are others' business.

use std::collections::BTreeMap;

/// A run of revisions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first.
    pub first: i64,
    /// The last.
    pub last: i64,
}

/// Bases by the revision of their snapshot; increments by their first revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    compact_revisions: BTreeMap<i64, i64>,
    increments: BTreeMap<i64, Run>,
}

/// What a revision is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The revision of the base.
    pub base: i64,
    /// To be read one after the other, from `base` on. None if the base is of a later revision: then
    /// its history has it.
    pub increments: Vec<Run>,
}

/// Where more changes may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// There is nothing that they could follow on.
    Base,
    /// An increment is missing, as others behind it are there: they are of use only with another base.
    Missing(Missing),
    /// Behind one of these revisions, the first that the cluster still knows the next of.
    After(Vec<i64>),
}

/// A revision that a directory has nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is no base at all.
    #[error("there is no complete base")]
    Base,
    /// It is before all there is.
    #[error("the oldest revision that can be restored is {0}")]
    TooOld(i64),
    /// Nothing has it, though something has those before it.
    #[error("no increment with revision {0} is there")]
    Increment(i64),
}

/// What is no longer needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Superseded {
    /// Revisions of bases.
    pub bases: Vec<i64>,
    /// Increments.
    pub increments: Vec<Run>,
}

impl Catalog {
    /// Adds a base, whose history is compacted at a revision.
    pub fn add_base(&mut self, revision: i64, compact_revision: i64) {
        self.compact_revisions.insert(revision, compact_revision);
    }

    /// Adds an increment. Of two that begin alike the longer counts.
    pub fn add_increment(&mut self, run: Run) {
        let known = self.increments.entry(run.first).or_insert(run);
        known.last = known.last.max(run.last);
    }

    /// The newest base.
    pub fn newest_base(&self) -> Option<i64> {
        self.compact_revisions.keys().next_back().copied()
    }

    /// The last revision of all increments.
    pub fn last_increment(&self) -> Option<i64> {
        self.increments.values().map(|run| run.last).max()
    }

    /// Where to go on.
    pub fn next(&self) -> Next {
        let Some(base) = self.newest_base() else { return Next::Base };
        let Some(last) = self.last_increment() else { return Next::After(vec![base]) };
        if last <= base {
            let mut after = vec![last, base];
            after.dedup();
            return Next::After(after);
        }
        match self.between(base, last) {
            Ok(_) => Next::After(vec![last]),
            Err(missing) => Next::Missing(Missing::Increment(missing)),
        }
    }

    /// What a revision is made of.
    ///
    /// # Errors
    /// Something that it needs is not there.
    pub fn plan(&self, revision: i64) -> Result<Plan, Missing> {
        let before = self.compact_revisions.range(..=revision).next_back();
        let missing = match before.map(|(base, _)| (*base, self.between(*base, revision))) {
            Some((base, Ok(increments))) => return Ok(Plan { base, increments }),
            Some((_, Err(missing))) => Missing::Increment(missing),
            None => self.oldest().map_or(Missing::Base, Missing::TooOld),
        };
        let mut later = self.compact_revisions.range(revision..);
        match later.find(|(_, compact_revision)| **compact_revision <= revision) {
            Some((base, _)) => Ok(Plan { base: *base, increments: Vec::new() }),
            None => Err(missing),
        }
    }

    /// All revisions that can be restored.
    pub fn covered(&self) -> Vec<Run> {
        let mut covered: Vec<Run> = Vec::new();
        for (base, compact_revision) in &self.compact_revisions {
            let first = (*compact_revision).clamp(1, *base);
            let run = Run { first, last: self.reach(*base) };
            match covered.last_mut().filter(|before| before.last >= run.first - 1) {
                Some(before) => {
                    before.first = before.first.min(run.first);
                    before.last = before.last.max(run.last);
                }
                None => covered.push(run),
            }
        }
        covered
    }

    /// What is not needed for any revision from that of the `keep`-newest base on.
    pub fn superseded(&self, keep: usize) -> Superseded {
        let Some(oldest) = self.compact_revisions.keys().rev().nth(keep.max(1) - 1).copied() else {
            return Superseded::default();
        };
        let is_old = |run: &&Run| run.last <= oldest;
        Superseded {
            bases: self.compact_revisions.range(..oldest).map(|(base, _)| *base).collect(),
            increments: self.increments.values().filter(is_old).copied().collect(),
        }
    }

    fn oldest(&self) -> Option<i64> {
        self.covered().first().map(|run| run.first)
    }

    /// The last revision that is reached from a base without a hole.
    fn reach(&self, base: i64) -> i64 {
        let mut at = base;
        while let Some(run) = self.with(at + 1) {
            at = run.last;
        }
        at
    }

    /// The increments from a revision to a later one; or the first revision that none has.
    fn between(&self, from: i64, to: i64) -> Result<Vec<Run>, i64> {
        let (mut at, mut runs) = (from, Vec::new());
        while at < to {
            let run = self.with(at + 1).ok_or(at + 1)?;
            runs.push(run);
            at = run.last;
        }
        Ok(runs)
    }

    /// An increment that has a revision.
    fn with(&self, revision: i64) -> Option<Run> {
        let mut runs = self.increments.range(..=revision).rev().map(|(_, run)| *run);
        runs.find(|run| run.last >= revision)
    }
}
