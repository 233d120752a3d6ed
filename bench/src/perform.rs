//! Carries out operations on one connection, one at a time, and checks their answers.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::request_op::Request;
use flotilla_proto::etcdserverpb::response_op::Response;
use flotilla_proto::{v3electionpb, v3lockpb};
use prost::Message;

use crate::check::Check;
use crate::decode;
use crate::operation::{Answer, Op, Span};
use crate::wire::{Channel, Code, Method, Status, Stream};

/// One slot's hold on the store.
pub struct Performer {
    channel: Arc<Channel>,
    check: Arc<Check>,
    /// The newest revision any linearizable answer to this slot showed.
    newest: i64,
    buffer: Vec<u8>,
    keep_alive: Option<Stream>,
}

impl Performer {
    /// Operations go to `channel`; wrong answers are told to `check`.
    #[must_use]
    pub fn new(channel: Arc<Channel>, check: Arc<Check>) -> Self {
        Self { channel, check, newest: 0, buffer: Vec::new(), keep_alive: None }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// The status of the call that failed.
    pub async fn perform(&mut self, op: &Op) -> Result<Answer, Status> {
        match op {
            Op::Put { key, value_bytes, lease } => self.put(key, *value_bytes, *lease).await,
            Op::Get { key, is_serializable } => self.get(key, *is_serializable).await,
            Op::List(span) => self.list(span).await,
            Op::ListStream(span) => self.list_stream(span).await,
            Op::Count(span) => self.count(span).await,
            Op::Cas { key, mod_revision, value_bytes, lease } => {
                self.cas(key, *mod_revision, *value_bytes, *lease).await
            }
            Op::TxnPut { keys, value_bytes } => self.txn_put(keys, *value_bytes).await,
            Op::TxnRange(span) => self.txn_range(span).await,
            Op::Update { key, value_bytes } => {
                let read = self.get(key, false).await?;
                self.cas(key, read.mod_revision, *value_bytes, 0).await
            }
            Op::Delete { key } => {
                self.check.forget(key);
                let request = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
                let answer: pb::DeleteRangeResponse =
                    self.call(Method::DeleteRange, &request).await?;
                Ok(Answer { keys: answer.deleted as u64, ..self.revised(answer.header) })
            }
            Op::Compact { keep } => {
                let request = pb::CompactionRequest {
                    revision: (self.newest - keep).max(1),
                    physical: false,
                };
                let answer: pb::CompactionResponse = self.call(Method::Compact, &request).await?;
                Ok(self.revised(answer.header))
            }
            Op::Grant { .. } | Op::Revoke { .. } | Op::KeepAlive { .. } => self.lease(op).await,
            Op::Lock { .. } | Op::Unlock { .. } | Op::Campaign { .. } | Op::Resign { .. } => {
                self.contend(op).await
            }
        }
    }

    async fn call<A: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<A, Status> {
        Ok(self.call_sized(method, request).await?.0)
    }

    async fn call_sized<A: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<(A, u64), Status> {
        let bytes = self.call_raw(method, request).await?;
        let length = bytes.len() as u64;
        Ok((A::decode(bytes).map_err(|error| malformed(&error))?, length))
    }

    async fn call_raw(&mut self, method: Method, request: &impl Message) -> Result<Bytes, Status> {
        self.buffer.clear();
        request.encode(&mut self.buffer).map_err(|error| malformed(&error))?;
        self.channel.unary(method, &self.buffer).await
    }

    /// The answer to a write, which must be newer than everything this slot saw.
    fn written(&mut self, header: Option<pb::ResponseHeader>) -> Answer {
        let revision = header.map_or(0, |header| header.revision);
        if revision <= self.newest {
            let newest = self.newest;
            self.check.wrong(|| format!("a write got revision {revision} after {newest} was seen"));
        }
        self.newest = self.newest.max(revision);
        Answer { revision, mod_revision: revision, ..Answer::default() }
    }

    /// The answer to a linearizable request, which must not be older than what this slot saw.
    fn revised(&mut self, header: Option<pb::ResponseHeader>) -> Answer {
        let revision = header.map_or(0, |header| header.revision);
        self.seen(revision);
        Answer { revision, ..Answer::default() }
    }

    fn seen(&mut self, revision: i64) {
        if revision < self.newest {
            let newest = self.newest;
            self.check
                .wrong(|| format!("an answer at revision {revision} after {newest} was seen"));
        }
        self.newest = self.newest.max(revision);
    }

    async fn put(&mut self, key: &Bytes, bytes: usize, lease: i64) -> Result<Answer, Status> {
        if lease != 0 {
            self.check.forget(key);
        }
        let (value, sequence) = self.check.value(key, bytes);
        let request =
            pb::PutRequest { key: key.clone(), value: value.into(), lease, ..Default::default() };
        let answer: pb::PutResponse = self.call(Method::Put, &request).await?;
        let answer = self.written(answer.header);
        self.check.on_written(key, sequence, answer.revision);
        Ok(answer)
    }

    async fn get(&mut self, key: &Bytes, is_serializable: bool) -> Result<Answer, Status> {
        let floor = if is_serializable { None } else { self.check.floor(key) };
        let request = pb::RangeRequest {
            key: key.clone(),
            serializable: is_serializable,
            ..Default::default()
        };
        let (answer, bytes): (pb::RangeResponse, u64) =
            self.call_sized(Method::Range, &request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if !is_serializable {
            self.seen(revision);
        }
        let found = answer.kvs.first();
        let pair = found.map(|pair| (pair.mod_revision, &pair.value[..]));
        self.check.on_read(key, floor, pair, revision);
        let mod_revision = found.map_or(0, |pair| pair.mod_revision);
        let keys = answer.kvs.len() as u64;
        Ok(Answer { revision, keys, mod_revision, bytes, ..Answer::default() })
    }

    fn judge_list(&mut self, span: &Span, summary: decode::RangeSummary, bytes: u64) -> Answer {
        if !span.is_serializable {
            self.seen(summary.revision);
        }
        if !summary.is_ascending {
            self.check.wrong(|| "a list whose keys do not ascend".into());
        }
        if let Some(expected) = span.expected_count {
            let wanted = if span.limit > 0 { expected.min(span.limit) } else { expected } as u64;
            if summary.count != expected || summary.keys != wanted {
                let (keys, count) = (summary.keys, summary.count);
                self.check.wrong(|| format!("{keys} of {count} keys, not {wanted} of {expected}"));
            }
        }
        Answer { revision: summary.revision, keys: summary.keys, bytes, ..Answer::default() }
    }

    async fn list(&mut self, span: &Span) -> Result<Answer, Status> {
        let bytes = self.call_raw(Method::Range, &range_request(span)).await?;
        let summary = decode::range_response(&bytes).ok_or_else(|| malformed(&"range"))?;
        Ok(self.judge_list(span, summary, bytes.len() as u64))
    }

    async fn list_stream(&mut self, span: &Span) -> Result<Answer, Status> {
        let mut stream = self.channel.stream(Method::RangeStream).await?;
        stream.send(&range_request(span).encode_to_vec());
        stream.finish();
        let mut total = decode::RangeSummary { is_ascending: true, ..Default::default() };
        let mut bytes = 0;
        while let Some(message) = stream.next().await? {
            let piece = decode::range_stream_response(&message)
                .and_then(decode::range_response)
                .ok_or_else(|| malformed(&"range stream"))?;
            bytes += message.len() as u64;
            total.keys += piece.keys;
            total.is_ascending &= piece.is_ascending;
            total.revision = total.revision.max(piece.revision);
            total.count = total.count.max(piece.count);
        }
        Ok(self.judge_list(span, total, bytes))
    }

    async fn count(&mut self, span: &Span) -> Result<Answer, Status> {
        let request = pb::RangeRequest { count_only: true, limit: 0, ..range_request(span) };
        let answer: pb::RangeResponse = self.call(Method::Range, &request).await?;
        if let Some(expected) = span.expected_count
            && answer.count != expected
        {
            let count = answer.count;
            self.check.wrong(|| format!("a count of {count}, not {expected}"));
        }
        Ok(Answer { keys: answer.count as u64, ..self.revised(answer.header) })
    }

    async fn cas(
        &mut self,
        key: &Bytes,
        mod_revision: i64,
        bytes: usize,
        lease: i64,
    ) -> Result<Answer, Status> {
        if lease != 0 {
            self.check.forget(key);
        }
        let floor = self.check.floor(key);
        let (value, sequence) = self.check.value(key, bytes);
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(mod_revision)),
            ..Default::default()
        };
        let put =
            pb::PutRequest { key: key.clone(), value: value.into(), lease, ..Default::default() };
        let read = pb::RangeRequest { key: key.clone(), ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
            failure: vec![pb::RequestOp { request: Some(Request::RequestRange(read)) }],
        };
        let answer: pb::TxnResponse = self.call(Method::Txn, &request).await?;
        if answer.succeeded {
            let answer = self.written(answer.header);
            if let Some(floor) = floor
                && floor.revision > mod_revision
            {
                self.check.wrong(|| {
                    let newest = floor.revision;
                    format!("a swap from {mod_revision} succeeded after {newest} was written")
                });
            }
            self.check.on_written(key, sequence, answer.revision);
            return Ok(Answer { succeeded: true, ..answer });
        }
        let revised = self.revised(answer.header);
        let Some(Response::ResponseRange(read)) =
            answer.responses.into_iter().next().and_then(|op| op.response)
        else {
            return Err(malformed(&"the branch that reads has no answer"));
        };
        let found = read.kvs.first();
        let pair = found.map(|pair| (pair.mod_revision, &pair.value[..]));
        self.check.on_read(key, floor, pair, revised.revision);
        let mod_revision = found.map_or(0, |pair| pair.mod_revision);
        Ok(Answer { mod_revision, ..revised })
    }

    async fn txn_put(&mut self, keys: &[Bytes], bytes: usize) -> Result<Answer, Status> {
        let mut sequences = Vec::with_capacity(keys.len());
        let mut success = Vec::with_capacity(keys.len());
        for key in keys {
            let (value, sequence) = self.check.value(key, bytes);
            sequences.push(sequence);
            let put =
                pb::PutRequest { key: key.clone(), value: value.into(), ..Default::default() };
            success.push(pb::RequestOp { request: Some(Request::RequestPut(put)) });
        }
        let request = pb::TxnRequest { success, ..Default::default() };
        let answer: pb::TxnResponse = self.call(Method::Txn, &request).await?;
        if !answer.succeeded {
            self.check.wrong(|| "a transaction without conditions did not succeed".into());
        }
        let answer = self.written(answer.header);
        for (key, sequence) in keys.iter().zip(sequences) {
            self.check.on_written(key, sequence, answer.revision);
        }
        Ok(answer)
    }

    async fn txn_range(&mut self, span: &Span) -> Result<Answer, Status> {
        let read = pb::RequestOp { request: Some(Request::RequestRange(range_request(span))) };
        let request = pb::TxnRequest { success: vec![read], ..Default::default() };
        let (answer, bytes): (pb::TxnResponse, u64) =
            self.call_sized(Method::Txn, &request).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if !span.is_serializable {
            self.seen(revision);
        }
        Ok(Answer { revision, bytes, ..Answer::default() })
    }

    async fn lease(&mut self, op: &Op) -> Result<Answer, Status> {
        match op {
            Op::Grant { ttl_secs } => {
                let request = pb::LeaseGrantRequest { ttl: *ttl_secs, id: 0 };
                let answer: pb::LeaseGrantResponse =
                    self.call(Method::LeaseGrant, &request).await?;
                if answer.id == 0 || answer.ttl < *ttl_secs {
                    self.check.wrong(|| format!("lease {} with TTL {}", answer.id, answer.ttl));
                }
                Ok(Answer { lease: answer.id, ..Answer::default() })
            }
            Op::Revoke { lease } => {
                let request = pb::LeaseRevokeRequest { id: *lease };
                let _: pb::LeaseRevokeResponse = self.call(Method::LeaseRevoke, &request).await?;
                Ok(Answer::default())
            }
            Op::KeepAlive { lease } => {
                let answered = self.keep_alive(*lease).await;
                if answered.is_err() {
                    // The next one opens a new stream.
                    self.keep_alive = None;
                }
                answered
            }
            _ => Err(Status::new(Code::INTERNAL, "not an operation on leases")),
        }
    }

    async fn keep_alive(&mut self, lease: i64) -> Result<Answer, Status> {
        let stream = match &mut self.keep_alive {
            Some(stream) => stream,
            empty => empty.insert(self.channel.stream(Method::LeaseKeepAlive).await?),
        };
        stream.send(&pb::LeaseKeepAliveRequest { id: lease }.encode_to_vec());
        let message = stream.next().await?;
        let message =
            message.ok_or_else(|| Status::new(Code::UNAVAILABLE, "the keep-alive stream ended"))?;
        let answer =
            pb::LeaseKeepAliveResponse::decode(message).map_err(|error| malformed(&error))?;
        if answer.id != lease {
            self.check.wrong(|| format!("kept lease {} alive, not {lease}", answer.id));
        }
        if answer.ttl <= 0 {
            return Err(Status::new(Code(5), "the lease is gone"));
        }
        Ok(Answer { lease, ..Answer::default() })
    }

    async fn contend(&mut self, op: &Op) -> Result<Answer, Status> {
        match op {
            Op::Lock { name, lease } => {
                let request = v3lockpb::LockRequest { name: name.clone(), lease: *lease };
                let answer: v3lockpb::LockResponse = self.call(Method::Lock, &request).await?;
                Ok(Answer { key: answer.key, ..self.revised(answer.header) })
            }
            Op::Unlock { key } => {
                let request = v3lockpb::UnlockRequest { key: key.clone() };
                let answer: v3lockpb::UnlockResponse = self.call(Method::Unlock, &request).await?;
                Ok(self.revised(answer.header))
            }
            Op::Campaign { name, lease } => {
                let value = Bytes::from_static(b"candidate");
                let request =
                    v3electionpb::CampaignRequest { name: name.clone(), lease: *lease, value };
                let answer: v3electionpb::CampaignResponse =
                    self.call(Method::Campaign, &request).await?;
                let leader = answer.leader.unwrap_or_default();
                if leader.lease != *lease {
                    self.check.wrong(|| format!("lease {} leads, not {lease}", leader.lease));
                }
                let revised = self.revised(answer.header);
                Ok(Answer { key: leader.key, create_revision: leader.rev, ..revised })
            }
            Op::Resign { name, key, revision, lease } => {
                let leader = v3electionpb::LeaderKey {
                    name: name.clone(),
                    key: key.clone(),
                    rev: *revision,
                    lease: *lease,
                };
                let request = v3electionpb::ResignRequest { leader: Some(leader) };
                let answer: v3electionpb::ResignResponse =
                    self.call(Method::Resign, &request).await?;
                Ok(self.revised(answer.header))
            }
            _ => Err(Status::new(Code::INTERNAL, "not an operation on locks")),
        }
    }
}

fn range_request(span: &Span) -> pb::RangeRequest {
    pb::RangeRequest {
        key: span.key.clone(),
        range_end: span.end.clone(),
        limit: span.limit,
        serializable: span.is_serializable,
        ..Default::default()
    }
}

fn malformed(why: &dyn std::fmt::Display) -> Status {
    Status::new(Code::INTERNAL, format!("malformed answer: {why}"))
}
