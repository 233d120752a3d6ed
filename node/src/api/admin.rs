//! What an operator may ask beside etcd's API: the ranges, what placement does with them, and to cut
//! one, to merge two, to have one led elsewhere, or to have a member emptied. What an operator had
//! done is put on record like a decision of placement.

use flotilla_core::auth::Pass;
use flotilla_core::command::{Answer, Command};
use flotilla_core::proto::internal as pb;
use flotilla_core::spine::state;
use flotilla_core::{Error, GroupId, NodeId};
use flotilla_placement::units::Key;

use super::Context;
use crate::router::{Notice, expect_answer, on_record, owner};
use crate::supervise::fatal;

pub(super) async fn range_list(
    context: &Context,
    _: pb::RangeListRequest,
) -> Result<pb::RangeListResponse, Error> {
    let notice = context.board().notice();
    let named = |member: &pb::Member| pb::NodeInfo {
        node: member.id,
        name: member.name.clone(),
        is_draining: member.is_draining,
        ..pb::NodeInfo::default()
    };
    let members: Vec<pb::NodeInfo> = notice.members.iter().map(named).collect();
    let (leader_urls, mut ranges) = (leader_urls(&notice), notice.ranges.to_vec());
    Ok(context.board().overview().read(|overview| {
        for range in &mut ranges {
            range.survey = overview.ranges.get(&range.range).copied();
        }
        let is_surveyed = overview.is_surveyed;
        let nodes = if is_surveyed { overview.nodes.clone() } else { members };
        pb::RangeListResponse { ranges, is_surveyed, leader_urls, nodes }
    }))
}

/// Decisions as this node's store has them.
pub(super) async fn decisions(
    context: &Context,
    _: pb::DecisionsRequest,
) -> Result<pb::DecisionsResponse, Error> {
    let stored = context.store().with_snapshot(state::decisions);
    let decisions = stored.unwrap_or_else(|error| fatal(&error.to_string()));
    let leader_urls = leader_urls(&context.board().notice());
    Ok(context.board().overview().read(|overview| pb::DecisionsResponse {
        decisions,
        complaints: overview.complaints.clone(),
        is_surveyed: overview.is_surveyed,
        leader_urls,
    }))
}

/// Of the clients of this node.
pub(super) async fn hot(context: &Context, _: pb::HotRequest) -> Result<pb::HotResponse, Error> {
    Ok(context.board().usage().hot().told())
}

pub(super) async fn split(
    context: &Context,
    request: pb::SplitRequest,
) -> Result<pb::SplitAnswer, Error> {
    let parent = owner(&context.board().notice().ranges, &request.key);
    let step = format!("split range={parent} key={}", Key(&request.key));
    let answer = context.router.submit(Pass::NODE, Command::Split(request)).await?;
    record(context, &step, vec![parent]).await;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::Split(answer) => Some(answer),
        _ => None,
    }))
}

pub(super) async fn drain(
    context: &Context,
    request: pb::DrainRequest,
) -> Result<pb::DrainAnswer, Error> {
    let id = member(&context.board().notice(), &request.node)?;
    let drain = pb::MemberDrain { id, is_draining: request.is_draining };
    context.router.submit(Pass::NODE, Command::MemberDrain(drain)).await?;
    let what = if request.is_draining { "drain" } else { "undrain" };
    record(context, &format!("{what} node={}", request.node), Vec::new()).await;
    Ok(pb::DrainAnswer { node: id })
}

pub(super) async fn merge(
    context: &Context,
    request: pb::MergeRequest,
) -> Result<pb::MergeAnswer, Error> {
    let step = format!("merge left={} right={}", request.left, request.right);
    let ranges = vec![request.left, request.right];
    let answer = context.router.submit(Pass::NODE, Command::Merge(request)).await?;
    record(context, &step, ranges).await;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::Merge(answer) => Some(answer),
        _ => None,
    }))
}

/// Answers when it is decided.
pub(super) async fn move_replica(
    context: &Context,
    request: pb::MoveReplicaRequest,
) -> Result<pb::ReplicasAnswer, Error> {
    let notice = context.board().notice();
    let id = |name: &str| if name.is_empty() { Ok(0) } else { member(&notice, name) };
    let (add, remove) = (id(&request.add)?, id(&request.remove)?);
    let range = request.range;
    let command = Command::Replicas(pb::ReplicasRequest { range, add, remove });
    let answer = context.router.submit(Pass::NODE, command).await?;
    let step = format!("move_replica range={range} add={} remove={}", request.add, request.remove);
    record(context, &step, vec![range]).await;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::Replicas(answer) => Some(answer),
        _ => None,
    }))
}

pub(super) async fn want_replicas(
    context: &Context,
    request: pb::ReplicasWanted,
) -> Result<pb::ReplicasWantedAnswer, Error> {
    let step = format!("want_replicas count={}", request.count);
    let answer = context.router.submit(Pass::NODE, Command::ReplicasWanted(request)).await?;
    record(context, &step, Vec::new()).await;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::ReplicasWanted(answer) => Some(answer),
        _ => None,
    }))
}

/// Answers when this node knows the new leader.
pub(super) async fn transfer(
    context: &Context,
    request: pb::TransferRequest,
) -> Result<pb::TransferAnswer, Error> {
    let notice = context.board().notice();
    let node = member(&notice, &request.node)?;
    if notice.members.iter().any(|member| member.id == node && member.is_learner) {
        return Err(Error::BadLeaderTransferee);
    }
    let (range, within) = (GroupId(request.range), context.limits.request_timeout);
    context.router.transfer(range, NodeId(node), within).await?;
    let step = format!("transfer_leader range={range} to={}", request.node);
    record(context, &step, vec![request.range]).await;
    Ok(pb::TransferAnswer { node })
}

/// What is done is done, on record or not.
async fn record(context: &Context, step: &str, ranges: Vec<u64>) {
    let decision = on_record(step, "operator", "was asked for", ranges);
    let decision = pb::Decision { outcome: "done".to_owned(), ..decision };
    if let Err(error) = context.router.submit(Pass::NODE, Command::Decide(decision)).await {
        tracing::info!(step, error = error.text(), "what an operator did is not on record");
    }
}

/// A member by its name, or by its id in hexadecimal digits.
fn member(notice: &Notice, node: &str) -> Result<u64, Error> {
    let id = u64::from_str_radix(node, 16).ok();
    let is_meant = |member: &&pb::Member| member.name == node || Some(member.id) == id;
    let member = notice.members.iter().find(is_meant);
    member.map(|member| member.id).ok_or(Error::MemberNotFound)
}

fn leader_urls(notice: &Notice) -> Vec<String> {
    let leader = notice.status.leader.map_or(0, |leader| leader.0);
    let member = notice.members.iter().find(|member| member.id == leader);
    member.map(|member| member.client_urls.clone()).unwrap_or_default()
}
