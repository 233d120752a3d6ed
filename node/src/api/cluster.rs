//! Cluster: its members. Headers here have no revision.

use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_core::Error;
use flotilla_core::auth::Pass;
use flotilla_core::command::{Answer, Command};
use flotilla_core::membership::identity::added_member_id;
use flotilla_core::membership::url::Url;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::internal;

use super::guard::Client;
use super::{Context, header};
use crate::metrics::upstream;
use crate::router::expect_answer;

pub(super) async fn add(
    context: &Context,
    client: &Client,
    request: pb::MemberAddRequest,
) -> Result<pb::MemberAddResponse, Error> {
    let peer_urls = peer_urls(&request.peer_ur_ls)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let id = added_member_id(&peer_urls, i64::try_from(now).unwrap_or(i64::MAX)).0;
    let is_learner = request.is_learner;
    let member = internal::Member { id, peer_urls, is_learner, ..internal::Member::default() };
    let answer = client.submit(context, Pass::NODE, Command::MemberAdd(member)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::MemberAdd(answer) => Some(answer),
        _ => None,
    });
    answer.header = Some(header::without_revision(context));
    Ok(answer)
}

pub(super) async fn remove(
    context: &Context,
    client: &Client,
    request: pb::MemberRemoveRequest,
) -> Result<pb::MemberRemoveResponse, Error> {
    let answer = client.submit(context, Pass::NODE, Command::MemberRemove(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::MemberRemove(answer) => Some(answer),
        _ => None,
    });
    answer.header = Some(header::without_revision(context));
    Ok(answer)
}

/// The addresses are taken as they are: etcd does not look at them here.
pub(super) async fn update(
    context: &Context,
    client: &Client,
    request: pb::MemberUpdateRequest,
) -> Result<pb::MemberUpdateResponse, Error> {
    let answer = client.submit(context, Pass::NODE, Command::MemberUpdate(request)).await?;
    let mut answer = expect_answer(answer, |answer| match answer {
        Answer::MemberUpdate(answer) => Some(answer),
        _ => None,
    });
    answer.header = Some(header::without_revision(context));
    Ok(answer)
}

pub(super) async fn promote(
    context: &Context,
    client: &Client,
    request: pb::MemberPromoteRequest,
) -> Result<pb::MemberPromoteResponse, Error> {
    let answer = client.submit(context, Pass::NODE, Command::MemberPromote(request)).await;
    upstream::promotion(answer.as_ref().map(|_| ()).map_err(|error| error.text()));
    let mut answer = expect_answer(answer?, |answer| match answer {
        Answer::MemberPromote(answer) => Some(answer),
        _ => None,
    });
    answer.header = Some(header::without_revision(context));
    Ok(answer)
}

pub(super) async fn list(
    context: &Context,
    client: &Client,
    request: pb::MemberListRequest,
) -> Result<pb::MemberListResponse, Error> {
    if request.linearizable {
        client.ticket(context).await?;
    }
    let members = context.board().notice().members.iter().map(member).collect();
    Ok(pb::MemberListResponse { header: Some(header::without_revision(context)), members })
}

fn member(member: &internal::Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}

/// The addresses of a member to be added, in order.
fn peer_urls(texts: &[String]) -> Result<Vec<String>, Error> {
    if texts.is_empty() {
        return Err(Error::MemberBadUrls);
    }
    let urls: Result<Vec<_>, _> = texts.iter().map(|text| Url::parse(text)).collect();
    let urls = urls.map_err(|_| Error::MemberBadUrls)?;
    let mut urls: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
    urls.sort_unstable();
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_trimmed_and_sorted() {
        let given = [" http://b:1".to_owned(), "HTTP://a:2".to_owned()];
        assert_eq!(peer_urls(&given).unwrap(), ["http://a:2", "http://b:1"]);
        for bad in [&[][..], &["a:1".to_owned()], &["http://a".to_owned()]] {
            assert_eq!(peer_urls(bad), Err(Error::MemberBadUrls));
        }
    }
}
