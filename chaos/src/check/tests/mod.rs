//! Tests of the checker: one small history by hand for each way to fail, and random histories,
//! right ones and ones with a planted fault.

mod faults;
mod leases;
mod operations;
mod random;
mod scene;
mod watches;
mod world;

use crate::check::{Rules, Verdict, Violation, judge};
use crate::history::History;

/// Fails the test unless a violation of the wanted kind is found.
fn assert_fails(history: &History, rules: &Rules, is_wanted: impl Fn(&Violation) -> bool) {
    match judge(history, rules) {
        Verdict::Fail(violations) if violations.iter().any(&is_wanted) => {}
        verdict => panic!("another violation was expected, not\n{verdict}"),
    }
}

fn assert_passes(history: &History, rules: &Rules) {
    let verdict = judge(history, rules);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict}");
}
