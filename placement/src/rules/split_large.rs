//! A range with too many bytes or keys is split in the middle by size.

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
        let Some(excess) = excess(draft, range) else { continue };
        match range.size_split_key.clone().filter(|key| range.can_split_at(key)) {
            Some(key) => _ = draft.propose(Step::Split { range: id, key }, excess),
            None => draft.complain(About::Range(id), format!("{excess}, but has no middle key")),
        }
    }
}

fn excess(draft: &Draft<'_>, range: &Range) -> Option<String> {
    let policy = draft.policy;
    if range.bytes > policy.split_bytes {
        let (bytes, limit) = (Bytes(range.bytes), Bytes(policy.split_bytes));
        return Some(format!("holds {bytes} (limit {limit})"));
    }
    let (keys, limit) = (range.keys, policy.split_keys);
    (keys > limit).then(|| format!("holds {keys} keys (limit {limit})"))
}
