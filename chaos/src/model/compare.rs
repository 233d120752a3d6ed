//! Compare: one condition of a transaction, on one key or on every key of a span.

use flotilla_proto::Span;
use flotilla_proto::etcdserverpb::Compare;
use flotilla_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::mvccpb::KeyValue;

use crate::model::view::View;

impl View<'_> {
    /// True if the condition holds for the key, or for every key of its span. Where no key is
    /// there, numbers compare as zero and values never hold, not even as different.
    pub(super) fn holds(&self, compare: &Compare) -> bool {
        let span = Span::from_request(compare.key.clone(), compare.range_end.clone());
        let pairs = self.timeline.span(&span, self.revision);
        if pairs.is_empty() {
            let is_value = CompareTarget::try_from(compare.target) == Ok(CompareTarget::Value);
            return !is_value && holds_for(compare, &KeyValue::default());
        }
        pairs.iter().all(|pair| holds_for(compare, pair))
    }
}

fn holds_for(compare: &Compare, pair: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    // A union of another kind than the target asks for counts as not set: zero or empty.
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            let wanted = if let Some(TargetUnion::Version(it)) = union { *it } else { 0 };
            pair.version.cmp(&wanted)
        }
        Ok(CompareTarget::Create) => {
            let wanted = if let Some(TargetUnion::CreateRevision(it)) = union { *it } else { 0 };
            pair.create_revision.cmp(&wanted)
        }
        Ok(CompareTarget::Mod) => {
            let wanted = if let Some(TargetUnion::ModRevision(it)) = union { *it } else { 0 };
            pair.mod_revision.cmp(&wanted)
        }
        Ok(CompareTarget::Lease) => {
            let wanted = if let Some(TargetUnion::Lease(it)) = union { *it } else { 0 };
            pair.lease.cmp(&wanted)
        }
        Ok(CompareTarget::Value) => {
            let wanted = if let Some(TargetUnion::Value(it)) = union { it.as_ref() } else { b"" };
            pair.value.as_ref().cmp(wanted)
        }
        // A target that does not exist compares as equal.
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        // A relation that does not exist always holds.
        Err(_) => true,
    }
}
