//! What a crash leaves on the disks of a node is looked at as `flotilla verify` would.

use std::collections::BTreeMap;

use flotilla_core::GroupId;
use flotilla_core::group::Recovered;
use flotilla_core::verify;

use super::world::World;

impl World {
    /// The node is down. With a bug planted nobody looks: it is to be found by the check that is
    /// there for it.
    pub(super) fn check_disks(&mut self, id: u64) {
        if !self.are_disks_checked {
            return;
        }
        let node = &self.nodes[&id];
        let groups = node.log.durable.keys();
        let logs: BTreeMap<GroupId, Recovered> =
            groups.map(|group| (*group, node.log.recovered(*group))).collect();
        let report = verify::verify(&node.store.view, Some(&logs));
        self.see("disks of a crashed node checked");
        if let Some(first) = report.findings.first() {
            let others = report.findings.len() - 1;
            let text = format!("the disks of node {id}: {first}, and {others} more");
            self.invariants.break_inside(text);
        }
    }
}
