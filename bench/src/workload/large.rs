//! Large values: writes and reads of 100 KiB to 1 MiB.

use super::{Fill, Parameters, Plan, Source};
use crate::keys::{Keyspace, ValueLength};
use crate::operation::Op;
use crate::random::Random;

/// Keys; few, since each is large.
const KEYS_COUNT: u64 = 64;
/// Below etcd's default limit of 1.5 MiB a request.
const VALUE: ValueLength = ValueLength::Uniform(100 << 10, 1 << 20);

struct Large {
    keyspace: Keyspace,
}

impl Source for Large {
    fn next(&mut self, random: &mut Random) -> Op {
        let key = self.keyspace.key(self.keyspace.draw(0, random));
        match random.below(2) {
            0 => Op::Get { key, is_serializable: false },
            _ => Op::Put { key, value_bytes: VALUE.draw(random), lease: 0 },
        }
    }
}

/// Half writes, half reads.
pub(super) fn plan(parameters: &Parameters) -> Plan {
    let keyspace = Keyspace::uniform(&format!("{}large/", parameters.prefix), KEYS_COUNT);
    let fill = vec![Fill { keyspace: keyspace.clone(), value: VALUE }];
    Plan::new("large", fill, move |_| Large { keyspace: keyspace.clone() })
}
