//! Loads etcd endpoints in a closed loop, and compares two stores by turns in one run.
//!
//! It speaks etcd's API only, so either side may be etcd.

pub mod cluster;
pub mod load;
