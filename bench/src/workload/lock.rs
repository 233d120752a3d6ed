//! Locks and elections that change hands: each slot takes, gives back, and takes again.

use bytes::Bytes;

use super::{Parameters, Plan, Source};
use crate::operation::{Answer, Op};
use crate::random::Random;
use crate::wire::Status;

/// Names the slots fight over.
const NAMES_COUNT: u64 = 8;
/// Seconds a holder's lease lives; no holder dies in this workload.
const TTL_SECS: i64 = 600;

enum Held {
    /// The slot has no lease yet.
    Nothing,
    /// A lease, and no claim.
    Lease,
    /// The key of a lock, or of a lead with its create revision.
    Key { key: Bytes, revision: i64 },
}

struct Contender {
    prefix: String,
    is_election: bool,
    name: Bytes,
    lease: i64,
    held: Held,
}

impl Source for Contender {
    fn next(&mut self, random: &mut Random) -> Op {
        let (lease, is_election) = (self.lease, self.is_election);
        match &self.held {
            Held::Nothing => Op::Grant { ttl_secs: TTL_SECS },
            Held::Lease => {
                self.name = Bytes::from(format!("{}{}", self.prefix, random.below(NAMES_COUNT)));
                let name = self.name.clone();
                if is_election { Op::Campaign { name, lease } } else { Op::Lock { name, lease } }
            }
            Held::Key { key, revision } if is_election => {
                let (name, key) = (self.name.clone(), key.clone());
                Op::Resign { name, key, revision: *revision, lease }
            }
            Held::Key { key, .. } => Op::Unlock { key: key.clone() },
        }
    }

    fn on_answer(&mut self, op: &Op, answer: &Result<Answer, Status>) {
        let Ok(answer) = answer else {
            // A claim may or may not stand: begin again with a new lease.
            self.held = Held::Nothing;
            return;
        };
        match op {
            Op::Grant { .. } => {
                self.lease = answer.lease;
                self.held = Held::Lease;
            }
            Op::Lock { .. } | Op::Campaign { .. } => {
                self.held = Held::Key { key: answer.key.clone(), revision: answer.create_revision };
            }
            _ => self.held = Held::Lease,
        }
    }
}

fn contenders(name: &str, prefix: String, is_election: bool) -> Plan {
    Plan::new(name, Vec::new(), move |_| Contender {
        prefix: prefix.clone(),
        is_election,
        name: Bytes::new(),
        lease: 0,
        held: Held::Nothing,
    })
}

/// Locks.
pub(super) fn lock(parameters: &Parameters) -> Plan {
    contenders("lock", format!("{}lock/", parameters.prefix), false)
}

/// Elections.
pub(super) fn election(parameters: &Parameters) -> Plan {
    contenders("election", format!("{}election/", parameters.prefix), true)
}
