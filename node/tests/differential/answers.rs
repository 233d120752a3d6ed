//! What an answer is for the comparison, and which differences are known. An exception names the
//! rule it rests on, touches only what the rule speaks of, and is counted whenever it is needed.

use std::collections::BTreeMap;
use std::ops::Range;

use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::mvccpb::KeyValue;
use pb::range_request::SortTarget;
use pb::request_op::Request as Op;
use pb::response_op::Response as OpAnswer;
use tonic::{Code, Status};

use super::requests::Request;

/// A successful answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    LeaseLeases(pb::LeaseLeasesResponse),
    HashKv(pb::HashKvResponse),
}

/// An answer, or the code and the text of the refusal.
pub(crate) type Outcome = Result<Answer, (Code, String)>;

/// Takes out of an outcome what belongs to one cluster or to one moment.
pub(crate) fn outcome(answer: Result<Answer, Status>) -> Outcome {
    let mut answer = answer.map_err(|status| (status.code(), status.message().to_owned()))?;
    clear_identity(&mut answer);
    match &mut answer {
        Answer::LeaseTimeToLive(answer) => {
            // The clock decides how much of a living lease is left; -1 is a lease that is gone.
            if answer.ttl >= 0 {
                answer.ttl = 0;
            }
            // A lease's keys come in no order.
            answer.keys.sort();
        }
        // Leases are listed in no order that a client could rely on.
        Answer::LeaseLeases(answer) => answer.leases.sort_by_key(|lease| lease.id),
        _ => {}
    }
    Ok(answer)
}

fn clear_identity(answer: &mut Answer) {
    match answer {
        Answer::Range(answer) => clear_header(&mut answer.header),
        Answer::Put(answer) => clear_header(&mut answer.header),
        Answer::DeleteRange(answer) => clear_header(&mut answer.header),
        Answer::Txn(answer) => clear_header(&mut answer.header),
        Answer::Compact(answer) => clear_header(&mut answer.header),
        Answer::LeaseGrant(answer) => clear_header(&mut answer.header),
        Answer::LeaseRevoke(answer) => clear_header(&mut answer.header),
        Answer::LeaseTimeToLive(answer) => clear_header(&mut answer.header),
        Answer::LeaseLeases(answer) => clear_header(&mut answer.header),
        Answer::HashKv(answer) => clear_header(&mut answer.header),
    }
}

/// Headers inside a transaction have no identity to begin with, and are compared as they are.
fn clear_header(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        assert!(header.cluster_id != 0, "an answer's header names its cluster");
        assert!(header.member_id != 0, "an answer's header names its member");
        assert!(header.raft_term != 0, "an answer's header has a term");
        *header = pb::ResponseHeader { revision: header.revision, ..Default::default() };
    }
}

/// How often each exception was needed.
pub(crate) type Needed = BTreeMap<&'static str, u32>;

/// True if the two outcomes are the same, or differ only by exceptions, which are then counted.
pub(crate) fn agree(
    request: &Request,
    ours: &Outcome,
    theirs: &Outcome,
    release: Release,
    needed: &mut Needed,
) -> bool {
    if ours == theirs {
        return true;
    }
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    let mut applied = Vec::new();
    for (name, releases, excuse) in EXCEPTIONS {
        if !releases.contains(&release) {
            continue;
        }
        let before = (ours.clone(), theirs.clone());
        excuse(request, &mut ours, &mut theirs);
        if before != (ours.clone(), theirs.clone()) {
            applied.push(name);
        }
        if ours == theirs {
            for name in applied {
                *needed.entry(name).or_default() += 1;
            }
            return true;
        }
    }
    false
}

type Excuse = fn(&Request, &mut Outcome, &mut Outcome);

/// Major and minor number of an etcd.
pub(crate) type Release = (u32, u32);

const ALL: Range<Release> = (3, 4)..(4, 0);
const BEFORE_3_5: Range<Release> = (3, 4)..(3, 5);
const BEFORE_3_6: Range<Release> = (3, 4)..(3, 6);
const SINCE_3_5: Range<Release> = (3, 5)..(4, 0);
const BEFORE_3_7: Range<Release> = (3, 4)..(3, 7);
const SINCE_3_7: Range<Release> = (3, 7)..(4, 0);

/// What may differ, from which releases of etcd, and how the difference is taken out.
const EXCEPTIONS: [(&str, Range<Release>, Excuse); 6] = [
    ("ties of a sort are in no order", ALL, unstable_sort),
    ("of several impossible operations another is named", BEFORE_3_7, first_refusal),
    ("a read of keys only loses their leases in 3.7", SINCE_3_7, keys_only_leases),
    ("HashKV tells the hashed revision since 3.6", BEFORE_3_6, hash_revision),
    ("no HashKV of the compacted revision in 3.4", BEFORE_3_5, hash_of_the_compacted_revision),
    ("HashKV of a compacted revision from memory since 3.5", SINCE_3_5, remembered_hash),
];

/// etcd sorts a read with an unstable algorithm, so keys that are equal in the sort's target come
/// in any order, and of such keys any may be those that the limit cut off.
fn unstable_sort(request: &Request, ours: &mut Outcome, theirs: &mut Outcome) {
    for outcome in [ours, theirs] {
        match (request, outcome) {
            (Request::Range(read), Ok(Answer::Range(answer))) => order_ties(read, answer),
            (Request::Txn(txn), Ok(Answer::Txn(answer))) => order_ties_of_txn(txn, answer),
            _ => {}
        }
    }
}

fn order_ties_of_txn(txn: &pb::TxnRequest, answer: &mut pb::TxnResponse) {
    let branch = if answer.succeeded { &txn.success } else { &txn.failure };
    for (op, answer) in branch.iter().zip(&mut answer.responses) {
        match (&op.request, &mut answer.response) {
            (Some(Op::RequestRange(read)), Some(OpAnswer::ResponseRange(answer))) => {
                order_ties(read, answer);
            }
            (Some(Op::RequestTxn(inner)), Some(OpAnswer::ResponseTxn(answer))) => {
                order_ties_of_txn(inner, answer);
            }
            _ => {}
        }
    }
}

fn order_ties(read: &pb::RangeRequest, answer: &mut pb::RangeResponse) {
    let target = read.sort_target();
    if target == SortTarget::Key {
        return;
    }
    let same = |one: &KeyValue, other: &KeyValue| match target {
        SortTarget::Key => one.key == other.key,
        SortTarget::Version => one.version == other.version,
        SortTarget::Create => one.create_revision == other.create_revision,
        SortTarget::Mod => one.mod_revision == other.mod_revision,
        // With keys_only the answer does not show what was sorted by: then all may be ties.
        SortTarget::Value => one.value == other.value,
    };
    for ties in answer.kvs.chunk_by_mut(same) {
        ties.sort_by(|one, other| one.key.cmp(&other.key));
    }
    if answer.more {
        // The limit may have cut into the last ties: any of these keys could be here.
        let ties = answer.kvs.chunk_by_mut(same).last().unwrap_or_default();
        for kv in ties {
            let was = std::mem::take(kv);
            match target {
                SortTarget::Key => {}
                SortTarget::Version => kv.version = was.version,
                SortTarget::Create => kv.create_revision = was.create_revision,
                SortTarget::Mod => kv.mod_revision = was.mod_revision,
                SortTarget::Value => kv.value = was.value,
            }
        }
    }
}

/// When several operations of a transaction are impossible, it depends on the release which of
/// them the refusal speaks of. Nothing is carried out either way. etcd 3.4 looks at all puts before
/// it looks at the first range, later releases go through the operations once; and of one put 3.7
/// checks the lease first, where earlier releases checked the key that a flag wants to keep.
fn first_refusal(request: &Request, ours: &mut Outcome, theirs: &mut Outcome) {
    const KEY: (Code, &str) = (Code::InvalidArgument, "etcdserver: key not found");
    const LEASE: (Code, &str) = (Code::NotFound, "etcdserver: requested lease not found");
    let (Request::Txn(_), Err(our), Err(their)) = (request, &*ours, &*theirs) else { return };
    let (our, their) = ((our.0, our.1.as_str()), (their.0, their.1.as_str()));
    let is_of_a_range = our.0 == Code::OutOfRange && our.1.contains("required revision");
    let is_of_a_put = their == KEY || their == LEASE;
    if (is_of_a_range && is_of_a_put) || (our == LEASE && their == KEY) {
        ours.clone_from(theirs);
    }
}

/// A read of keys only is answered from the index, which knows no leases. Reported as a bug of
/// etcd: <https://github.com/etcd-io/etcd/issues/22209>.
fn keys_only_leases(request: &Request, ours: &mut Outcome, _: &mut Outcome) {
    match (request, ours) {
        (Request::Range(read), Ok(Answer::Range(answer))) => clear_leases(read, answer),
        (Request::Txn(txn), Ok(Answer::Txn(answer))) => clear_leases_of_txn(txn, answer),
        _ => {}
    }
}

fn clear_leases_of_txn(txn: &pb::TxnRequest, answer: &mut pb::TxnResponse) {
    let branch = if answer.succeeded { &txn.success } else { &txn.failure };
    for (op, answer) in branch.iter().zip(&mut answer.responses) {
        match (&op.request, &mut answer.response) {
            (Some(Op::RequestRange(read)), Some(OpAnswer::ResponseRange(answer))) => {
                clear_leases(read, answer);
            }
            (Some(Op::RequestTxn(inner)), Some(OpAnswer::ResponseTxn(answer))) => {
                clear_leases_of_txn(inner, answer);
            }
            _ => {}
        }
    }
}

fn clear_leases(read: &pb::RangeRequest, answer: &mut pb::RangeResponse) {
    if read.keys_only && read.sort_target() != SortTarget::Value {
        answer.kvs.iter_mut().for_each(|kv| kv.lease = 0);
    }
}

/// A compaction hashes the history above the one before it, and HashKV of that revision is then
/// answered from memory: the hash begins at an earlier compaction than it would now.
fn remembered_hash(request: &Request, ours: &mut Outcome, theirs: &mut Outcome) {
    let Request::HashKv(request) = request else { return };
    if let (Ok(Answer::HashKv(our)), Ok(Answer::HashKv(their))) = (&*ours, &*theirs)
        && our.compact_revision == request.revision
        && their.hash_revision == our.hash_revision
        && their.compact_revision < our.compact_revision
    {
        ours.clone_from(theirs);
    }
}

/// The compacted revision can be read. HashKV of etcd 3.4 refuses it, later releases hash it.
fn hash_of_the_compacted_revision(request: &Request, ours: &mut Outcome, theirs: &mut Outcome) {
    let (Request::HashKv(request), Ok(Answer::HashKv(answer))) = (request, &*ours) else { return };
    let text = "etcdserver: mvcc: required revision has been compacted";
    let is_refused = *theirs == Err((Code::OutOfRange, text.to_owned()));
    if is_refused && request.revision > 0 && answer.compact_revision == request.revision {
        ours.clone_from(theirs);
    }
}

/// The field `hash_revision` came with etcd 3.6.
fn hash_revision(_: &Request, ours: &mut Outcome, theirs: &mut Outcome) {
    if let (Ok(Answer::HashKv(ours)), Ok(Answer::HashKv(theirs))) = (ours, theirs)
        && theirs.hash_revision == 0
    {
        ours.hash_revision = 0;
    }
}

/// What of an outcome is worth counting: its kind, or the text of its refusal.
pub(crate) fn label(request: &Request, outcome: &Outcome) -> String {
    match outcome {
        Ok(_) => format!("{}: ok", request.name()),
        Err((code, text)) => format!("{}: {code:?} {text}", request.name()),
    }
}
