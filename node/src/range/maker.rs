//! Making replicas of ranges: at the start those that are on disk, later those that are split off or
//! come from elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix::prelude::*;
use flotilla_core::group::{self, Chance, Recovered};
use flotilla_core::range::replica::{Config, Limits, Replica};
use flotilla_core::range::stored::{self, Stored};
use flotilla_core::time::{Length, Time};
use flotilla_core::view::Batch;
use flotilla_core::{GroupId, spine};

use super::{ApplyMessage, Meters, Outbox, Place, RangeActor, Ranges, SpineActor, from_wal};
use crate::store::Store;
use crate::wal;

/// A range reports again what the spine has not numbered after so many ticks.
const REPORT_AGAIN_TICKS: u64 = 10;
/// A range writes down how its writes were numbered after this, if no write takes it along.
const NOTE_AFTER: Length = Length::from_ms(500);

/// What all replicas of a node have in common.
#[derive(Clone)]
pub struct Maker {
    /// The spine's configuration, of which they take the times and limits.
    pub spine: spine::Config,
    /// The applied state.
    pub store: Store,
    /// The shared log.
    pub wal: wal::Handle,
    /// The thread that applies.
    pub applier: crossbeam::channel::Sender<ApplyMessage>,
    /// Where actors are found, and say whether they need ticks.
    pub ranges: Arc<Ranges>,
    /// When the machines' time began.
    pub started: Instant,
    /// Counts for the ranges led here.
    pub meters: Arc<Meters>,
    /// What the shared log remembered at the start of groups that are not running yet. A range that
    /// was split off, and whose beginning was lost with the store's last batches, begins again when
    /// its parent comes there, with all it had acknowledged in its log.
    pub logs: Arc<Mutex<BTreeMap<GroupId, wal::GroupLog>>>,
}

impl Maker {
    /// Begins the replica that is in the store; false if there is none.
    ///
    /// # Errors
    /// Log and store do not fit together.
    pub fn restart(&self, range: GroupId, actor: &Addr<SpineActor>) -> anyhow::Result<bool> {
        let Some(stored) = Stored::load(&self.store, range)? else { return Ok(false) };
        let log = self.take_log(range).unwrap_or_default();
        let recovered = from_wal(log).map_err(anyhow::Error::msg)?;
        let recovered =
            Recovered { applied: stored.position.place(), conf: stored.conf.clone(), ..recovered };
        self.make(range, Some(stored), recovered, actor)?;
        Ok(true)
    }

    /// Begins a replica that has nothing, for the leader of its range to fill.
    ///
    /// # Errors
    /// The log is damaged.
    pub fn empty(
        &self,
        range: GroupId,
        since: u64,
        actor: &Addr<SpineActor>,
    ) -> anyhow::Result<()> {
        let mut batch = Batch::default();
        stored::set_since(range, since, &mut batch);
        self.store.apply(&batch)?;
        let log = self.take_log(range).unwrap_or_default();
        let recovered = from_wal(log).map_err(anyhow::Error::msg)?;
        self.make(range, None, recovered, actor)
    }

    /// Drops what the log remembers of a range that has ended here and has no actor.
    pub fn forget(&self, range: GroupId) {
        drop(self.take_log(range));
        Outbox::new(range, self.wal.clone(), self.applier.clone()).forget(self.store.clone(), None);
    }

    fn take_log(&self, range: GroupId) -> Option<wal::GroupLog> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).remove(&range)
    }

    fn make(
        &self,
        range: GroupId,
        stored: Option<Stored>,
        recovered: Recovered,
        actor: &Addr<SpineActor>,
    ) -> anyhow::Result<()> {
        let spine = &self.spine;
        let config = Config {
            node: spine.node,
            range,
            since: stored::since(&self.store, range)?,
            group: group::Config {
                group: range,
                sleep_after_ticks: spine.group.election_ticks,
                ..spine.group.clone()
            },
            report_again_after: Length(spine.tick.0 * REPORT_AGAIN_TICKS),
            abort_after: spine.request_timeout,
            note_after: NOTE_AFTER,
            limits: Limits {
                request_bytes_max: spine.limits.request_bytes_max,
                write_bytes_max: spine.limits.record_bytes_max,
                retention: spine.limits.retention,
                ..Limits::default()
            },
        };
        let now = Time(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX));
        let chance = Box::new(OperatingSystem);
        let replica = match stored {
            Some(stored) => Replica::new(config, now, stored, recovered, chance),
            None => Replica::empty(config, now, recovered, chance),
        };
        let replica = replica
            .map_err(|error| anyhow::anyhow!("the data of range {range} is damaged: {error}"))?;
        let outbox = Outbox::new(range, self.wal.clone(), self.applier.clone());
        let store = self.store.clone();
        let (spine, meters) = (actor.clone(), self.meters.clone());
        let place = Place { ranges: self.ranges.clone(), is_tick_waiting: Arc::default() };
        let is_tick_waiting = place.is_tick_waiting.clone();
        let actor = RangeActor::new(replica, store, outbox, spine, place, self.started, meters);
        self.ranges.insert(range, actor.start(), is_tick_waiting);
        Ok(())
    }
}

/// Chance from the operating system.
pub struct OperatingSystem;

impl Chance for OperatingSystem {
    fn below(&mut self, bound: u64) -> u64 {
        rand::random_range(0..bound)
    }
}
