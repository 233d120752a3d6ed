//! What the methods of one worker work with.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use super::budget::Budget;
use crate::auth::Gate;
use crate::config::{Config, Limits, MetricsDetail};
use crate::metrics::CallMeters;
use crate::router::{Board, Router};
use crate::spans::Spans;
use crate::store::Store;

/// What a worker serves clients from. It belongs to one worker.
pub struct Context {
    pub(super) config: Arc<Config>,
    pub(super) limits: Limits,
    pub(super) router: Router,
    pub(super) metrics: PrometheusHandle,
    pub(super) meters: CallMeters,
    /// None: calls have no spans.
    pub(super) spans: Option<Arc<Spans>>,
    /// Of all workers together.
    pub(super) budget: Arc<Budget>,
}

impl Context {
    /// For a worker of a node.
    pub fn new(
        config: Arc<Config>,
        router: Router,
        metrics: PrometheusHandle,
        spans: Option<Arc<Spans>>,
        budget: Arc<Budget>,
    ) -> Self {
        let meters = CallMeters::new(config.metrics == MetricsDetail::Extensive);
        Self { limits: config.limits(), config, router, metrics, meters, spans, budget }
    }

    pub(super) fn board(&self) -> &Board {
        self.router.board()
    }

    pub(super) fn gate(&self) -> &Gate {
        self.router.gate()
    }

    pub(super) fn store(&self) -> &Store {
        self.router.store()
    }
}
