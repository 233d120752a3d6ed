//! Leases: grants, and keep-alives of one lease a slot.

use super::{Plan, Source};
use crate::operation::{Answer, Op};
use crate::random::Random;
use crate::wire::Status;

/// Time to live of leases that should outlast the run.
const TTL_SECS: i64 = 3600;

struct Grant;

impl Source for Grant {
    fn next(&mut self, _random: &mut Random) -> Op {
        Op::Grant { ttl_secs: TTL_SECS }
    }
}

/// Grants.
pub(super) fn grant() -> Plan {
    Plan::new("lease-grant", Vec::new(), |_| Grant)
}

struct KeepAlive {
    lease: i64,
}

impl Source for KeepAlive {
    fn next(&mut self, _random: &mut Random) -> Op {
        match self.lease {
            0 => Op::Grant { ttl_secs: TTL_SECS },
            lease => Op::KeepAlive { lease },
        }
    }

    fn on_answer(&mut self, op: &Op, answer: &Result<Answer, Status>) {
        match (op, answer) {
            (Op::Grant { .. }, Ok(answer)) => self.lease = answer.lease,
            // NOT_FOUND: the lease is gone.
            (Op::KeepAlive { .. }, Err(status)) if status.code.0 == 5 => self.lease = 0,
            _ => {}
        }
    }
}

/// Keep-alives.
pub(super) fn keep_alive() -> Plan {
    Plan::new("lease-keepalive", Vec::new(), |_| KeepAlive { lease: 0 })
}
