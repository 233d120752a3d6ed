//! Election: whoever is first under a name leads, and tells the others something.

use bytes::Bytes;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::mvccpb;
use flotilla_core::proto::mvccpb::event::EventType;
use flotilla_core::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use futures::{Stream, StreamExt, stream};
use pb::request_op::Request;
use tonic::Status;

use super::inside::{self, Answers, Inside};
use super::queue::{self, Waiter, as_unknown, made_at, op};

const NO_LEADER: &str = "election: no leader";
const NOT_LEADER: &str = "election: not leader";
const LEADER_MISSING: &str = "\"leader\" field must be provided";

/// Waits, however long, until the caller is elected. Who hangs up before has left the queue.
pub(super) async fn campaign(
    inside: Inside,
    request: CampaignRequest,
) -> Result<CampaignResponse, Status> {
    elected(inside, request).await.map_err(as_unknown)
}

async fn elected(inside: Inside, request: CampaignRequest) -> Result<CampaignResponse, Status> {
    let waiter = Waiter::new(inside, request.name, request.lease).await?;
    let standing = waiter.enter(request.value.clone()).await?;
    let leaving = waiter.leave_if_dropped();
    if standing.found.is_some_and(|found| found.value != request.value) {
        replace(&waiter, standing.create_revision, request.value).await?;
    }
    waiter.until_first(standing.create_revision).await?;
    leaving.stays();
    let leader = LeaderKey {
        name: waiter.name,
        key: waiter.key,
        rev: standing.create_revision,
        lease: waiter.lease,
    };
    Ok(CampaignResponse { header: standing.header, leader: Some(leader) })
}

pub(super) async fn proclaim(
    inside: Inside,
    request: ProclaimRequest,
) -> Result<ProclaimResponse, Status> {
    let (waiter, revision) = standing(inside, request.leader).await?;
    let header = replace(&waiter, revision, request.value).await.map_err(as_unknown)?;
    Ok(ProclaimResponse { header })
}

/// Gives the value of a key that is still the one it was.
async fn replace(
    waiter: &Waiter,
    create_revision: i64,
    value: Bytes,
) -> Result<Option<pb::ResponseHeader>, Status> {
    let put = pb::PutRequest {
        key: waiter.key.clone(),
        value,
        lease: waiter.lease,
        ..pb::PutRequest::default()
    };
    let answer = waiter
        .txn(pb::TxnRequest {
            compare: vec![made_at(&waiter.key, create_revision)],
            success: vec![op(Request::RequestPut(put))],
            failure: Vec::new(),
        })
        .await?;
    if answer.succeeded { Ok(answer.header) } else { Err(Status::unknown(NOT_LEADER)) }
}

/// Silent when the caller leads no more.
pub(super) async fn resign(
    inside: Inside,
    request: ResignRequest,
) -> Result<ResignResponse, Status> {
    let (waiter, revision) = standing(inside, request.leader).await?;
    let delete =
        pb::DeleteRangeRequest { key: waiter.key.clone(), ..pb::DeleteRangeRequest::default() };
    let request = pb::TxnRequest {
        compare: vec![made_at(&waiter.key, revision)],
        success: vec![op(Request::RequestDeleteRange(delete))],
        failure: Vec::new(),
    };
    let answer = waiter.txn(request).await.map_err(as_unknown)?;
    Ok(ResignResponse { header: answer.header })
}

/// The candidate as it says itself that it stands.
async fn standing(inside: Inside, leader: Option<LeaderKey>) -> Result<(Waiter, i64), Status> {
    let leader = leader.ok_or_else(|| Status::unknown(LEADER_MISSING))?;
    let waiter = Waiter::new(inside, leader.name, leader.lease).await.map_err(as_unknown)?;
    Ok((Waiter { key: leader.key, ..waiter }, leader.rev))
}

pub(super) async fn leader(
    inside: Inside,
    request: LeaderRequest,
) -> Result<LeaderResponse, Status> {
    let (header, kv) = queue::first(&inside, &request.name).await.map_err(as_unknown)?;
    match kv {
        Some(kv) => Ok(LeaderResponse { header, kv: Some(kv) }),
        None => Err(Status::unknown(NO_LEADER)),
    }
}

/// The leader, then each value it has, then the next leader. Ends only badly.
pub(super) fn observe(
    inside: Inside,
    request: LeaderRequest,
) -> impl Stream<Item = Result<LeaderResponse, Status>> + Send {
    let observer = Observer { inside, name: request.name, stage: Stage::Seeking };
    stream::try_unfold(observer, async |mut observer| {
        let seen = observer.next().await.map_err(as_unknown)?;
        Ok(Some((stream::iter(seen.into_iter().map(Ok)), observer)))
    })
    .flat_map(|seen| match seen {
        Ok(seen) => seen.left_stream(),
        Err(status) => stream::iter([Err(status)]).right_stream(),
    })
}

struct Observer {
    inside: Inside,
    name: Bytes,
    stage: Stage,
}

enum Stage {
    /// It is not known who leads.
    Seeking,
    /// Nobody does: the first key to come will.
    Waiting(Answers),
    /// This key's owner does.
    Following(Answers),
}

impl Observer {
    /// What was seen next, which may be nothing.
    async fn next(&mut self) -> Result<Vec<LeaderResponse>, Status> {
        match &mut self.stage {
            Stage::Seeking => {
                let (header, kv) = queue::first(&self.inside, &self.name).await?;
                let next = header.as_ref().map_or(0, |header| header.revision) + 1;
                match kv {
                    Some(kv) => {
                        self.follow(kv.key.clone(), next).await?;
                        Ok(vec![LeaderResponse { header, kv: Some(kv) }])
                    }
                    None => {
                        let all = queue::under(&self.name);
                        let answers =
                            queue::watch(&self.inside, all.key, all.range_end, next).await?;
                        self.stage = Stage::Waiting(answers);
                        Ok(Vec::new())
                    }
                }
            }
            Stage::Waiting(answers) => {
                let Some(answer) = events(answers).await? else {
                    self.stage = Stage::Seeking;
                    return Ok(Vec::new());
                };
                let put = |event: &&mvccpb::Event| event.r#type() == EventType::Put;
                let Some(kv) = answer.events.iter().find(put).and_then(|event| event.kv.clone())
                else {
                    return Ok(Vec::new());
                };
                self.follow(kv.key.clone(), kv.mod_revision + 1).await?;
                Ok(vec![at_its_revision(answer.header, kv)])
            }
            Stage::Following(answers) => {
                let answer = events(answers).await?;
                let events = answer.as_ref().map_or(&[][..], |answer| &answer.events);
                let is_put = |event: &&mvccpb::Event| event.r#type() == EventType::Put;
                let values: Vec<LeaderResponse> = events
                    .iter()
                    .take_while(is_put)
                    .filter_map(|event| event.kv.clone())
                    .map(|kv| at_its_revision(answer.as_ref().and_then(|it| it.header), kv))
                    .collect();
                if answer.is_none() || values.len() < events.len() {
                    self.stage = Stage::Seeking;
                }
                Ok(values)
            }
        }
    }

    async fn follow(&mut self, key: Bytes, start_revision: i64) -> Result<(), Status> {
        let answers = queue::watch(&self.inside, key, Bytes::new(), start_revision).await?;
        self.stage = Stage::Following(answers);
        Ok(())
    }
}

/// The next answer of a watch. `None` if it was cut short, as by a compaction.
async fn events(answers: &mut Answers) -> Result<Option<pb::WatchResponse>, Status> {
    let Some(answer) = answers.next().await? else { return Ok(None) };
    let answer: pb::WatchResponse = inside::decoded(&answer)?;
    Ok((!answer.canceled).then_some(answer))
}

/// One batch may have several values, each of its own revision.
fn at_its_revision(header: Option<pb::ResponseHeader>, kv: mvccpb::KeyValue) -> LeaderResponse {
    let header = header.map(|header| pb::ResponseHeader { revision: kv.mod_revision, ..header });
    LeaderResponse { header, kv: Some(kv) }
}
