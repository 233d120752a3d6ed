//! Operations and requests on one line, for a person who reads a violation. Leaves out what is
//! not set.

use std::fmt;

use flotilla_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::history::{Operation, Outcome, Request, WatchRecord};

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.client, self.invoked)?;
        if let Some(returned) = self.returned {
            write!(f, " to {returned}")?;
        }
        write!(f, ": {}", self.request)?;
        match &self.outcome {
            Outcome::Answered(answer) => write!(f, ", answered at {}", answer.revision()),
            Outcome::Refused(refused) => write!(f, ", refused: {}", refused.text),
            Outcome::Unknown => write!(f, ", outcome unknown"),
        }
    }
}

impl fmt::Display for WatchRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}: watch ", self.client, self.invoked)?;
        span(f, &self.create.key, &self.create.range_end)?;
        write!(f, " since revision {}", self.create.start_revision)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Read(request) => read(f, request),
            Request::Put(request) => put(f, request),
            Request::DeleteRange(request) => delete(f, request),
            Request::Txn(request) => txn(f, request),
            Request::Compact(request) => write!(f, "compact {}", request.revision),
            Request::LeaseGrant(request) => {
                write!(f, "grant lease {:x} for {} s", request.id, request.ttl)
            }
            Request::LeaseRevoke(request) => write!(f, "revoke lease {:x}", request.id),
            Request::LeaseKeepAlive(request) => write!(f, "keep lease {:x} alive", request.id),
            Request::LeaseTimeToLive(request) => {
                write!(f, "time to live of lease {:x}", request.id)
            }
            Request::LeaseLeases(_) => write!(f, "list leases"),
        }
    }
}

fn read(f: &mut fmt::Formatter<'_>, request: &RangeRequest) -> fmt::Result {
    write!(f, "read ")?;
    span(f, &request.key, &request.range_end)?;
    if request.revision != 0 {
        write!(f, " at {}", request.revision)?;
    }
    if request.limit != 0 {
        write!(f, " limit {}", request.limit)?;
    }
    if request.sort_order != 0 || request.sort_target != 0 {
        write!(f, " by {:?} {:?}", request.sort_target(), request.sort_order())?;
    }
    let bounds = [
        ("mod>=", request.min_mod_revision),
        ("mod<=", request.max_mod_revision),
        ("create>=", request.min_create_revision),
        ("create<=", request.max_create_revision),
    ];
    for (name, bound) in bounds {
        if bound != 0 {
            write!(f, " {name}{bound}")?;
        }
    }
    let flags = [
        ("serializable", request.serializable),
        ("keys-only", request.keys_only),
        ("count-only", request.count_only),
    ];
    for (name, is_set) in flags {
        if is_set {
            write!(f, " {name}")?;
        }
    }
    Ok(())
}

fn put(f: &mut fmt::Formatter<'_>, request: &PutRequest) -> fmt::Result {
    write!(f, "put {}=", request.key.escape_ascii())?;
    if request.ignore_value {
        write!(f, "(kept)")?;
    } else {
        write!(f, "{}", request.value.escape_ascii())?;
    }
    if request.ignore_lease {
        write!(f, " lease (kept)")?;
    } else if request.lease != 0 {
        write!(f, " lease {:x}", request.lease)?;
    }
    Ok(())
}

fn delete(f: &mut fmt::Formatter<'_>, request: &DeleteRangeRequest) -> fmt::Result {
    write!(f, "delete ")?;
    span(f, &request.key, &request.range_end)
}

fn txn(f: &mut fmt::Formatter<'_>, request: &TxnRequest) -> fmt::Result {
    write!(f, "if [")?;
    for (position, one) in request.compare.iter().enumerate() {
        write!(f, "{}", if position == 0 { "" } else { "; " })?;
        compare(f, one)?;
    }
    write!(f, "] then [")?;
    operations(f, &request.success)?;
    write!(f, "] else [")?;
    operations(f, &request.failure)?;
    write!(f, "]")
}

fn operations(f: &mut fmt::Formatter<'_>, operations: &[RequestOp]) -> fmt::Result {
    for (position, operation) in operations.iter().enumerate() {
        write!(f, "{}", if position == 0 { "" } else { "; " })?;
        match &operation.request {
            Some(Op::RequestRange(request)) => read(f, request)?,
            Some(Op::RequestPut(request)) => put(f, request)?,
            Some(Op::RequestDeleteRange(request)) => delete(f, request)?,
            Some(Op::RequestTxn(request)) => txn(f, request)?,
            None => write!(f, "nothing")?,
        }
    }
    Ok(())
}

fn compare(f: &mut fmt::Formatter<'_>, compare: &Compare) -> fmt::Result {
    let target = CompareTarget::try_from(compare.target)
        .map_or_else(|_| format!("target {}", compare.target), |it| format!("{it:?}"));
    let sign = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => "==",
        Ok(CompareResult::NotEqual) => "!=",
        Ok(CompareResult::Greater) => ">",
        Ok(CompareResult::Less) => "<",
        Err(_) => "(no such relation)",
    };
    write!(f, "{}(", target.to_lowercase())?;
    span(f, &compare.key, &compare.range_end)?;
    write!(f, ") {sign} ")?;
    match &compare.target_union {
        Some(TargetUnion::Version(it) | TargetUnion::CreateRevision(it)) => write!(f, "{it}"),
        Some(TargetUnion::ModRevision(it) | TargetUnion::Lease(it)) => write!(f, "{it}"),
        Some(TargetUnion::Value(it)) => write!(f, "{}", it.escape_ascii()),
        None => write!(f, "(not set)"),
    }
}

fn span(f: &mut fmt::Formatter<'_>, key: &[u8], range_end: &[u8]) -> fmt::Result {
    write!(f, "{}", key.escape_ascii())?;
    match range_end {
        b"" => Ok(()),
        b"\0" => write!(f, ".."),
        end => write!(f, "..{}", end.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::history::ClientId;

    #[test]
    fn an_operation_reads_as_one_line() {
        let request = Request::Txn(TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Greater.into(),
                target: CompareTarget::Mod.into(),
                key: Bytes::from("a"),
                range_end: Bytes::from("\0"),
                target_union: Some(TargetUnion::ModRevision(4)),
            }],
            success: vec![
                RequestOp {
                    request: Some(Op::RequestPut(PutRequest {
                        key: Bytes::from("k\n"),
                        value: Bytes::from("v"),
                        lease: 255,
                        ..Default::default()
                    })),
                },
                RequestOp { request: None },
            ],
            failure: vec![RequestOp {
                request: Some(Op::RequestRange(RangeRequest {
                    key: Bytes::from("a"),
                    range_end: Bytes::from("b"),
                    revision: 7,
                    limit: 2,
                    ..Default::default()
                })),
            }],
        });
        let operation = Operation {
            client: ClientId(3),
            invoked: 5,
            returned: None,
            request,
            outcome: Outcome::Unknown,
        };
        assert_eq!(
            operation.to_string(),
            "client 3 from 5: if [mod(a..) > 4] then [put k\\n=v lease ff; nothing] else \
             [read a..b at 7 limit 2], outcome unknown"
        );
    }
}
