//! What an operator may ask beside etcd's API: the ranges, to cut one, and to merge two.

use flotilla_core::Error;
use flotilla_core::command::{Answer, Command};
use flotilla_core::proto::internal as pb;

use super::Context;
use crate::router::expect_answer;

pub(super) async fn range_list(
    context: &Context,
    _: pb::RangeListRequest,
) -> Result<pb::RangeListResponse, Error> {
    Ok(pb::RangeListResponse { ranges: context.board().notice().ranges })
}

pub(super) async fn split(
    context: &Context,
    request: pb::SplitRequest,
) -> Result<pb::SplitAnswer, Error> {
    let answer = context.router.submit(Command::Split(request)).await?;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::Split(answer) => Some(answer),
        _ => None,
    }))
}

pub(super) async fn merge(
    context: &Context,
    request: pb::MergeRequest,
) -> Result<pb::MergeAnswer, Error> {
    let answer = context.router.submit(Command::Merge(request)).await?;
    Ok(expect_answer(answer, |answer| match answer {
        Answer::Merge(answer) => Some(answer),
        _ => None,
    }))
}
