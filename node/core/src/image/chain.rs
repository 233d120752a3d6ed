//! A state at one revision, put together of a base and the increments behind it. Everything is read once
//! before anything is told, so that damage anywhere is found first.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::bolt::{self, Damage, Reader};
use super::{Change, Error, Facts, Source, increment, schema};
use crate::mvcc::layout::KeyValueFields;
use crate::spine::state::Lease;

/// Granted seconds of a lease that keys had, and that had ended when it was asked for: its keys are to
/// go soon, as they did.
pub const TTL_UNKNOWN_SECONDS: i64 = 60;

/// An increment and the name it has in errors.
#[derive(Debug)]
pub struct Part<B> {
    /// Of its file.
    pub name: String,
    /// Its bytes.
    pub bytes: B,
}

/// What is wanted of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The state at this revision.
    pub revision: i64,
    /// Of keys that begin so.
    pub prefix: Bytes,
}

/// A base, and the increments that lead from it to a revision.
#[derive(Debug)]
pub struct Chain<B> {
    base: Reader<B>,
    base_revision: i64,
    parts: Vec<Part<B>>,
    wanted: Wanted,
    facts: Facts,
    leases_unknown: Vec<i64>,
}

/// The leases of keys, as changes go by.
#[derive(Default)]
struct Attached(BTreeMap<Vec<u8>, i64>);

impl Attached {
    fn take(&mut self, change: &Change<'_>, fields: &KeyValueFields<'_>) {
        let lease = if change.is_delete { 0 } else { fields.lease };
        if lease != 0 {
            self.0.insert(fields.key.to_vec(), lease);
        } else if !self.0.is_empty() {
            self.0.remove(fields.key);
        }
    }
}

impl<B: bolt::Bytes> Chain<B> {
    /// Reads and checks all of it. The increments are of this cluster, and follow on each other and on
    /// the base, whose snapshot is of this revision.
    ///
    /// # Errors
    /// Something cannot be read, is damaged, does not follow, or is compacted.
    pub fn open(
        base: Reader<B>,
        (base_revision, cluster_id): (i64, u64),
        parts: Vec<Part<B>>,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let facts = schema::facts(&base)?;
        let mut chain =
            Self { base, base_revision, parts, wanted, facts, leases_unknown: Vec::new() };
        let compacted = chain.facts.compact_revision;
        if chain.wanted.revision < compacted {
            let what = format!("revision {} is compacted at {compacted}", chain.wanted.revision);
            return Err(Damage(what).into());
        }
        chain.check_base()?;
        let ttls = chain.check_parts(cluster_id)?;
        chain.find_leases(&ttls)?;
        if !chain.wanted.prefix.is_empty() {
            // The history of some keys has holes, and is nobody's to watch.
            chain.facts.compact_revision = chain.wanted.revision;
        }
        Ok(chain)
    }

    /// Leases of keys whose granted time is not known.
    pub fn leases_unknown(&self) -> &[i64] {
        &self.leases_unknown
    }

    fn check_base(&self) -> Result<(), Error> {
        let last = schema::revision(&self.base)?;
        if last != self.base_revision {
            let what = format!("it is of revision {last}, not {}", self.base_revision);
            return Err(Damage(what).into());
        }
        Ok(())
    }

    /// Gives the granted seconds of leases, as far as they are known.
    fn check_parts(&self, cluster_id: u64) -> Result<BTreeMap<i64, i64>, Error> {
        let (mut ttls, mut at) = (BTreeMap::new(), self.base_revision);
        for part in &self.parts {
            let named = |error| Error::named(&part.name, error);
            let summary = increment::visit(&part.bytes, &mut |_, _| ControlFlow::Continue(()));
            let summary = summary.map_err(named)?;
            if summary.cluster_id != cluster_id {
                let what = format!("it is of another cluster, {:x}", summary.cluster_id);
                return Err(named(Error::Part(Damage(what))));
            }
            if !(summary.first..=summary.last).contains(&(at + 1)) {
                let what = format!(
                    "revision {} is missing: it goes from {} to {}",
                    at + 1,
                    summary.first,
                    summary.last
                );
                return Err(named(Error::Part(Damage(what))));
            }
            at = summary.last;
            ttls.extend(summary.leases.into_iter().filter(|(_, ttl)| *ttl > 0));
        }
        if at < self.wanted.revision {
            let what = format!("revision {} is missing", at + 1);
            return Err(Error::Part(Damage(what)));
        }
        Ok(ttls)
    }

    /// A lease is there as long as keys have it. One without keys may have ended, and ends by itself.
    fn find_leases(&mut self, ttls: &BTreeMap<i64, i64>) -> Result<(), Error> {
        let mut attached = Attached::default();
        self.visit(&mut |change, fields| {
            attached.take(&change, fields);
            ControlFlow::Continue(())
        })?;
        let mut leases = std::mem::take(&mut self.facts.leases);
        let wanted: BTreeMap<i64, Lease> = attached
            .0
            .into_values()
            .map(|id| {
                let lease = leases.get(&id).cloned().unwrap_or_default();
                (id, Lease { ttl: ttls.get(&id).copied().unwrap_or(lease.ttl), ..lease })
            })
            .collect();
        if !self.wanted.prefix.is_empty() {
            leases.clear();
        }
        leases.extend(wanted);
        for (id, lease) in &mut leases {
            if lease.ttl == 0 {
                lease.ttl = TTL_UNKNOWN_SECONDS;
                self.leases_unknown.push(*id);
            }
            lease.remaining_ttl = lease.remaining_ttl.min(lease.ttl);
        }
        self.facts.leases = leases;
        Ok(())
    }

    /// Changes of wanted keys, with what they say.
    fn visit(
        &self,
        visit: &mut dyn FnMut(Change<'_>, &KeyValueFields<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Wanted { revision: to, prefix } = &self.wanted;
        let mut damage = None;
        // Whoever breaks off has heard enough, of later files as well.
        let mut is_over = false;
        let mut take = |change: Change<'_>| {
            if change.kv.is_empty() {
                return ControlFlow::Continue(());
            }
            if is_over {
                return ControlFlow::Break(());
            }
            let flow = match KeyValueFields::decode(change.kv) {
                Ok(fields) if fields.key.starts_with(prefix) => visit(change, &fields),
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    damage = Some(Damage(error.0));
                    ControlFlow::Break(())
                }
            };
            is_over |= flow.is_break();
            flow
        };
        schema::visit_changes(&self.base, &mut |change| {
            if change.revision.main > *to {
                return ControlFlow::Break(());
            }
            take(change)
        })?;
        let mut at = self.base_revision;
        for part in &self.parts {
            let summary =
                increment::visit(&part.bytes, &mut |change, _| match change.revision.main {
                    main if main <= at => ControlFlow::Continue(()),
                    main if main > *to => ControlFlow::Break(()),
                    _ => take(change),
                });
            at = summary.map_err(|error| Error::named(&part.name, error))?.last;
        }
        damage.map_or(Ok(()), |damage| Err(damage.into()))
    }
}

impl<B: bolt::Bytes> Source for Chain<B> {
    fn facts(&self) -> Result<Facts, Error> {
        Ok(self.facts.clone())
    }

    fn visit_changes(
        &self,
        visit: &mut dyn FnMut(Change<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.visit(&mut |change, _| visit(change))
    }

    fn revision_min(&self) -> i64 {
        self.wanted.revision
    }
}
