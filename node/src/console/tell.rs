//! What this node tells of itself, to its own console and to those of the others.

use std::sync::Arc;

use flotilla_core::proto::internal::{MemberView, SurveyView, SurveyedRange};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::api;
use crate::config::Config;
use crate::metrics::shown;
use crate::peer::Tell;
use crate::router::{Overview, Router};

/// Says how this node stands. Cheap to clone.
#[derive(Clone)]
pub struct Teller {
    pub(super) config: Arc<Config>,
    pub(super) router: Router,
    metrics: PrometheusHandle,
}

impl Teller {
    /// Of a node.
    pub fn new(config: Arc<Config>, router: Router, metrics: PrometheusHandle) -> Self {
        Self { config, router, metrics }
    }

    /// For the peer port.
    pub fn tell(&self) -> Tell {
        let teller = self.clone();
        Arc::new(move || teller.view())
    }

    /// How this node stands. It takes a few milliseconds.
    pub(super) fn view(&self) -> MemberView {
        let board = self.router.board();
        let page = api::metrics_text(&self.config, &self.router, &self.metrics);
        MemberView {
            cluster_id: board.cluster_id(),
            member: board.member_id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            metrics: shown::lines_of(&page),
            hot: Some(board.usage().hot().told()),
            survey: board.overview().read(|overview| survey(overview, board.term())),
        }
    }
}

fn survey(overview: &Overview, term: u64) -> Option<SurveyView> {
    overview.is_surveyed.then(|| SurveyView {
        term,
        ranges: overview
            .ranges
            .iter()
            .map(|(range, survey)| SurveyedRange { range: *range, survey: Some(*survey) })
            .collect(),
        nodes: overview.nodes.clone(),
        complaints: overview.complaints.clone(),
        leases_count: overview.leases_count as u64,
        leases_ending: overview.leases_ending.clone(),
    })
}
