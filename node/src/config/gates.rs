//! etcd's feature gates: the names it knows and the rules between them, so that a list of gates
//! that etcd refuses is refused here too. Two of them change what this node does:
//! `InitialCorruptCheck` and `CompactHashCheck`.

use std::collections::BTreeMap;

use super::number;

/// Why a list of gates is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    #[error("missing bool value for {0}")]
    NoValue(String),
    #[error("invalid value of {0}={1}, err: strconv.ParseBool: parsing {1:?}: invalid syntax")]
    NoBool(String, String),
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    #[error(
        "enabling feature gate LeaseCheckpointPersist requires \
         enabling feature gate LeaseCheckpoint"
    )]
    PersistWithoutCheckpoint,
}

/// Reads `Name=true,Other=false`.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, bool>, GateError> {
    let mut gates = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) =
            item.split_once('=').ok_or_else(|| GateError::NoValue(item.to_owned()))?;
        let (name, value) = (name.trim(), value.trim());
        let enabled = number::parse_bool(value)
            .ok_or_else(|| GateError::NoBool(name.to_owned(), value.to_owned()))?;
        if !ALPHA.contains(&name) && !BETA.contains(&name) && !GROUPS.contains(&name) {
            return Err(GateError::Unknown(name.to_owned()));
        }
        gates.insert(name.to_owned(), enabled);
    }
    let is_enabled = |name: &str| {
        let of_group = || gates.get("AllAlpha").copied().unwrap_or(false);
        gates.get(name).copied().unwrap_or_else(of_group)
    };
    if is_enabled("LeaseCheckpointPersist") && !is_enabled("LeaseCheckpoint") {
        return Err(GateError::PersistWithoutCheckpoint);
    }
    Ok(gates)
}

const GROUPS: [&str; 2] = ["AllAlpha", "AllBeta"];

/// Off unless named.
const ALPHA: [&str; 7] = [
    "StopGRPCServiceOnDefrag",
    "InitialCorruptCheck",
    "CompactHashCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "SetMemberLocalAddr",
    "PriorityRequest",
];

/// On unless named.
const BETA: [&str; 2] = ["TxnModeWriteWithSharedBuffer", "FastLeaseKeepAlive"];

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn known_gates_with_truth_values_are_accepted() {
        let gates = parse(" FastLeaseKeepAlive = false,PriorityRequest=1,").expect("two gates");
        assert_eq!(gates.get("FastLeaseKeepAlive"), Some(&false));
        assert_eq!(gates.get("PriorityRequest"), Some(&true));
        assert_eq!(gates.len(), 2);
        assert!(parse("").expect("no gates").is_empty());
    }

    #[test]
    fn what_etcd_refuses_is_refused() {
        assert_eq!(error("Bogus=true"), "unrecognized feature gate: Bogus");
        assert_eq!(error("CompactHashCheck"), "missing bool value for CompactHashCheck");
        assert!(error("CompactHashCheck=x").starts_with("invalid value of CompactHashCheck=x"));
    }

    #[test]
    fn persistence_of_checkpoints_needs_checkpoints() {
        let persist = "LeaseCheckpointPersist=true";
        assert!(error(persist).contains("requires enabling feature gate LeaseCheckpoint"));
        assert!(
            error(&format!("{persist},LeaseCheckpoint=false,AllAlpha=true")).contains("requires")
        );
        assert!(parse(&format!("{persist},LeaseCheckpoint=true")).is_ok());
        assert!(parse(&format!("{persist},AllAlpha=true")).is_ok());
    }
}
