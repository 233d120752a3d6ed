//! A Kubernetes control plane as its store sees it: node leases renewed by swap, pods created,
//! updated and deleted, lists in pages, watches on all of it, and compaction.

use bytes::Bytes;

use super::{Fill, Parameters, Plan, Source, Watchers};
use crate::keys::{Keyspace, ValueLength};
use crate::operation::{Answer, Op, Span};
use crate::random::Random;
use crate::wire::Status;

/// Steps in a hundred that renew a node's lease.
const RENEWALS: u64 = 55;
/// Steps in a hundred that move a pod on.
const POD_STEPS: u64 = 35;
/// Steps in a hundred that read one pod; the rest are lists.
const READS: u64 = 8;
/// Updates of a pod's status between creation and deletion.
const POD_UPDATES: u32 = 3;
/// Bytes of a node's lease.
const LEASE_BYTES: usize = 400;
/// Bytes of a pod.
const POD_BYTES: ValueLength = ValueLength::Uniform(1500, 4000);
/// Configuration objects that are only listed.
const CONFIGS_COUNT: u64 = 1000;
/// Keys a page of a list holds.
const PAGE_KEYS: i64 = 500;
/// Steps of the first slot between compactions.
const COMPACT_STEPS: u64 = 5000;
/// Revisions a compaction keeps.
const COMPACT_KEEP: i64 = 5000;
/// Watches of each kind of object.
const WATCHERS_COUNT: usize = 10;

struct Node {
    slot: usize,
    steps: u64,
    lease_revision: i64,
    pod: u64,
    pod_revision: i64,
    pod_updates: u32,
}

impl Node {
    fn lease_key(&self) -> Bytes {
        Bytes::from(format!("/registry/leases/kube-node-lease/node-{:06}", self.slot))
    }

    fn pod_key(&self) -> Bytes {
        Bytes::from(format!("/registry/pods/default/pod-{:06}-{:06}", self.slot, self.pod))
    }

    fn pod_step(&self, random: &mut Random) -> Op {
        let key = self.pod_key();
        if self.pod_updates > POD_UPDATES {
            return Op::Delete { key };
        }
        let value_bytes = POD_BYTES.draw(random);
        Op::Cas { key, mod_revision: self.pod_revision, value_bytes, lease: 0 }
    }
}

impl Source for Node {
    fn next(&mut self, random: &mut Random) -> Op {
        self.steps += 1;
        if self.slot == 0 && self.steps.is_multiple_of(COMPACT_STEPS) {
            return Op::Compact { keep: COMPACT_KEEP };
        }
        let draw = random.below(100);
        if draw < RENEWALS {
            let mod_revision = self.lease_revision;
            return Op::Cas {
                key: self.lease_key(),
                mod_revision,
                value_bytes: LEASE_BYTES,
                lease: 0,
            };
        }
        if draw < RENEWALS + POD_STEPS {
            return self.pod_step(random);
        }
        if draw < RENEWALS + POD_STEPS + READS {
            return Op::Get { key: self.lease_key(), is_serializable: false };
        }
        let prefix = if random.below(2) == 0 { "/registry/pods/" } else { "/registry/configmaps/" };
        Op::List(Span { limit: PAGE_KEYS, ..Span::prefix(prefix) })
    }

    fn on_answer(&mut self, op: &Op, answer: &Result<Answer, Status>) {
        let Ok(answer) = answer else { return };
        match op {
            Op::Cas { key, .. } if *key == self.lease_key() => {
                self.lease_revision = answer.mod_revision;
            }
            Op::Cas { .. } => {
                self.pod_revision = answer.mod_revision;
                self.pod_updates += 1;
            }
            Op::Delete { .. } => {
                self.pod += 1;
                self.pod_revision = 0;
                self.pod_updates = 0;
            }
            _ => {}
        }
    }
}

/// One node with its pods a slot. The keys are Kubernetes' own, whatever the prefix.
pub(super) fn plan(_parameters: &Parameters) -> Plan {
    let keyspace = Keyspace::uniform("/registry/configmaps/default/", CONFIGS_COUNT);
    let fill = vec![Fill { keyspace, value: ValueLength::Uniform(500, 2000) }];
    let plan = Plan::new("kubernetes", fill, |slot| Node {
        slot,
        steps: 0,
        lease_revision: 0,
        pod: 0,
        pod_revision: 0,
        pod_updates: 0,
    });
    let watchers = ["/registry/pods/", "/registry/leases/"]
        .map(|prefix| Watchers { prefix: prefix.into(), count: WATCHERS_COUNT });
    Plan { watchers: watchers.to_vec(), ..plan }
}
