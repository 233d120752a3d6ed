//! How long requests take, by kind, under etcd's names and kinds.

use std::sync::OnceLock;
use std::time::Duration;

use flotilla_core::command::Command;
use flotilla_core::proto::internal::auth_change::What;
use metrics::{Histogram, histogram};

use super::PHASE_SECONDS;
use super::upstream::{RANGE_SECONDS, REQUEST_SECONDS};
use crate::api::Method;
use crate::router::{Phase, Spent};

/// Shows all kinds, with nothing observed yet.
pub(super) fn show() {
    let _ = (range_seconds(), requests());
}

/// A read ended, well or not.
pub fn range_done(took: Duration, is_ok: bool) {
    range_seconds()[usize::from(is_ok)].record(took);
}

fn range_seconds() -> &'static [Histogram; 2] {
    static SECONDS: OnceLock<[Histogram; 2]> = OnceLock::new();
    SECONDS.get_or_init(|| {
        ["false", "true"].map(|success| histogram!(RANGE_SECONDS, "success" => success))
    })
}

/// Kinds of requests, by the names that etcd gives them; the first two are reads.
const REQUESTS: [&str; 22] = [
    "Range",
    "ReadonlyTxn",
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "Alarm",
    "Authenticate",
    "ClusterMemberAttrSet",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
];

/// A kind of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKind(usize);

impl RequestKind {
    /// A read.
    pub const RANGE: Self = Self(0);
    /// A transaction that only reads.
    pub const READ_TXN: Self = Self(1);

    /// Of a command; None for one that has no place of its own in etcd's log, or none at all.
    pub fn of(command: &Command) -> Option<Self> {
        let name = match command {
            Command::Put(_) => "Put",
            Command::DeleteRange(_) => "DeleteRange",
            Command::Txn(_) => "Txn",
            Command::Compact(_) => "Compaction",
            Command::LeaseGrant(_) => "LeaseGrant",
            Command::LeaseRevoke(_) => "LeaseRevoke",
            Command::Alarm(_) => "Alarm",
            Command::AuthToken(_) => "Authenticate",
            Command::MemberAttributes(_) => "ClusterMemberAttrSet",
            Command::AuthChange(change) => match change.what.as_ref()? {
                What::Enable(_) => "AuthEnable",
                What::Disable(_) => "AuthDisable",
                What::UserAdd(_) => "AuthUserAdd",
                What::UserDelete(_) => "AuthUserDelete",
                What::UserChangePassword(_) => "AuthUserChangePassword",
                What::UserGrantRole(_) => "AuthUserGrantRole",
                What::UserRevokeRole(_) => "AuthUserRevokeRole",
                What::RoleAdd(_) => "AuthRoleAdd",
                What::RoleDelete(_) => "AuthRoleDelete",
                What::RoleGrantPermission(_) => "AuthRoleGrantPermission",
                What::RoleRevokePermission(_) => "AuthRoleRevokePermission",
            },
            _ => return None,
        };
        REQUESTS.iter().position(|known| *known == name).map(Self)
    }
}

/// A request ended, well or not.
pub fn request_done(kind: RequestKind, took: Duration, is_ok: bool) {
    requests()[kind.0][usize::from(is_ok)].record(took);
}

/// Methods whose phases are told apart; the rest is `other`.
const PHASED: [&str; 5] = ["Range", "Put", "DeleteRange", "Txn", "other"];

/// Where the time of a call went. Phases that took no time are left out.
pub fn phases(method: Method, spent: &Spent) {
    static SECONDS: OnceLock<Vec<[Histogram; 8]>> = OnceLock::new();
    let seconds = SECONDS.get_or_init(|| {
        let of = |method: &'static str| {
            let with = |phase| histogram!(PHASE_SECONDS, "method" => method, "phase" => phase);
            Phase::NAMES.map(with)
        };
        PHASED.iter().map(|method| of(method)).collect()
    });
    let place = match method {
        Method::Range => 0,
        Method::Put => 1,
        Method::DeleteRange => 2,
        Method::Txn => 3,
        _ => 4,
    };
    for (histogram, (_, micros)) in seconds[place].iter().zip(spent.iter()) {
        if micros > 0 {
            histogram.record(Duration::from_micros(micros));
        }
    }
}

fn requests() -> &'static [[Histogram; 2]] {
    static SECONDS: OnceLock<Vec<[Histogram; 2]>> = OnceLock::new();
    SECONDS.get_or_init(|| {
        let of = |kind: &'static str| {
            let with = |success| histogram!(REQUEST_SECONDS, "type" => kind, "success" => success);
            ["false", "true"].map(with)
        };
        REQUESTS.iter().map(|kind| of(kind)).collect()
    })
}
