//! `/api/cluster` and `/api/members`: the cluster as a whole, and each of its members.

use flotilla_core::proto::internal::{Member, NodeInfo};
use serde::Serialize;

use super::collect::Picture;
use super::{LOOK_EVERY, ROWS_MAX};
use crate::metrics::shown::{Role, Shown};
use crate::{ETCD_VERSION, api};

/// A member's id as everywhere: hexadecimal.
pub(super) fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// How people call a member: by its name where that tells it apart, else by its id.
pub(super) fn name(members: &[Member], id: u64) -> String {
    let member = members.iter().find(|member| member.id == id && !member.name.is_empty());
    let is_unique = |name: &str| members.iter().filter(|other| other.name == name).count() == 1;
    member.filter(|member| is_unique(&member.name)).map_or_else(|| hex(id), |it| it.name.clone())
}

/// `/api/cluster`. Ids are hexadecimal; what is not known is `null`.
#[derive(Debug, Serialize)]
pub(super) struct Cluster {
    cluster_id: String,
    /// Of the cluster, as in etcd; empty until it is decided.
    cluster_version: String,
    /// Of etcd, whose API is spoken.
    etcd_version: &'static str,
    /// The member that was asked.
    asked: Named,
    /// Of the spine.
    leader: Option<Named>,
    term: u64,
    revision: i64,
    compact_revision: i64,
    members_count: usize,
    /// Members that told how they stand.
    reached_count: usize,
    ranges_count: usize,
    leaderless_count: usize,
    changing_count: usize,
    /// The leader told of sizes and load: what is a sum below is of all ranges.
    is_surveyed: bool,
    bytes: u64,
    keys: u64,
    writes_per_second: u64,
    write_bytes_per_second: u64,
    reads_per_second: u64,
    lag_entries_max: u64,
    complaints_count: usize,
    alarms: Vec<Alarm>,
    is_auth_enabled: bool,
    /// When the cluster was looked at, in milliseconds since 1970, and how often it is.
    looked_ms: u64,
    look_every_ms: u64,
}

/// A member by id and name.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) name: String,
}

impl Named {
    pub(super) fn of(picture: &Picture, id: u64) -> Self {
        Self { id: hex(id), name: name(&picture.notice.members, id) }
    }
}

#[derive(Debug, Serialize)]
struct Alarm {
    member: Named,
    /// As in etcd's API.
    kind: String,
}

impl Cluster {
    pub(super) fn of(picture: &Picture, is_auth_enabled: bool) -> Self {
        let notice = &picture.notice;
        let surveys = || picture.survey.iter().flat_map(|survey| survey.ranges.values());
        let sum = |figure: fn(&flotilla_core::proto::internal::RangeSurvey) -> u64| {
            surveys().map(figure).fold(0, u64::saturating_add)
        };
        let alarms = notice.alarms.iter().take(ROWS_MAX).map(|(kind, member)| Alarm {
            member: Named::of(picture, *member),
            kind: api::alarm_name(*kind),
        });
        let leader = notice.status.leader.filter(|leader| leader.0 != 0);
        Self {
            cluster_id: hex(picture.cluster_id),
            cluster_version: notice.cluster_version.clone(),
            etcd_version: ETCD_VERSION,
            asked: Named::of(picture, picture.me),
            leader: leader.map(|leader| Named::of(picture, leader.0)),
            term: notice.status.term,
            revision: picture.head.revision,
            compact_revision: picture.head.compact_revision,
            members_count: notice.members.len(),
            reached_count: picture.seen.len(),
            ranges_count: notice.ranges.len(),
            leaderless_count: notice.ranges.iter().filter(|range| range.leader == 0).count(),
            changing_count: notice.ranges.iter().filter(|range| range.is_changing).count(),
            is_surveyed: picture.survey.is_some(),
            bytes: sum(|survey| survey.bytes),
            keys: sum(|survey| survey.keys),
            writes_per_second: sum(|survey| survey.writes_per_second),
            write_bytes_per_second: sum(|survey| survey.write_bytes_per_second),
            reads_per_second: sum(|survey| survey.reads_per_second),
            lag_entries_max: surveys().map(|survey| survey.lag_entries).max().unwrap_or(0),
            complaints_count: picture.survey.as_ref().map_or(0, |it| it.told.complaints.len()),
            alarms: alarms.collect(),
            is_auth_enabled,
            looked_ms: picture.time_ms,
            look_every_ms: u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// `/api/members`, in the order of their names.
#[derive(Debug, Serialize)]
pub(super) struct Members {
    members: Vec<MemberRow>,
    /// Members that are left out.
    more: usize,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    #[serde(flatten)]
    named: Named,
    is_asked: bool,
    /// Of the spine.
    is_leader: bool,
    is_learner: bool,
    is_draining: bool,
    /// It told how it stands.
    is_reached: bool,
    /// Of its program; `null` if it is not reached.
    version: Option<String>,
    client_urls: Vec<String>,
    alarms: Vec<String>,
    /// Ranges it holds, and those of them that it leads, as the asked member knows.
    replicas_count: usize,
    led_count: usize,
    /// What the leader knows of it.
    survey: Option<Node>,
    /// What it tells of itself, from the second look on.
    figures: Option<Figures>,
}

/// What the spine's leader knows of a member.
#[derive(Debug, Serialize)]
struct Node {
    zone: String,
    /// Since the leader heard of it.
    silent_ms: u64,
    /// Of the disk with its data; 0: not known.
    capacity_bytes: u64,
    used_bytes: u64,
    requests_per_second: u64,
    write_bytes_per_second: u64,
}

/// What a member tells of itself; see `metrics::shown::Shown`.
#[derive(Debug, Serialize)]
struct Figures {
    role: &'static str,
    puts_per_second: f64,
    reads_per_second: f64,
    calls_per_second: f64,
    failed_per_second: f64,
    pending: f64,
    flush_p99_ms: Option<f64>,
    request_p99_ms: Option<f64>,
    revision: f64,
    store_bytes: f64,
    store_used_bytes: f64,
    /// 0: no limit.
    quota_bytes: f64,
    memory_bytes: f64,
    /// Processors kept busy.
    cpus: f64,
}

impl Members {
    pub(super) fn of(picture: &Picture) -> Self {
        let mut members: Vec<&Member> = picture.notice.members.iter().collect();
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let more = members.len().saturating_sub(ROWS_MAX);
        let rows = members.into_iter().take(ROWS_MAX).map(|member| MemberRow::of(picture, member));
        Self { members: rows.collect(), more }
    }
}

impl MemberRow {
    fn of(picture: &Picture, member: &Member) -> Self {
        let (id, notice) = (member.id, &picture.notice);
        let seen = picture.seen.get(&id);
        let alarms = notice.alarms.iter().filter(|(_, of)| *of == id);
        let nodes = picture.survey.iter().flat_map(|survey| &survey.told.nodes);
        let ranges = || notice.ranges.iter();
        Self {
            named: Named::of(picture, id),
            is_asked: id == picture.me,
            is_leader: notice.status.leader.is_some_and(|leader| leader.0 == id),
            is_learner: member.is_learner,
            is_draining: member.is_draining,
            is_reached: seen.is_some(),
            version: seen.map(|seen| seen.version.clone()),
            client_urls: member.client_urls.clone(),
            alarms: alarms.map(|(kind, _)| api::alarm_name(*kind)).collect(),
            replicas_count: ranges().filter(|range| range.replicas.contains(&id)).count(),
            led_count: ranges().filter(|range| range.leader == id).count(),
            survey: nodes.into_iter().find(|node| node.node == id).map(Node::of),
            figures: seen.and_then(|seen| seen.shown.as_ref()).map(Figures::of),
        }
    }
}

impl Node {
    fn of(node: &NodeInfo) -> Self {
        Self {
            zone: node.zone.clone(),
            silent_ms: node.silent_ms,
            capacity_bytes: node.capacity_bytes,
            used_bytes: node.used_bytes,
            requests_per_second: node.requests_per_second,
            write_bytes_per_second: node.write_bytes_per_second,
        }
    }
}

impl Figures {
    fn of(shown: &Shown) -> Self {
        // The last bucket has no end: JSON has no word for that, and neither has the page.
        let ms = |seconds: Option<f64>| seconds.filter(|it| it.is_finite()).map(|it| it * 1e3);
        let role: Role = shown.role;
        Self {
            role: role.name(),
            puts_per_second: shown.puts_per_second,
            reads_per_second: shown.reads_per_second,
            calls_per_second: shown.calls_per_second,
            failed_per_second: shown.failed_per_second,
            pending: shown.pending,
            flush_p99_ms: ms(shown.flush_p99_seconds),
            request_p99_ms: ms(shown.request_p99_seconds),
            revision: shown.revision,
            store_bytes: shown.store_bytes,
            store_used_bytes: shown.store_used_bytes,
            quota_bytes: shown.quota_bytes,
            memory_bytes: shown.memory_bytes,
            cpus: shown.cpus,
        }
    }
}
