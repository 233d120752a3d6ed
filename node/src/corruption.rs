//! Comparing what this member holds with what the others hold: before it serves, or a while after, and
//! as the leader every now and then and after compactions. Who is wrong is decided by
//! `flotilla_core::corruption`. A member that is has itself rebuilt.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use actix::Addr;
use flotilla_core::NodeId;
use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::corruption::{Verdict, compare};
use flotilla_core::proto::etcdserverpb::AlarmRequest;
use flotilla_core::proto::etcdserverpb::alarm_request::AlarmAction;
use flotilla_core::spine::state::ALARM_CORRUPT;

use crate::config::CorruptChecks;
use crate::hand_over::hand_over;
use crate::metrics::{DATA_COMPARISONS, DATA_REBUILDS};
use crate::peer;
use crate::range::{Rebuild, SpineActor};
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
/// How often a member that is rebuilt asks for snapshots and compares, and the least pause between the two.
const REBUILD_ATTEMPTS_MAX: usize = 60;
const REBUILD_PAUSE: Duration = Duration::from_secs(2);

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

/// Has the data of this member replaced by what the others hold, when the alarm is raised for it and a
/// majority of all members holds something else; ends the alarm when they are the same. For as long as
/// the node runs.
pub async fn rebuild_when_wrong(router: Router, tls: Connector, actor: Addr<SpineActor>) {
    let me = NodeId(router.board().member_id());
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK_EVERY;
        if !has_alarm(&router, me) {
            continue;
        }
        let began = Instant::now();
        if is_wrong(&router, &tls, me).await {
            rebuild(&router, &tls, &actor, me).await;
        }
        pause = pause.max(began.elapsed() * PAUSE_PER_COMPARISON);
    }
}

/// Whether a majority holds something else than this member, seen twice.
async fn is_wrong(router: &Router, tls: &Connector, me: NodeId) -> bool {
    for _ in 0..2 {
        match compared(router, tls).await {
            Some(Verdict::Wrong(wrong)) if wrong.contains(&me) => {}
            Some(_) | None => return false,
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    true
}

/// A request is lost where a leader changes, and a snapshot takes its time: it is asked for until the data
/// are the same.
async fn rebuild(router: &Router, tls: &Connector, actor: &Addr<SpineActor>, me: NodeId) {
    tracing::error!(
        "most members hold something else than this one: rebuilding it from what they hold"
    );
    let (began, mut took) = (Instant::now(), Duration::ZERO);
    for _ in 0..REBUILD_ATTEMPTS_MAX {
        hand_over(actor, router.board(), me).await;
        // A full mailbox means that clients come first; it is asked for again.
        let _ = actor.try_send(Rebuild);
        tokio::time::sleep(REBUILD_PAUSE.max(took * 2)).await;
        let compared_at = Instant::now();
        let verdict = compared(router, tls).await;
        took = compared_at.elapsed();
        if verdict == Some(Verdict::Same) {
            metrics::counter!(DATA_REBUILDS).increment(1);
            tracing::info!(took_ms = began.elapsed().as_millis(), "rebuilt: others hold the same");
            return set_alarm(router, me, AlarmAction::Deactivate).await;
        }
    }
    tracing::error!("could not be rebuilt: the alarm stays");
}

async fn raise_alarm(router: &Router, member: NodeId) {
    if !has_alarm(router, member) {
        tracing::error!(%member, "a member holds other data than the others: raising the alarm");
        set_alarm(router, member, AlarmAction::Activate).await;
    }
}

fn has_alarm(router: &Router, member: NodeId) -> bool {
    router.board().notice().alarms.contains(&(ALARM_CORRUPT, member.0))
}

async fn set_alarm(router: &Router, member: NodeId, action: AlarmAction) {
    let alarm = ALARM_CORRUPT;
    let request = AlarmRequest { action: action.into(), member_id: member.0, alarm };
    if let Err(error) = router.submit(Pass::NODE, Command::Alarm(request)).await {
        tracing::warn!(%error, "the alarm for corrupt data could not be changed");
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
