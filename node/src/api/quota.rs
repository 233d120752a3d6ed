//! The space quota, as far as a single member can tell: a write that would exceed it is refused
//! and the alarm is raised, after which the leader refuses for everyone.

use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::etcdserverpb::alarm_request::AlarmAction;
use flotilla_core::spine::state::ALARM_NOSPACE;
use flotilla_core::{Error, mvcc};

use super::Context;

/// Checks a command before anything else is.
///
/// # Errors
/// It may not take the space it needs.
pub(super) async fn check(context: &Context, command: &Command) -> Result<(), Error> {
    let Some(quota_bytes) = context.config.quota_backend_bytes else { return Ok(()) };
    let cost = mvcc::quota_cost(command);
    if cost == 0 {
        return Ok(());
    }
    let taken_bytes = match context.store().sizes() {
        Ok(sizes) => sizes.total,
        Err(error) => {
            tracing::error!(%error, "the size of the store is not known");
            return Ok(());
        }
    };
    if taken_bytes.saturating_add(cost) < quota_bytes {
        return Ok(());
    }
    raise_alarm(context).await;
    Err(Error::NoSpace)
}

async fn raise_alarm(context: &Context) {
    let member_id = context.board().member_id();
    if context.board().notice().alarms.contains(&(ALARM_NOSPACE, member_id)) {
        return;
    }
    let alarm =
        pb::AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm: ALARM_NOSPACE };
    if let Err(error) = context.router.submit(Pass::NODE, Command::Alarm(alarm)).await {
        tracing::warn!(%error, "the alarm for exceeded space could not be raised");
    }
}
