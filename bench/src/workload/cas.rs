//! Compare-and-swap: each slot swaps keys at the revision it last saw.

use bytes::Bytes;

use super::{Parameters, Plan, Source};
use crate::keys::{Keyspace, ValueLength};
use crate::operation::{Answer, Op};
use crate::random::Random;
use crate::wire::Status;

/// Keys all slots fight over in the contended workload.
const CONTENDED_KEYS: u64 = 8;

struct Cas {
    keyspace: Keyspace,
    value: ValueLength,
    /// The key of the slot, if it is its own.
    own: Option<u64>,
    key: Bytes,
    mod_revision: i64,
}

impl Source for Cas {
    fn next(&mut self, random: &mut Random) -> Op {
        if self.key.is_empty() {
            let number = self.own.unwrap_or_else(|| random.below(CONTENDED_KEYS));
            self.key = self.keyspace.key(number);
        }
        Op::Cas {
            key: self.key.clone(),
            mod_revision: self.mod_revision,
            value_bytes: self.value.draw(random),
            lease: 0,
        }
    }

    fn on_answer(&mut self, _op: &Op, answer: &Result<Answer, Status>) {
        // After a failed call the revision is unknown; the next swap fails and tells it.
        if let Ok(answer) = answer {
            self.mod_revision = answer.mod_revision;
        }
    }
}

/// Swaps of keys of one's own, or of a few keys all share.
pub(super) fn plan(parameters: &Parameters, is_contended: bool) -> anyhow::Result<Plan> {
    let mut keyspace = parameters.keyspace()?;
    keyspace.prefix.push_str(if is_contended { "contended/" } else { "cas/" });
    let value = parameters.value;
    let name = if is_contended { "cas-contended" } else { "cas" };
    Ok(Plan::new(name, Vec::new(), move |slot| Cas {
        keyspace: keyspace.clone(),
        value,
        own: (!is_contended).then_some(slot as u64),
        key: Bytes::new(),
        mod_revision: 0,
    }))
}
