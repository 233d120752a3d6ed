//! The spine: the root group, whose log is the global order.
//!
//! `state` folds committed records into the spine's state and hands out revisions, `apply` turns
//! what was folded into changes of the store, `replica` is the machine around them: it takes
//! requests, evaluates them under latches, proposes, answers. Range 0 is carried inline: a write
//! of it is a record of the spine and has its revision the moment it is folded.

pub mod apply;
pub mod decisions;
pub mod ranges;
pub mod replica;
pub mod state;
pub mod txns;

pub use apply::Task;
pub use replica::{
    Cluster, Config, Effect, Input, Limits, Parcel, Replica, Shown, Status, encode_answer,
};
pub use state::{Member, REPLICAS_WANTED, REPLICAS_WANTED_MAX, State};
