//! Who is first among those that wait under a name: the recipe that locks and elections share with
//! etcd's clients. A waiter's key is `NAME/LEASE`, with the lease in hex; the oldest of the keys under
//! `NAME/` is first, and a key goes with its lease. Clients that follow the recipe by themselves, as
//! `etcdctl lock` does, and callers of these services exclude each other.

use bytes::Bytes;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::mvccpb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request;
use pb::response_op::Response;
use pb::watch_request::RequestUnion;
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use super::Method;
use super::inside::{self, Answers, Inside};

/// Seconds that a lease lives which nobody brought.
const LEASE_TTL_SECONDS: i64 = 60;

/// A waiter, which may be first.
pub(super) struct Waiter {
    pub(super) inside: Inside,
    pub(super) name: Bytes,
    pub(super) lease: i64,
    pub(super) key: Bytes,
}

/// A waiter's key as it was when it asked.
pub(super) struct Standing {
    pub(super) header: Option<pb::ResponseHeader>,
    /// Revision at which the key was made: the place in the queue, and the fencing token.
    pub(super) create_revision: i64,
    /// What the key had before, if it was there.
    pub(super) found: Option<mvccpb::KeyValue>,
    /// No older key was there.
    pub(super) is_first: bool,
}

impl Waiter {
    /// A waiter under `name` with a lease, which is granted if it is 0.
    pub(super) async fn new(inside: Inside, name: Bytes, lease: i64) -> Result<Self, Status> {
        let lease = if lease == 0 { grant(&inside).await? } else { lease };
        let key = [&name[..], b"/", format!("{lease:x}").as_bytes()].concat().into();
        Ok(Self { inside, name, lease, key })
    }

    /// Puts the key there, unless it is there already.
    pub(super) async fn enter(&self, value: Bytes) -> Result<Standing, Status> {
        let put = pb::PutRequest {
            key: self.key.clone(),
            value,
            lease: self.lease,
            ..pb::PutRequest::default()
        };
        let get = pb::RangeRequest { key: self.key.clone(), ..pb::RangeRequest::default() };
        let first = || op(Request::RequestRange(oldest(&self.name)));
        let answer = self
            .txn(pb::TxnRequest {
                compare: vec![made_at(&self.key, 0)],
                success: vec![op(Request::RequestPut(put)), first()],
                failure: vec![op(Request::RequestRange(get)), first()],
            })
            .await?;
        let mut found = answer.responses.into_iter().map(|response| match response.response {
            Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        let (found, first) = (found.next().flatten(), found.next().flatten());
        let own = answer.header.as_ref().map_or(0, |header| header.revision);
        let create_revision = found.as_ref().map_or(own, |found| found.create_revision);
        let is_first = first.is_some_and(|first| first.create_revision == create_revision);
        Ok(Standing { header: answer.header, create_revision, found, is_first })
    }

    /// Waits until no key under the name is older.
    pub(super) async fn until_first(&self, create_revision: i64) -> Result<(), Status> {
        loop {
            let range = pb::RangeRequest {
                limit: 1,
                sort_order: SortOrder::Descend as i32,
                sort_target: SortTarget::Create as i32,
                max_create_revision: create_revision - 1,
                ..under(&self.name)
            };
            // Nothing has a revision below 1, and no limit at all would be 0.
            if range.max_create_revision < 1 {
                return Ok(());
            }
            let answer: pb::RangeResponse = self.inside.call(Method::Range, &range).await?;
            let Some(before) = answer.kvs.into_iter().next() else { return Ok(()) };
            let seen = answer.header.map_or(0, |header| header.revision);
            self.until_gone(before.key, seen + 1).await?;
        }
    }

    /// Waits until a key is deleted, from a revision on. A watch that is cut short, as by a
    /// compaction, ends the wait: who asks looks again.
    async fn until_gone(&self, key: Bytes, start_revision: i64) -> Result<(), Status> {
        let mut watching = watch(&self.inside, key, Bytes::new(), start_revision).await?;
        while let Some(answer) = watching.next().await? {
            let answer: pb::WatchResponse = inside::decoded(&answer)?;
            let is_delete =
                |event: &mvccpb::Event| event.r#type() == mvccpb::event::EventType::Delete;
            if answer.canceled || answer.events.iter().any(is_delete) {
                return Ok(());
            }
        }
        Err(Status::unknown("lost watcher waiting for delete"))
    }

    /// Deletes the key when the caller has gone before it was first. Must be kept until then.
    pub(super) fn leave_if_dropped(&self) -> Leaving {
        Leaving(Some((self.inside.clone(), self.key.clone())))
    }

    pub(super) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.inside.call(Method::Txn, &request).await
    }
}

/// A key that nobody waits for any more when this is dropped.
pub(super) struct Leaving(Option<(Inside, Bytes)>);

impl Leaving {
    /// The caller was first: the key stays.
    pub(super) fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some((inside, key)) = self.0.take() {
            // A node that stops has nobody to do it.
            let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
            runtime.spawn(async move {
                if let Err(status) = delete(&inside, key).await {
                    // It goes with its lease.
                    tracing::warn!(%status, "the key of a waiter that has gone was not deleted");
                }
            });
        }
    }
}

/// Etcd's services hand on what went wrong inside of them without its code.
pub(super) fn as_unknown(status: Status) -> Status {
    Status::new(Code::Unknown, status.message())
}

pub(super) async fn delete(inside: &Inside, key: Bytes) -> Result<pb::DeleteRangeResponse, Status> {
    let request = pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() };
    inside.call(Method::DeleteRange, &request).await
}

/// The oldest key under a name, and the header of the answer.
pub(super) async fn first(
    inside: &Inside,
    name: &[u8],
) -> Result<(Option<pb::ResponseHeader>, Option<mvccpb::KeyValue>), Status> {
    let answer: pb::RangeResponse = inside.call(Method::Range, &oldest(name)).await?;
    Ok((answer.header, answer.kvs.into_iter().next()))
}

fn oldest(name: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..under(name)
    }
}

/// Opens a watch of a span, or of a key when `range_end` is empty.
pub(super) async fn watch(
    inside: &Inside,
    key: Bytes,
    range_end: Bytes,
    start_revision: i64,
) -> Result<Answers, Status> {
    let create = pb::WatchCreateRequest {
        key,
        range_end,
        start_revision,
        ..pb::WatchCreateRequest::default()
    };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let request = inside::frame(&request.encode_to_vec());
    inside.stream(Method::Watch, Body::new(http_body_util::Full::new(request))).await
}

/// All keys under a name, and the end of their span.
pub(super) fn under(name: &[u8]) -> pb::RangeRequest {
    let key: Bytes = [name, b"/"].concat().into();
    // The byte that follows the slash.
    let range_end = [name, b"0"].concat().into();
    pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() }
}

/// That a key was made at a revision, 0 for a key that is not there.
pub(super) fn made_at(key: &Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..pb::Compare::default()
    }
}

pub(super) fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

async fn grant(inside: &Inside) -> Result<i64, Status> {
    let request = pb::LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id: 0 };
    let answer: pb::LeaseGrantResponse = inside.call(Method::LeaseGrant, &request).await?;
    Ok(answer.id)
}
