//! Writes: of one key, of several in a transaction, and writes with deletes.

use super::{Fill, Parameters, Plan, Source};
use crate::keys::{Keyspace, ValueLength};
use crate::operation::Op;
use crate::random::Random;

/// Writes of a transaction.
const TXN_KEYS: u64 = 8;

struct Put {
    keyspace: Keyspace,
    value: ValueLength,
    turn: u64,
}

impl Source for Put {
    fn next(&mut self, random: &mut Random) -> Op {
        let number = self.keyspace.draw(self.turn, random);
        self.turn += 1;
        Op::Put { key: self.keyspace.key(number), value_bytes: self.value.draw(random), lease: 0 }
    }
}

/// Writes of single keys.
pub(super) fn put(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (keyspace, value) = (parameters.keyspace()?, parameters.value);
    let fill = vec![Fill { keyspace: keyspace.clone(), value }];
    // Slots begin apart, so that sequential keys are not all written at once.
    let stride = keyspace.count / parameters.slots.max(1) as u64;
    Ok(Plan::new("put", fill, move |slot| Put {
        keyspace: keyspace.clone(),
        value,
        turn: slot as u64 * stride,
    }))
}

struct TxnPut(Put);

impl Source for TxnPut {
    fn next(&mut self, random: &mut Random) -> Op {
        let count = self.0.keyspace.count.max(TXN_KEYS);
        let first = random.below(count);
        let keys = (0..TXN_KEYS).map(|n| self.0.keyspace.key((first + n) % count)).collect();
        Op::TxnPut { keys, value_bytes: self.0.value.draw(random) }
    }
}

/// Transactions that write neighbouring keys.
pub(super) fn txn_put(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (keyspace, value) = (parameters.keyspace()?, parameters.value);
    Ok(Plan::new("txn-put", Vec::new(), move |_| {
        TxnPut(Put { keyspace: keyspace.clone(), value, turn: 0 })
    }))
}

struct PutDelete {
    put: Put,
    deletes_next: bool,
    slot: u64,
    slots: u64,
}

impl Source for PutDelete {
    fn next(&mut self, random: &mut Random) -> Op {
        // Each slot has keys of its own: what it deletes is there.
        let key = self.put.keyspace.key(self.put.turn * self.slots + self.slot);
        let op = if self.deletes_next {
            self.put.turn = (self.put.turn + 1) % self.put.keyspace.count.max(1);
            Op::Delete { key }
        } else {
            Op::Put { key, value_bytes: self.put.value.draw(random), lease: 0 }
        };
        self.deletes_next = !self.deletes_next;
        op
    }
}

/// Keys that are written and deleted.
pub(super) fn delete(parameters: &Parameters) -> anyhow::Result<Plan> {
    let mut keyspace = parameters.keyspace()?;
    keyspace.prefix.push_str("deleted/");
    let (value, slots) = (parameters.value, parameters.slots.max(1) as u64);
    Ok(Plan::new("delete", Vec::new(), move |slot| PutDelete {
        put: Put { keyspace: keyspace.clone(), value, turn: 0 },
        deletes_next: false,
        slot: slot as u64,
        slots,
    }))
}
