//! Requests and answers that nodes pass on to each other, and changes of a membership.

use bytes::Bytes;
use flotilla_fuzz::{Target, damaged};
use proptest::prelude::*;
use prost::Message;

use super::messages;
use crate::command::{Answer, Command};
use crate::group::{Change, Entry};
use crate::proto::internal::LogEntry;

/// What commands and answers are made of, some of each shape.
const BODIES: [&str; 12] = [
    "etcdserverpb.PutRequest",
    "etcdserverpb.TxnRequest",
    "etcdserverpb.TxnResponse",
    "etcdserverpb.CompactionRequest",
    "etcdserverpb.LeaseGrantRequest",
    "etcdserverpb.MemberUpdateRequest",
    "etcdserverpb.AlarmResponse",
    "flotilla.internal.Member",
    "flotilla.internal.SplitRequest",
    "flotilla.internal.Decision",
    "flotilla.internal.ReplicasRequest",
    "flotilla.internal.AuthChange",
];

#[test]
fn fuzz_core_commands() {
    let messages = messages();
    let bodies = BODIES.map(|name| messages.encoded(name).boxed());
    let body = proptest::sample::select(bodies.to_vec()).prop_flat_map(|body| body);
    let inputs = (0..30_u32, damaged(body));
    // Messages that nest cost more in memory than on the wire: about a hundred bytes for two.
    Target::new("core/commands").cases(512).run(inputs, |(kind, body)| {
        let body = Bytes::from(body);
        if let Some(command) = Command::decode(kind, body.clone()) {
            assert_eq!(command.kind(), kind);
            let again = Command::decode(kind, command.encode());
            assert_eq!(again, Some(command));
        }
        if let Some(answer) = Answer::decode(kind, body) {
            assert_eq!(answer.kind(), kind);
            let again = Answer::decode(kind, answer.encode());
            assert_eq!(again, Some(answer));
        }
    });
}

#[test]
fn fuzz_core_entries_and_changes() {
    let change = proptest::collection::vec((0..4_u8, flotilla_fuzz::number()), 0..5);
    let change = change.prop_map(|steps| {
        // `eraftpb.ConfChangeV2`: field 2, with kind and node as fields 1 and 2.
        let mut raw = Vec::new();
        for (kind, node) in steps {
            let mut step = vec![0x08, kind, 0x10];
            prost::encoding::encode_varint(node, &mut step);
            raw.extend([0x12, step.len() as u8]);
            raw.extend(step);
        }
        raw
    });
    let entry = messages().encoded("flotilla.internal.LogEntry");
    let inputs = prop_oneof![damaged(change), damaged(entry)];
    Target::new("core/entries_and_changes").cases(512).run(inputs, |raw| {
        if let Some(change) = Change::decode(Bytes::from(raw.clone())) {
            assert_eq!(Change::decode(change.encode()), Some(change));
        }
        if let Ok(proto) = LogEntry::decode(&raw[..])
            && let Some(entry) = Entry::from_proto(proto.clone())
        {
            assert_eq!(entry.into_proto(), proto);
        }
    });
}
