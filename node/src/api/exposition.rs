//! The text of `/metrics`: what was counted, and what a look at the node adds to it.

use metrics_exporter_prometheus::PrometheusHandle;

use super::maintenance::alarm_name;
use crate::config::Config;
use crate::metrics::{self, Figures, peers, upstream};
use crate::router::Router;

/// The page, as it is at this moment. It takes a few milliseconds.
pub fn text(config: &Config, router: &Router, handle: &PrometheusHandle) -> String {
    let board = router.board();
    let (head, notice) = (board.head(), board.notice());
    metrics::look(&Figures {
        revision: head.revision,
        compact_revision: head.compact_revision,
        committed: board.commit_index(),
        applied: board.applied_index(),
        has_leader: board.leader() != 0,
        is_leader: board.leader() == board.member_id(),
        is_learner: board.is_learner(),
        member_id: board.member_id(),
        cluster_version: notice.cluster_version,
        quota_bytes: config.quota_backend_bytes.unwrap_or(0),
        store_bytes: router.store().sizes().ok().map(|sizes| (sizes.total, sizes.in_use)),
        auth_revision: router.gate().auth().revision(),
        open_views: router.store().open_views(),
        proposals_pending: router.outcomes_pending(),
    });
    let alarms = notice.alarms.into_iter();
    upstream::alarms(alarms.map(|(kind, member)| (member, alarm_name(kind))).collect());
    let others = notice.members.into_iter().map(|member| member.id);
    peers::known(board.member_id(), others.filter(|id| *id != board.member_id()).collect());
    let under_way = ::metrics::gauge!(upstream::SCRAPES_UNDER_WAY);
    under_way.increment(1.0);
    let text = metrics::render(handle);
    under_way.decrement(1.0);
    text
}
