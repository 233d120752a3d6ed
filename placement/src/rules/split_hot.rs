//! A range that is asked too much is split at its busiest point, so that other nodes can share the
//! work. A single busy key cannot be split: it ends up first in its range, and that is said.

use crate::plan::{About, Step};
use crate::solve::Draft;
use crate::survey::Range;
use crate::units::Bytes;

pub(crate) fn apply(draft: &mut Draft<'_>) {
    if !draft.policy.is_auto_split {
        return;
    }
    for id in draft.open_ranges() {
        let Some(range) = draft.survey.ranges.get(&id) else { continue };
        // What a new range is asked still shows the time before it was split off.
        if range.age_ms < draft.policy.split_hot_age_ms {
            continue;
        }
        let Some(excess) = excess(draft, range) else { continue };
        match range.load_split_key.clone().filter(|key| range.can_split_at(key)) {
            Some(key) => _ = draft.propose(Step::Split { range: id, key }, excess),
            None => {
                let reason = format!("{excess}, but no key parts the load");
                draft.complain(About::Range(id), reason);
            }
        }
    }
}

fn excess(draft: &Draft<'_>, range: &Range) -> Option<String> {
    let (load, policy) = (range.load, draft.policy);
    if load.writes_per_second > policy.split_writes_per_second {
        let (writes, limit) = (load.writes_per_second, policy.split_writes_per_second);
        return Some(format!("takes {writes} writes/s (limit {limit})"));
    }
    if load.write_bytes_per_second > policy.split_write_bytes_per_second {
        let bytes = Bytes(load.write_bytes_per_second);
        let limit = Bytes(policy.split_write_bytes_per_second);
        return Some(format!("takes {bytes}/s of writes (limit {limit}/s)"));
    }
    let (reads, limit) = (load.reads_per_second, policy.split_reads_per_second);
    (reads > limit).then(|| format!("takes {reads} reads/s (limit {limit})"))
}
