//! The node: actors that drive the machines of `flotilla_core`, and the outside world around them.
//!
//! Read `start` for the wiring, then follow a request down: `api` → `router` → `range` → `wal`,
//! `store`, `watch`, `peer`.

pub mod start;

pub mod api;
pub mod auth;
pub mod cluster;
pub mod console;
pub mod io;
pub mod peer;
pub mod placement;
pub mod range;
pub mod router;
pub mod store;
pub mod tls;
pub mod wal;
pub mod watch;

pub mod backup;
pub mod calendar;
pub mod channel;
pub mod config;
pub mod corruption;
pub mod ctl;
pub mod dev;
pub mod failpoint;
pub mod hand_over;
pub mod logging;
pub mod metrics;
pub mod recover;
pub mod runtime;
pub mod service_manager;
pub mod spans;
pub mod supervise;
pub mod verify;

/// A build in which bugs can be planted has no server in it.
const _: () = assert!(
    !flotilla_core::mutant::IS_COMPILED_IN,
    "flotilla-core was built with the feature `mutants`, which is for flotilla-chaos alone"
);

/// The version of etcd whose API and behaviour this node speaks.
pub const ETCD_VERSION: &str = "3.7.1";
/// The cluster version that goes with it.
pub const CLUSTER_VERSION: &str = "3.7.0";
