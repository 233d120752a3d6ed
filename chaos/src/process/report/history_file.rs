//! The history as lines of JSON: operations, revisions, what watchers were sent, hashes. Requests
//! and answers are there twice: as text for a person, and as hexadecimal protobuf for a program.

use std::fmt::Write as _;

use prost::Message;
use serde_json::{Value, json};

use crate::history::{Answer, History, Operation, Outcome, Request, WatchRecord};

/// All lines. `nodes` has the node of each operation.
pub(super) fn lines(history: &History, nodes: &[usize]) -> String {
    let mut text = String::new();
    let mut line = |value: Value| {
        let _ = writeln!(text, "{value}");
    };
    for (index, operation) in history.operations.iter().enumerate() {
        line(operation_line(index, operation, nodes.get(index).copied()));
    }
    for (revision, events) in history.evidence.revisions() {
        let events: Vec<String> = events.iter().map(ToString::to_string).collect();
        line(json!({ "revision": revision, "events": events }));
    }
    for (index, watch) in history.watches.iter().enumerate() {
        line(watch_line(index, watch));
    }
    for hash in &history.hashes {
        line(json!({
            "hash": hash.hash,
            "replica": hash.replica,
            "revision": hash.revision,
            "compact_revision": hash.compact_revision,
        }));
    }
    text
}

fn operation_line(index: usize, operation: &Operation, node: Option<usize>) -> Value {
    let (outcome, answer) = match &operation.outcome {
        Outcome::Answered(answer) => ("answered".to_owned(), Some(answer_bytes(answer))),
        Outcome::Refused(refused) => {
            (format!("refused {}: {}", refused.code.0, refused.text), None)
        }
        Outcome::Unknown => ("unknown".to_owned(), None),
    };
    let (kind, request) = request_bytes(&operation.request);
    json!({
        "operation": index,
        "client": operation.client.0,
        "node": node,
        "invoked_us": operation.invoked,
        "returned_us": operation.returned,
        "kind": kind,
        "what": operation.request.to_string(),
        "outcome": outcome,
        "revision": operation.answer().map(Answer::revision),
        "request": hex(&request),
        "answer": answer.map(|bytes| hex(&bytes)),
    })
}

fn watch_line(index: usize, watch: &WatchRecord) -> Value {
    let received: Vec<Value> = watch
        .received
        .iter()
        .map(|received| {
            json!({
                "at_us": received.at,
                "response": hex(&received.response.encode_to_vec()),
            })
        })
        .collect();
    json!({
        "watch": index,
        "client": watch.client.0,
        "what": watch.to_string(),
        "invoked_us": watch.invoked,
        "create": hex(&watch.create.encode_to_vec()),
        "cancel_sent_us": watch.cancel_sent,
        "open_at_end": watch.open_at_end,
        "received": received,
    })
}

fn request_bytes(request: &Request) -> (&'static str, Vec<u8>) {
    match request {
        Request::Read(it) => ("read", it.encode_to_vec()),
        Request::Put(it) => ("put", it.encode_to_vec()),
        Request::DeleteRange(it) => ("delete", it.encode_to_vec()),
        Request::Txn(it) => ("txn", it.encode_to_vec()),
        Request::Compact(it) => ("compact", it.encode_to_vec()),
        Request::LeaseGrant(it) => ("lease-grant", it.encode_to_vec()),
        Request::LeaseRevoke(it) => ("lease-revoke", it.encode_to_vec()),
        Request::LeaseKeepAlive(it) => ("lease-keep-alive", it.encode_to_vec()),
        Request::LeaseTimeToLive(it) => ("lease-time-to-live", it.encode_to_vec()),
        Request::LeaseLeases(it) => ("lease-leases", it.encode_to_vec()),
    }
}

fn answer_bytes(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Read(it) => it.encode_to_vec(),
        Answer::Put(it) => it.encode_to_vec(),
        Answer::DeleteRange(it) => it.encode_to_vec(),
        Answer::Txn(it) => it.encode_to_vec(),
        Answer::Compact(it) => it.encode_to_vec(),
        Answer::LeaseGrant(it) => it.encode_to_vec(),
        Answer::LeaseRevoke(it) => it.encode_to_vec(),
        Answer::LeaseKeepAlive(it) => it.encode_to_vec(),
        Answer::LeaseTimeToLive(it) => it.encode_to_vec(),
        Answer::LeaseLeases(it) => it.encode_to_vec(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
