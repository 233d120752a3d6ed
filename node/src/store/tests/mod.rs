//! Tests.
pub(super) mod crash { pub(in crate::store) fn point(_: &str) {} }
