//! What clients do and what placement does about it: `/api/watches`, `/api/leases`, `/api/hot` and
//! `/api/decisions`.

use flotilla_core::proto::internal::{ComplaintInfo, Decision, HotItem, HotResponse};
use flotilla_core::spine::state;
use serde::Serialize;

use super::ROWS_MAX;
use super::cluster::Named;
use super::collect::Picture;
use super::keyspace::shown;
use super::refusal::Refusal;
use crate::router::added_up;
use crate::store::Store;
use crate::supervise::fatal;

/// `/api/watches`: who watches, by the member that was asked to.
#[derive(Debug, Serialize)]
pub(super) struct Watches {
    members: Vec<WatchesOf>,
    /// Members that did not tell, or only once.
    silent_count: usize,
}

#[derive(Debug, Serialize)]
struct WatchesOf {
    #[serde(flatten)]
    named: Named,
    watch_streams: f64,
    watchers: f64,
    /// Watchers that are behind.
    slow_watchers: f64,
    events_per_second: f64,
}

impl Watches {
    pub(super) fn of(picture: &Picture) -> Self {
        let told = picture.seen.iter().filter_map(|(id, seen)| Some((*id, seen.shown.as_ref()?)));
        let mut members: Vec<WatchesOf> = told
            .take(ROWS_MAX)
            .map(|(id, shown)| WatchesOf {
                named: Named::of(picture, id),
                watch_streams: shown.watch_streams,
                watchers: shown.watchers,
                slow_watchers: shown.slow_watchers,
                events_per_second: shown.events_per_second,
            })
            .collect();
        members.sort_by(|a, b| a.named.name.cmp(&b.named.name));
        let silent_count = picture.notice.members.len().saturating_sub(members.len());
        Self { members, silent_count }
    }
}

/// `/api/leases`. Leases and their times are known to the spine's leader.
#[derive(Debug, Serialize)]
pub(super) struct Leases {
    /// False: the leader is not reached, and the rest says nothing.
    is_surveyed: bool,
    leases_count: u64,
    /// Those that end first.
    ending: Vec<Ending>,
    /// Leases that are left out.
    more: u64,
    /// What happened to leases since the leader's process began; `null` if it told only once.
    since_start: Option<LeaseCounts>,
}

#[derive(Debug, Serialize)]
struct Ending {
    /// Hexadecimal, as etcdctl shows it.
    lease: String,
    /// Below 0: it ought to have ended so long ago.
    seconds_left: i64,
    /// As granted.
    ttl_seconds: i64,
}

#[derive(Debug, Serialize)]
struct LeaseCounts {
    granted: f64,
    renewed: f64,
    revoked: f64,
    expired: f64,
}

impl Leases {
    pub(super) fn of(picture: &Picture) -> Self {
        let told = picture.survey.as_ref().map(|survey| &survey.told);
        let mut ending: Vec<Ending> = told
            .iter()
            .flat_map(|told| &told.leases_ending)
            .take(ROWS_MAX)
            .map(|end| Ending {
                lease: format!("{:016x}", end.lease),
                seconds_left: end.seconds_left,
                ttl_seconds: end.ttl_seconds,
            })
            .collect();
        ending.sort_by_key(|end| end.seconds_left);
        let leases_count = told.map_or(0, |told| told.leases_count);
        let leader = picture.notice.status.leader.and_then(|leader| picture.seen.get(&leader.0));
        let shown = leader.and_then(|leader| leader.shown.as_ref());
        Self {
            is_surveyed: told.is_some(),
            leases_count,
            more: leases_count.saturating_sub(ending.len() as u64),
            ending,
            since_start: shown.map(|shown| LeaseCounts {
                granted: shown.leases_granted,
                renewed: shown.leases_renewed,
                revoked: shown.leases_revoked,
                expired: shown.leases_expired,
            }),
        }
    }
}

/// `/api/hot`: what is asked for most, over all members that told. Of a sample of the calls of about the
/// last minute.
#[derive(Debug, Serialize)]
pub(super) struct HotNames {
    keys: Vec<HotName>,
    prefixes: Vec<HotName>,
    clients: Vec<HotName>,
    silent_count: usize,
}

#[derive(Debug, Serialize)]
struct HotName {
    /// Escaped.
    name: String,
    calls_per_second: f64,
    /// So much is surely its own; the rest may be of names that were forgotten.
    at_least_per_second: f64,
}

impl HotNames {
    pub(super) fn of(picture: &Picture) -> Self {
        let sums = |kind: fn(&HotResponse) -> &[HotItem]| -> Vec<HotName> {
            let items = picture.seen.values().flat_map(|seen| kind(&seen.hot));
            let sums = added_up(items).into_iter().take(ROWS_MAX);
            sums.map(|item| HotName {
                name: shown(&item.name),
                calls_per_second: item.per_second,
                at_least_per_second: item.per_second - item.uncertain_per_second,
            })
            .collect()
        };
        Self {
            keys: sums(|told| &told.keys),
            prefixes: sums(|told| &told.prefixes),
            clients: sums(|told| &told.clients),
            silent_count: picture.notice.members.len().saturating_sub(picture.seen.len()),
        }
    }
}

/// `/api/decisions`: what placement and operators had done, the newest first, and what placement cannot
/// help.
#[derive(Debug, Serialize)]
pub(super) struct Decisions {
    decisions: Vec<DecisionRow>,
    /// Decisions that are left out.
    more: usize,
    complaints: Vec<Complaint>,
    complaints_more: usize,
    /// False: complaints are known to the leader, which is not reached.
    is_surveyed: bool,
}

#[derive(Debug, Serialize)]
struct DecisionRow {
    /// Milliseconds since 1970.
    time_ms: u64,
    step: String,
    rule: String,
    reason: String,
    /// Empty while it is under way.
    outcome: String,
    ranges: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct Complaint {
    about: String,
    reason: String,
}

impl Decisions {
    /// # Errors
    /// `Stopping`.
    pub(super) async fn of(picture: &Picture, store: Store) -> Result<Self, Refusal> {
        let read = tokio::task::spawn_blocking(move || store.with_snapshot(state::decisions));
        // Only a node that stops drops the work; a panic has ended the process.
        let stored = read.await.map_err(|_| Refusal::Stopping)?;
        let mut decisions = stored.unwrap_or_else(|error| fatal(&error.to_string()));
        decisions.reverse();
        let more = decisions.len().saturating_sub(ROWS_MAX);
        let decisions = decisions.into_iter().take(ROWS_MAX).map(|decision| {
            let Decision { time_ms, step, rule, reason, outcome, ranges, .. } = decision;
            DecisionRow { time_ms, step, rule, reason, outcome, ranges }
        });
        let known = picture.survey.as_ref().map(|survey| &survey.told.complaints);
        let complaints = known.into_iter().flatten().take(ROWS_MAX);
        let complaints = complaints.cloned().map(|complaint| {
            let ComplaintInfo { about, reason } = complaint;
            Complaint { about, reason }
        });
        Ok(Self {
            decisions: decisions.collect(),
            more,
            complaints: complaints.collect(),
            complaints_more: known.map_or(0, |known| known.len().saturating_sub(ROWS_MAX)),
            is_surveyed: known.is_some(),
        })
    }
}
