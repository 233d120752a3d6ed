//! Comparing what this member holds with what the others hold: before it serves for the first time, and
//! as the leader every now and then. Who is wrong is decided by `flotilla_core::corruption`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use flotilla_core::NodeId;
use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::corruption::{Verdict, compare};
use flotilla_core::proto::etcdserverpb::AlarmRequest;
use flotilla_core::proto::etcdserverpb::alarm_request::AlarmAction;
use flotilla_core::spine::state::ALARM_CORRUPT;

use crate::peer;
use crate::router::Router;
use crate::tls::Connector;

/// A member that lags is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a node that starts waits for all of its ranges.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked.
const ATTEMPTS_MAX: usize = 10;

/// Compares before the node serves.
///
/// # Errors
/// A majority of the members holds something else than this one.
pub async fn check_at_start(router: &Router, tls: &Connector) -> anyhow::Result<()> {
    let me = NodeId(router.board().member_id());
    let deadline = Instant::now() + WHOLE_WITHIN;
    while !router.board().is_whole() && Instant::now() < deadline {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    match compared(router, tls).await {
        None => tracing::warn!("no other member can be compared with: data is not checked"),
        Some(Verdict::Same) => tracing::info!("other members hold the same"),
        Some(Verdict::Wrong(wrong)) if wrong.contains(&me) => anyhow::bail!(
            "found data inconsistency with peers: a majority of the members holds something else than \
             this one. Keep the data directory, remove the member, and add it anew with an empty one"
        ),
        Some(Verdict::Wrong(members) | Verdict::Undecided(members)) => {
            tracing::error!(?members, "members hold different data");
        }
    }
    Ok(())
}

/// Compares as the leader, for as long as the node runs, and raises the alarm for members that are wrong.
pub async fn run(router: Router, tls: Connector, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let board = router.board();
        if board.leader() != board.member_id() {
            continue;
        }
        let Some(Verdict::Wrong(members) | Verdict::Undecided(members)) =
            compared(&router, &tls).await
        else {
            continue;
        };
        for member in members {
            raise_alarm(&router, member).await;
        }
    }
}

async fn raise_alarm(router: &Router, member: NodeId) {
    let (action, alarm) = (AlarmAction::Activate.into(), ALARM_CORRUPT);
    if router.board().notice().alarms.contains(&(alarm, member.0)) {
        return;
    }
    tracing::error!(%member, "a member holds other data than the others: raising the alarm");
    let request = AlarmRequest { action, member_id: member.0, alarm };
    if let Err(error) = router.submit(Pass::NODE, Command::Alarm(request)).await {
        tracing::warn!(%error, "the alarm for corrupt data could not be raised");
    }
}

/// `None` if there is nobody to be compared with, or not everything is here.
async fn compared(router: &Router, tls: &Connector) -> Option<Verdict> {
    let board = router.board();
    let (me, members) = (board.member_id(), board.notice().members);
    let revision = board.head().revision;
    let (own, compacted) = peer::checksum(router.store(), board, revision).await?;
    let mut checksums = BTreeMap::from([(NodeId(me), own)]);
    for member in members.iter().filter(|member| member.id != me) {
        for attempt in 0..ATTEMPTS_MAX {
            let Some(url) = member.peer_urls.get(attempt % member.peer_urls.len().max(1)) else {
                break;
            };
            let asked = peer::fetch_checksum(tls, url, board.cluster_id(), revision).await;
            match asked {
                Ok((id, sum, at)) if id == member.id && at == compacted => {
                    checksums.insert(NodeId(id), sum);
                    break;
                }
                // Of what is compacted differently nothing can be said.
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
                Err(error) => tracing::debug!(member = member.id, %error, "no checksum"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
    (checksums.len() > 1).then(|| compare(NodeId(me), &checksums, members.len()))
}
