//! One call of one client: what was asked, when, and what came back. Owns how an outcome is told
//! apart into answered, certainly refused and unknown.

use std::fmt;

use flotilla_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
};

/// A moment of one clock shared by all clients, in any unit: nanoseconds or steps. Two equal
/// stamps say nothing about which of the two moments came first.
pub type Stamp = u64;

/// A client of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// One call. Clients try each call once; a retry is a new operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who called.
    pub client: ClientId,
    /// Taken before the request was sent.
    pub invoked: Stamp,
    /// Taken after the answer or the refusal arrived. `None` if nothing certain ever did.
    pub returned: Option<Stamp>,
    /// What was asked.
    pub request: Request,
    /// What is known of it.
    pub outcome: Outcome,
}

/// What a client can ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// etcd's Range, or a RangeStream whose pieces were merged.
    Read(RangeRequest),
    /// KV/Put.
    Put(PutRequest),
    /// KV/DeleteRange.
    DeleteRange(DeleteRangeRequest),
    /// KV/Txn.
    Txn(TxnRequest),
    /// KV/Compact.
    Compact(CompactionRequest),
    /// Lease/LeaseGrant.
    LeaseGrant(LeaseGrantRequest),
    /// Lease/LeaseRevoke.
    LeaseRevoke(LeaseRevokeRequest),
    /// One request on a Lease/LeaseKeepAlive stream.
    LeaseKeepAlive(LeaseKeepAliveRequest),
    /// Lease/LeaseTimeToLive.
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    /// Lease/LeaseLeases.
    LeaseLeases(LeaseLeasesRequest),
}

/// What a server can answer, one for each request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Request::Read`].
    Read(RangeResponse),
    /// To [`Request::Put`].
    Put(PutResponse),
    /// To [`Request::DeleteRange`].
    DeleteRange(DeleteRangeResponse),
    /// To [`Request::Txn`].
    Txn(TxnResponse),
    /// To [`Request::Compact`].
    Compact(CompactionResponse),
    /// To [`Request::LeaseGrant`].
    LeaseGrant(LeaseGrantResponse),
    /// To [`Request::LeaseRevoke`].
    LeaseRevoke(LeaseRevokeResponse),
    /// To [`Request::LeaseKeepAlive`].
    LeaseKeepAlive(LeaseKeepAliveResponse),
    /// To [`Request::LeaseTimeToLive`].
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    /// To [`Request::LeaseLeases`].
    LeaseLeases(LeaseLeasesResponse),
}

/// What is known of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The server answered.
    Answered(Answer),
    /// The server refused in a way that certainly changed nothing.
    Refused(Refused),
    /// Anything else, every timeout and lost connection among it: the operation may have happened
    /// at any time after it was invoked, or never.
    Unknown,
}

/// A refusal that certainly changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// gRPC status code.
    pub code: Code,
    /// Status message, exactly as received.
    pub text: String,
}

/// A gRPC status code as a number, as in etcd's table of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub i32);

impl Code {
    /// The request itself is wrong.
    pub const INVALID_ARGUMENT: Code = Code(3);
    /// A named thing does not exist.
    pub const NOT_FOUND: Code = Code(5);
    /// The state of the store forbids it.
    pub const FAILED_PRECONDITION: Code = Code(9);
    /// A revision or number outside the allowed span.
    pub const OUT_OF_RANGE: Code = Code(11);
}

impl Operation {
    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Refused(_) | Outcome::Unknown => None,
        }
    }

    /// True if it may have happened without a trace at its client.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown)
    }
}

impl Answer {
    /// The header of the answer, if the server set one.
    pub fn header(&self) -> Option<&ResponseHeader> {
        match self {
            Answer::Read(answer) => answer.header.as_ref(),
            Answer::Put(answer) => answer.header.as_ref(),
            Answer::DeleteRange(answer) => answer.header.as_ref(),
            Answer::Txn(answer) => answer.header.as_ref(),
            Answer::Compact(answer) => answer.header.as_ref(),
            Answer::LeaseGrant(answer) => answer.header.as_ref(),
            Answer::LeaseRevoke(answer) => answer.header.as_ref(),
            Answer::LeaseKeepAlive(answer) => answer.header.as_ref(),
            Answer::LeaseTimeToLive(answer) => answer.header.as_ref(),
            Answer::LeaseLeases(answer) => answer.header.as_ref(),
        }
    }

    /// The header, to be changed.
    pub fn header_mut(&mut self) -> &mut Option<ResponseHeader> {
        match self {
            Answer::Read(answer) => &mut answer.header,
            Answer::Put(answer) => &mut answer.header,
            Answer::DeleteRange(answer) => &mut answer.header,
            Answer::Txn(answer) => &mut answer.header,
            Answer::Compact(answer) => &mut answer.header,
            Answer::LeaseGrant(answer) => &mut answer.header,
            Answer::LeaseRevoke(answer) => &mut answer.header,
            Answer::LeaseKeepAlive(answer) => &mut answer.header,
            Answer::LeaseTimeToLive(answer) => &mut answer.header,
            Answer::LeaseLeases(answer) => &mut answer.header,
        }
    }

    /// The revision in the header; zero if there is no header.
    pub fn revision(&self) -> i64 {
        self.header().map_or(0, |header| header.revision)
    }

    /// True if this is the kind of answer that `request` asks for.
    pub fn fits(&self, request: &Request) -> bool {
        matches!(
            (request, self),
            (Request::Read(_), Answer::Read(_))
                | (Request::Put(_), Answer::Put(_))
                | (Request::DeleteRange(_), Answer::DeleteRange(_))
                | (Request::Txn(_), Answer::Txn(_))
                | (Request::Compact(_), Answer::Compact(_))
                | (Request::LeaseGrant(_), Answer::LeaseGrant(_))
                | (Request::LeaseRevoke(_), Answer::LeaseRevoke(_))
                | (Request::LeaseKeepAlive(_), Answer::LeaseKeepAlive(_))
                | (Request::LeaseTimeToLive(_), Answer::LeaseTimeToLive(_))
                | (Request::LeaseLeases(_), Answer::LeaseLeases(_))
        )
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}
