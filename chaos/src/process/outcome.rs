//! What a failed call means. A short list of failures certainly changed nothing; everything else,
//! every timeout and lost connection among it, is unknown and stays unknown.

use std::error::Error as _;

use tonic::Status;

use crate::history::{Code, Outcome, Refused};
use crate::model::Refusal;

/// Refusals by the cluster that are given before a request is proposed.
const CERTAIN: [&str; 6] = [
    "etcdserver: too many requests",
    "etcdserver: leader changed",
    "etcdserver: request is too large",
    "etcdserver: mvcc: database space exceeded",
    "etcdserver: not leader",
    "etcdserver: not capable",
];

/// The outcome of a call that failed.
pub fn of_failure(status: &Status) -> Outcome {
    let text = status.message();
    let is_certain =
        Refusal::from_text(text).is_some() || CERTAIN.contains(&text) || was_never_sent(status);
    if !is_certain {
        return Outcome::Unknown;
    }
    Outcome::Refused(Refused { code: Code(i32::from(status.code())), text: text.to_owned() })
}

/// True if no connection could be made, so that nothing was sent.
fn was_never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_certain() {
        let refused = of_failure(&Status::out_of_range(
            "etcdserver: mvcc: required revision has been compacted",
        ));
        assert!(matches!(refused, Outcome::Refused(refused) if refused.code == Code(11)));
        for status in [
            Status::unavailable("etcdserver: request timed out"),
            Status::unavailable("transport error"),
            Status::deadline_exceeded("too late"),
            Status::unknown("etcdserver: too many requests, or so"),
        ] {
            assert_eq!(of_failure(&status), Outcome::Unknown, "{status}");
        }
    }
}
