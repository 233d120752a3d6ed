//! What placement tells operators: the survey of the cluster, and what it cannot help. Only the node
//! that leads the spine has any.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use flotilla_core::proto::internal::{ComplaintInfo, LeaseEnding, NodeInfo, RangeSurvey};

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// This node leads the spine, and what follows is its view.
    pub is_surveyed: bool,
    /// By range id.
    pub ranges: BTreeMap<u64, RangeSurvey>,
    /// By node id.
    pub nodes: Vec<NodeInfo>,
    /// What nothing can be done about.
    pub complaints: Vec<ComplaintInfo>,
    /// Leases there are.
    pub leases_count: usize,
    /// Those that end first.
    pub leases_ending: Vec<LeaseEnding>,
}

/// The overview, for every thread.
#[derive(Debug, Default)]
pub struct SharedOverview(RwLock<Overview>);

impl SharedOverview {
    /// Looks at it.
    pub fn read<T>(&self, read: impl FnOnce(&Overview) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Overview) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}
