//! Maintenance, without Snapshot.

use std::ops::{Bound, ControlFlow};
use std::time::Instant;

use flotilla_core::auth::Pass;
use flotilla_core::command::{Answer, Command};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::etcdserverpb::alarm_request::AlarmAction;
use flotilla_core::proto::etcdserverpb::downgrade_request::DowngradeAction;
use flotilla_core::view::{Column, View, ViewError};
use flotilla_core::{Error, mvcc};

use super::guard::{Client, Guard};
use super::{Context, header, history, read};
use crate::metrics::upstream;
use crate::router::expect_answer;
use crate::supervise::fatal;
use crate::{CLUSTER_VERSION, ETCD_VERSION, metrics};

pub(super) async fn status(
    context: &Context,
    _: pb::StatusRequest,
) -> Result<pb::StatusResponse, Error> {
    let board = context.board();
    let notice = board.notice();
    let sizes = context.store().sizes();
    let sizes = sizes.unwrap_or_else(|error| fatal(&format!("the store has no size: {error}")));
    let mut errors = Vec::new();
    if board.leader() == 0 {
        errors.push(Error::NoLeader.text().to_owned());
    }
    for (kind, member) in &notice.alarms {
        errors.push(format!("memberID:{member} alarm:{}", alarm_name(*kind)));
    }
    Ok(pb::StatusResponse {
        header: header::complete(context, None),
        version: ETCD_VERSION.to_owned(),
        db_size: bytes(sizes.total),
        leader: board.leader(),
        raft_index: board.commit_index(),
        raft_term: board.term(),
        raft_applied_index: board.applied_index(),
        errors,
        db_size_in_use: bytes(sizes.in_use),
        is_learner: board.is_learner(),
        storage_version: CLUSTER_VERSION.to_owned(),
        db_size_quota: bytes(context.config.quota_backend_bytes.unwrap_or(0)),
        downgrade_info: Some(pb::DowngradeInfo::default()),
    })
}

pub(super) async fn alarm(
    context: &Context,
    client: &Client,
    request: pb::AlarmRequest,
) -> Result<pb::AlarmResponse, Error> {
    let is_asking = request.action == AlarmAction::Get as i32;
    client.admit(context, if is_asking { Guard::User } else { Guard::Root }).await?;
    let mut answer = match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => active_alarms(context, client, request.alarm).await?,
        Ok(AlarmAction::Activate | AlarmAction::Deactivate) => {
            let answer = client.submit(context, Pass::NODE, Command::Alarm(request)).await?;
            expect_answer(answer, |answer| match answer {
                Answer::Alarm(answer) => Some(answer),
                _ => None,
            })
        }
        Err(_) => return Err(Error::UnknownMethod),
    };
    answer.header = header::complete(context, answer.header);
    Ok(answer)
}

/// The alarms of one kind, or all if none is named.
async fn active_alarms(
    context: &Context,
    client: &Client,
    kind: i32,
) -> Result<pb::AlarmResponse, Error> {
    client.ticket(context).await?;
    let alarms = context.board().notice().alarms;
    let is_wanted = |alarm: &(i32, u64)| kind == pb::AlarmType::None as i32 || alarm.0 == kind;
    let alarms = alarms
        .into_iter()
        .filter(is_wanted)
        .map(|(alarm, member_id)| pb::AlarmMember { member_id, alarm })
        .collect();
    Ok(pb::AlarmResponse { header: None, alarms })
}

/// The name of a kind of alarm in etcd's API.
pub fn alarm_name(kind: i32) -> String {
    match pb::AlarmType::try_from(kind) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => kind.to_string(),
    }
}

/// Gives space back while the store stays in use.
pub(super) async fn defragment(
    context: &Context,
    _: pb::DefragmentRequest,
) -> Result<pb::DefragmentResponse, Error> {
    let began = Instant::now();
    metrics::defrag_inflight(1.0);
    let compacted = read::elsewhere(context.store(), |store| Ok(store.compact_space())).await;
    metrics::defrag_inflight(-1.0);
    ::metrics::histogram!(upstream::DEFRAG_SECONDS).record(began.elapsed());
    match compacted {
        Ok(Ok(())) => {
            tracing::info!(took_ms = began.elapsed().as_millis(), "gave space back");
            Ok(pb::DefragmentResponse { header: None })
        }
        Ok(Err(error)) => fatal(&format!("the store cannot give space back: {error}")),
        Err(_) => Err(Error::Stopped),
    }
}

/// A checksum over the rows of this member. Members that hold the same differ while one has
/// removed more of what a compaction made useless.
pub(super) async fn hash(context: &Context, _: pb::HashRequest) -> Result<pb::HashResponse, Error> {
    let began = Instant::now();
    let hash =
        read::elsewhere(context.store(), |store| Ok(store.with_snapshot(|view| hash_rows(view))?))
            .await;
    ::metrics::histogram!(upstream::HASH_SECONDS).record(began.elapsed());
    let hash = hash.map_err(|failure| read::refusal(failure, Error::Stopped))?;
    Ok(pb::HashResponse { header: header::complete(context, None), hash })
}

fn hash_rows(view: &dyn View) -> Result<u32, ViewError> {
    let mut crc = 0;
    // Column Meta has what differs between members that hold the same.
    for column in [Column::Key, Column::Revision, Column::History, Column::LeaseKey] {
        view.scan(column, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            crc = crc32c::crc32c_append(crc, &(key.len() as u64).to_be_bytes());
            crc = crc32c::crc32c_append(crc, key);
            crc = crc32c::crc32c_append(crc, value);
            ControlFlow::Continue(())
        })?;
    }
    Ok(crc)
}

pub(super) async fn hash_kv(
    context: &Context,
    request: pb::HashKvRequest,
) -> Result<pb::HashKvResponse, Error> {
    let (store, revision) = (context.store(), request.revision);
    let began = Instant::now();
    let here = |head| {
        read::elsewhere(store, move |store| {
            let hash = store.with_snapshot(|view| mvcc::hash_kv(view, head, revision))?;
            Ok((head, hash))
        })
    };
    let others = || history::hash_kv(context, revision);
    let hashed = read::attempt(context, context.board().head(), here, others).await;
    let answer = hashed.map(|(head, hash)| pb::HashKvResponse {
        header: header::complete(context, None),
        hash,
        compact_revision: head.compact_revision,
        hash_revision: if revision == 0 { head.revision } else { revision },
    });
    ::metrics::histogram!(upstream::HASH_KV_SECONDS).record(began.elapsed());
    answer
}

pub(super) async fn move_leader(
    context: &Context,
    client: &Client,
    request: pb::MoveLeaderRequest,
) -> Result<pb::MoveLeaderResponse, Error> {
    if context.board().leader() != context.board().member_id() {
        return Err(Error::NotLeader);
    }
    let answer = client.submit(context, Pass::NODE, Command::MoveLeader(request)).await?;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::MoveLeader(answer) => Some(answer),
        _ => None,
    }))
}

/// There is no older version of this store to go back to, so every target is a wrong one.
pub(super) async fn downgrade(
    context: &Context,
    request: pb::DowngradeRequest,
) -> Result<pb::DowngradeResponse, Error> {
    let action = DowngradeAction::try_from(request.action).map_err(|_| Error::UnknownMethod)?;
    let cluster_version = context.board().notice().cluster_version;
    match action {
        DowngradeAction::Validate | DowngradeAction::Enable => {
            if !is_version(&request.version) {
                Err(Error::WrongDowngradeVersionFormat)
            } else if cluster_version.is_empty() {
                Err(Error::ClusterVersionUnavailable)
            } else {
                Err(Error::InvalidDowngradeTargetVersion)
            }
        }
        DowngradeAction::Cancel => Ok(pb::DowngradeResponse {
            header: header::complete(context, None),
            version: major_and_minor(&cluster_version).to_owned(),
        }),
    }
}

/// Two or three numbers with dots between them.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| {
        !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    matches!(text.split('.').count(), 2 | 3) && text.split('.').all(is_number)
}

fn major_and_minor(version: &str) -> &str {
    let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
    &version[..end]
}

/// As the API has sizes: signed.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_two_or_three_numbers() {
        for good in ["3.6", "3.6.0", "10.20.30"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "3", "3.", ".6", "3.6.0.1", "3.x", "v3.6", "3.6.-1", "3.9999999999"] {
            assert!(!is_version(bad), "{bad}");
        }
        assert_eq!(major_and_minor("3.7.0"), "3.7");
        assert_eq!(major_and_minor("3.7"), "3.7");
        assert_eq!(major_and_minor(""), "");
    }

    #[test]
    fn alarms_have_etcds_names() {
        assert_eq!(alarm_name(1), "NOSPACE");
        assert_eq!(alarm_name(2), "CORRUPT");
        assert_eq!(alarm_name(77), "77", "a kind that is not known");
    }
}
