//! The policy of placement by this node's configuration and the cluster as it is.

use flotilla_placement::Policy;

use super::measure::Limit;
use crate::config::Config;
use crate::range::Looked;

/// A range may be merged only if it is below this part of the limits of splitting, as one part of so
/// many. Limits that an operator lowers take those of merging with them.
const MERGED_BELOW_ONE_IN: u64 = 8;

/// What the operator wants.
pub(super) fn of_config(config: &Config) -> Policy {
    let usual = Policy::default();
    let below = |usual: u64, split: u64| usual.min(split / MERGED_BELOW_ONE_IN);
    let merge_after_ms = u64::try_from(config.merge_after.as_millis()).unwrap_or(u64::MAX);
    let policy = Policy {
        is_auto_split: config.auto_split,
        split_bytes: config.split_bytes,
        split_keys: config.split_keys,
        split_writes_per_second: config.split_writes_per_second,
        is_auto_merge: !config.merge_after.is_zero(),
        merge_quiet_ms: merge_after_ms,
        merge_age_ms: merge_after_ms,
        borders_fixed: config.initial_split_keys.iter().map(|key| key.clone().into()).collect(),
        merge_bytes: below(usual.merge_bytes, config.split_bytes),
        merge_keys: below(usual.merge_keys, config.split_keys),
        merge_writes_per_second: below(
            usual.merge_writes_per_second,
            config.split_writes_per_second,
        ),
        silent_ms_max: u64::try_from(config.dead_after.as_millis()).unwrap_or(u64::MAX),
        ..usual
    };
    assert_eq!(policy.validate(), Ok(()), "the configuration was checked");
    policy
}

/// No more replicas are wanted than there are members that vote. A lone one has nobody to share the
/// work of a busy range with.
pub(super) fn for_cluster(policy: &Policy, looked: &Looked) -> Policy {
    let voters_count = looked.members.iter().filter(|member| !member.is_learner).count();
    let replicas_count = looked.replicas_wanted.min(voters_count).max(1);
    let policy = Policy { replicas_count, ..policy.clone() };
    if voters_count > 1 {
        return policy;
    }
    Policy { split_writes_per_second: u64::MAX, split_write_bytes_per_second: u64::MAX, ..policy }
}

/// Where a range is split.
pub(super) fn limit(policy: &Policy) -> Limit {
    Limit { bytes: policy.split_bytes, keys: policy.split_keys }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_limits_of_splitting_make_a_valid_policy() {
        for limit in [0, 1, 2_000, u64::MAX] {
            let config = Config {
                split_bytes: limit,
                split_keys: limit,
                split_writes_per_second: limit,
                ..Config::default()
            };
            assert_eq!(of_config(&config).validate(), Ok(()));
        }
    }
}
