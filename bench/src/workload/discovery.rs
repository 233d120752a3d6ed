//! Service discovery: instances register under a lease, keep it alive, then leave or just die;
//! between their steps they look services up.

use bytes::Bytes;

use super::{Parameters, Plan, Source};
use crate::operation::{Answer, Op, Span};
use crate::random::Random;
use crate::wire::Status;

/// Services there are.
const SERVICES_COUNT: u64 = 20;
/// Seconds a dead instance stays listed.
const TTL_SECS: i64 = 5;
/// Keep-alives in the life of an instance.
const KEEP_ALIVES: u32 = 20;
/// Of a hundred steps, so many are look-ups.
const LOOKUPS: u64 = 40;
/// Of a hundred instances, so many die without leaving.
const DEATHS: u64 = 50;
/// Bytes of an instance's record.
const RECORD_BYTES: usize = 200;

enum Stage {
    Absent,
    Leased,
    Registered { keep_alives: u32 },
}

struct Instance {
    prefix: String,
    slot: usize,
    lease: i64,
    stage: Stage,
}

impl Source for Instance {
    fn next(&mut self, random: &mut Random) -> Op {
        let service = random.below(SERVICES_COUNT);
        if random.below(100) < LOOKUPS {
            return Op::List(Span::prefix(&format!("{}{service}/", self.prefix)));
        }
        match self.stage {
            Stage::Absent => Op::Grant { ttl_secs: TTL_SECS },
            Stage::Leased => {
                let key = format!("{}{service}/{}-{:x}", self.prefix, self.slot, self.lease);
                Op::Put { key: Bytes::from(key), value_bytes: RECORD_BYTES, lease: self.lease }
            }
            Stage::Registered { keep_alives } if keep_alives < KEEP_ALIVES => {
                Op::KeepAlive { lease: self.lease }
            }
            Stage::Registered { .. } if random.below(100) < DEATHS => {
                // The lease is left to expire; a new instance takes the slot.
                self.stage = Stage::Absent;
                Op::Grant { ttl_secs: TTL_SECS }
            }
            Stage::Registered { .. } => Op::Revoke { lease: self.lease },
        }
    }

    fn on_answer(&mut self, op: &Op, answer: &Result<Answer, Status>) {
        self.stage = match (op, answer) {
            (Op::List(_), _) => return,
            (Op::Grant { .. }, Ok(answer)) => {
                self.lease = answer.lease;
                Stage::Leased
            }
            (Op::Put { .. }, Ok(_)) => Stage::Registered { keep_alives: 0 },
            (Op::KeepAlive { .. }, Ok(_)) => match self.stage {
                Stage::Registered { keep_alives } => {
                    Stage::Registered { keep_alives: keep_alives + 1 }
                }
                Stage::Absent | Stage::Leased => Stage::Absent,
            },
            _ => Stage::Absent,
        };
    }
}

/// One instance a slot.
pub(super) fn plan(parameters: &Parameters) -> Plan {
    let prefix = format!("{}service/", parameters.prefix);
    Plan::new("discovery", Vec::new(), move |slot| Instance {
        prefix: prefix.clone(),
        slot,
        lease: 0,
        stage: Stage::Absent,
    })
}
