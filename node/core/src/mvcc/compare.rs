//! The conditions of a transaction.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use super::Failure;
use super::history::Wanted;
use super::keyspace::Keyspace;
use crate::proto::Span;
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::mvccpb::KeyValue;

/// Whether all conditions hold; true without any.
///
/// # Errors
/// See `Failure`; never one for the client.
pub(super) fn all_hold(keys: &Keyspace<'_>, compares: &[pb::Compare]) -> Result<bool, Failure> {
    for compare in compares {
        if !holds(keys, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a condition holds for every key of its span. A span without keys is like a missing key:
/// zero in every number, and without a value that could be compared.
fn holds(keys: &Keyspace<'_>, compare: &pb::Compare) -> Result<bool, Failure> {
    let span = Span::from_request(compare.key.clone(), compare.range_end.clone());
    let mut is_missing = true;
    let mut holds = true;
    keys.visit(&span, Wanted::ALL, &mut |kv| {
        is_missing = false;
        holds = holds_for(compare, &kv);
        if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if is_missing {
        let is_of_value = CompareTarget::try_from(compare.target) == Ok(CompareTarget::Value);
        return Ok(!is_of_value && holds_for(compare, &KeyValue::default()));
    }
    Ok(holds)
}

/// A given value of another kind than the target counts as zero or empty, an unknown target as
/// equal, and an unknown result as true: so does etcd.
fn holds_for(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let given = compare.target_union.as_ref();
    let stored = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => kv.version.cmp(&match given {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => kv.create_revision.cmp(&match given {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => kv.mod_revision.cmp(&match given {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => kv.value.as_ref().cmp(match given {
            Some(TargetUnion::Value(value)) => value.as_ref(),
            _ => &[],
        }),
        Ok(CompareTarget::Lease) => kv.lease.cmp(&match given {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => stored.is_eq(),
        Ok(CompareResult::NotEqual) => stored.is_ne(),
        Ok(CompareResult::Greater) => stored.is_gt(),
        Ok(CompareResult::Less) => stored.is_lt(),
        Err(_) => true,
    }
}
