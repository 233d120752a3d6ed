//! What a run must contain to be worth judging, and what is known of the cluster it ran on.

use crate::history::Stamp;
use crate::model::Limits;

/// How a history is to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Fewest answered operations of a run that means something.
    pub operations_min: usize,
    /// Fewest revisions.
    pub revisions_min: usize,
    /// Fewest answered linearizable reads.
    pub reads_min: usize,
    /// Fewest events sent to watchers.
    pub watch_events_min: usize,
    /// The limits of the servers.
    pub limits: Limits,
    /// True if the servers compact by themselves. Refusals and cancellations because of
    /// compaction are then taken as given, since no operation explains them.
    pub compacts_itself: bool,
    /// True if every watcher that is open at the end must have everything by then.
    pub watchers_catch_up: bool,
    /// True if the keys of a TimeToLive are those that the lease had at the revision in the header of
    /// the answer, and that is not an old one. Otherwise they may be of any moment.
    pub lease_keys_are_placed: bool,
    /// How stamps relate to seconds. Without it no lease is judged by time.
    pub lease_time: Option<LeaseTime>,
}

/// Time, as far as leases depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// How many stamps a second has.
    pub stamps_per_second: u64,
    /// How much faster than the stamps a clock of a node may run, in millionths.
    pub drift_ppm: u64,
    /// From this moment on the cluster was healthy and changed no leader. `None` if it never
    /// was; then no lease is expected to end.
    pub healthy_from: Option<Stamp>,
    /// How long after its deadline a lease of a healthy cluster may still be there: an election
    /// timeout, the expiry loop and the commit.
    pub grace: Stamp,
}

impl Default for Rules {
    /// Asks for nothing but a single operation, and knows of no time.
    fn default() -> Rules {
        Rules {
            operations_min: 1,
            revisions_min: 0,
            reads_min: 0,
            watch_events_min: 0,
            limits: Limits::default(),
            compacts_itself: false,
            watchers_catch_up: false,
            lease_keys_are_placed: false,
            lease_time: None,
        }
    }
}
