//! Comparing what this member holds with what the others hold: before it serves, or a while after, and
//! as the leader every now and then and after compactions. Who is wrong is decided by
//! `flotilla_core::corruption`.

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

use crate::config::CorruptChecks;
use crate::metrics::DATA_COMPARISONS;
use crate::peer;
use crate::router::Router;
use crate::tls::Connector;

/// A member that lags is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a node that starts waits for all of its ranges.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked.
const ATTEMPTS_MAX: usize = 10;
/// A node that starts has served for this long when it is compared: the first minute is its clients'.
const START_PAUSE: Duration = Duration::from_secs(60);
/// How often it is asked whether to compare.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A comparison reads all of a store. So many times what it took is the pause before the next, however
/// often one is asked for.
const PAUSE_PER_COMPARISON: u32 = 20;

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

/// Compares a while after a start, whoever leads.
pub async fn check_after_start(router: Router, tls: Connector) {
    tokio::time::sleep(START_PAUSE).await;
    for member in found_wrong(&router, &tls).await {
        raise_alarm(&router, member).await;
    }
}

/// Compares as the leader, for as long as the node runs, and raises the alarm for members that are wrong.
pub async fn run(router: Router, tls: Connector, checks: CorruptChecks) {
    let CorruptChecks { every, after_compactions } = checks;
    if every.is_zero() && after_compactions.is_none() {
        return;
    }
    let periods = [Some(LOOK_EVERY), Some(every), after_compactions];
    let look_every = periods.into_iter().flatten().filter(|it| !it.is_zero()).min();
    let look_every = look_every.unwrap_or(LOOK_EVERY);
    let board = router.board();
    let (mut began, mut took) = (Instant::now(), Duration::ZERO);
    let mut compacted_then = board.compacted();
    loop {
        tokio::time::sleep(look_every).await;
        let (since, compacted) = (began.elapsed(), board.compacted());
        let is_time = !every.is_zero() && since >= every;
        let is_compacted =
            compacted != compacted_then && after_compactions.is_some_and(|pause| since >= pause);
        let is_due = (is_time || is_compacted) && since >= took * PAUSE_PER_COMPARISON;
        if !is_due || board.leader() != board.member_id() {
            continue;
        }
        (began, compacted_then) = (Instant::now(), compacted);
        for member in found_wrong(&router, &tls).await {
            raise_alarm(&router, member).await;
        }
        took = began.elapsed();
    }
}

/// Who holds something else, found twice: the alarm stops all writes.
async fn found_wrong(router: &Router, tls: &Connector) -> Vec<NodeId> {
    let mut found = wrong(compared(router, tls).await);
    if !found.is_empty() {
        tracing::warn!(members = ?found, "members hold different data: looking again");
        tokio::time::sleep(AGAIN_AFTER).await;
        let again = wrong(compared(router, tls).await);
        found.retain(|member| again.contains(member));
    }
    found
}

fn wrong(verdict: Option<Verdict>) -> Vec<NodeId> {
    match verdict {
        Some(Verdict::Wrong(members) | Verdict::Undecided(members)) => members,
        Some(Verdict::Same) | None => Vec::new(),
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
    let verdict = compare_all(router, tls).await;
    let result = match &verdict {
        None => "none",
        Some(Verdict::Same) => "same",
        Some(Verdict::Wrong(_)) => "wrong",
        Some(Verdict::Undecided(_)) => "undecided",
    };
    metrics::counter!(DATA_COMPARISONS, "result" => result).increment(1);
    verdict
}

async fn compare_all(router: &Router, tls: &Connector) -> Option<Verdict> {
    let board = router.board();
    let (me, members) = (board.member_id(), board.notice().members);
    if members.iter().all(|member| member.id == me) {
        return None;
    }
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
