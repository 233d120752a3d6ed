//! What goes to peers and comes from them, under etcd's names, by peer.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::upstream::{
    ACTIVE_PEERS, DISCONNECTED_PEERS, KNOWN_PEERS, PEER_RECEIVED_BYTES, PEER_RECEIVED_FAILURES,
    PEER_ROUND_TRIP, PEER_SENT_BYTES, PEER_SENT_FAILURES, SNAPSHOT_RECEIVE_FAILURES,
    SNAPSHOT_RECEIVE_SECONDS, SNAPSHOT_RECEIVED, SNAPSHOT_RECEIVING, SNAPSHOT_SEND_FAILURES,
    SNAPSHOT_SEND_SECONDS, SNAPSHOT_SENDING, SNAPSHOT_SENT, hex,
};

/// The peers of a member. One that is no more shows 0.
pub fn known(local: u64, known: BTreeSet<u64>) {
    static SHOWN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    shown.extend(&known);
    for peer in shown.iter() {
        gauge!(KNOWN_PEERS, "Local" => hex(local), "Remote" => hex(*peer))
            .set(f64::from(u8::from(known.contains(peer))));
    }
}

/// The connection to one peer.
pub struct PeerMeters {
    pub sent_bytes: Counter,
    pub sent_failures: Counter,
    pub round_trip: Histogram,
    pub active: Gauge,
    pub disconnected: Counter,
}

impl PeerMeters {
    /// Shown with 0 from here on.
    pub fn new(local: u64, peer: u64) -> Self {
        let meters = Self {
            sent_bytes: counter!(PEER_SENT_BYTES, "To" => hex(peer)),
            sent_failures: counter!(PEER_SENT_FAILURES, "To" => hex(peer)),
            round_trip: histogram!(PEER_ROUND_TRIP, "To" => hex(peer)),
            active: gauge!(ACTIVE_PEERS, "Local" => hex(local), "Remote" => hex(peer)),
            disconnected: counter!(DISCONNECTED_PEERS, "Local" => hex(local), "Remote" => hex(peer)),
        };
        for counter in [&meters.sent_bytes, &meters.sent_failures, &meters.disconnected] {
            counter.increment(0);
        }
        meters.active.set(0.0);
        meters
    }
}

/// What comes from one peer.
pub struct FromPeer {
    pub received_bytes: Counter,
    pub failures: Counter,
}

impl FromPeer {
    /// Shown with 0 from here on.
    pub fn new(peer: u64) -> Self {
        let meters = Self {
            received_bytes: counter!(PEER_RECEIVED_BYTES, "From" => hex(peer)),
            failures: counter!(PEER_RECEIVED_FAILURES, "From" => hex(peer)),
        };
        meters.received_bytes.increment(0);
        meters.failures.increment(0);
        meters
    }
}

/// Which way a snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotWay {
    From(u64),
    To(u64),
}

/// A snapshot on its way; dropped before its end, it counts as failed.
pub struct SnapshotMeter {
    way: SnapshotWay,
    began: Instant,
    has_arrived: bool,
}

impl SnapshotMeter {
    /// It is on its way.
    pub fn begin(way: SnapshotWay) -> Self {
        let meter = Self { way, began: Instant::now(), has_arrived: false };
        let [arrived, failed, _, under_way] = meter.names();
        for name in [arrived, failed] {
            counter!(name, &meter.label()).increment(0);
        }
        gauge!(under_way, &meter.label()).increment(1.0);
        meter
    }

    /// It has arrived.
    pub fn arrived(mut self) {
        self.has_arrived = true;
        let [done, _, seconds, _] = self.names();
        counter!(done, &self.label()).increment(1);
        histogram!(seconds, &self.label()).record(self.began.elapsed());
    }

    fn names(&self) -> [&'static str; 4] {
        match self.way {
            SnapshotWay::From(_) => [
                SNAPSHOT_RECEIVED,
                SNAPSHOT_RECEIVE_FAILURES,
                SNAPSHOT_RECEIVE_SECONDS,
                SNAPSHOT_RECEIVING,
            ],
            SnapshotWay::To(_) => {
                [SNAPSHOT_SENT, SNAPSHOT_SEND_FAILURES, SNAPSHOT_SEND_SECONDS, SNAPSHOT_SENDING]
            }
        }
    }

    fn label(&self) -> [(&'static str, String); 1] {
        match self.way {
            SnapshotWay::From(peer) => [("From", hex(peer))],
            SnapshotWay::To(peer) => [("To", hex(peer))],
        }
    }
}

impl Drop for SnapshotMeter {
    fn drop(&mut self) {
        let [_, failed, _, under_way] = self.names();
        gauge!(under_way, &self.label()).decrement(1.0);
        if !self.has_arrived {
            counter!(failed, &self.label()).increment(1);
        }
    }
}
