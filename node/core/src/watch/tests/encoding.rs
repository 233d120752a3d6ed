//! The bytes of responses are those prost writes.

use prost::Message;

use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb;
use crate::watch::response::{Events, Response};
use crate::watch::{Event, OVERHEAD_BYTES};

use super::stage::{Store, delete, put};

#[test]
fn a_response_is_encoded_as_its_message() {
    let mut store = Store::new();
    let changes = [put("a", "1"), put("a", ""), put("b", &"x".repeat(300)), delete("a")];
    let events: Vec<Event> = changes
        .iter()
        .flat_map(|change| store.commit(std::slice::from_ref(change)))
        .map(Event::from)
        .collect();
    let header =
        pb::ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 5, raft_term: 1 << 40 };

    for wants_prev in [false, true] {
        for count in 0..=events.len() {
            let fields: Vec<_> =
                events[..count].iter().map(|event| event.field(wants_prev)).collect();
            let mut response = Response::new(header, 3);
            response.is_fragment = true;
            response.events = Events::from(fields);

            let message = pb::WatchResponse {
                header: Some(header),
                watch_id: 3,
                fragment: true,
                events: events[..count].iter().map(|event| message(event, wants_prev)).collect(),
                ..Default::default()
            };
            check(&response, &message);
        }
    }
}

#[test]
fn a_refusal_is_encoded_as_its_message() {
    let header = pb::ResponseHeader { cluster_id: 2, member_id: 3, revision: 0, raft_term: 4 };
    let mut response = Response::new(header, -1);
    response.is_created = true;
    response.is_canceled = true;
    response.compact_revision = 9;
    response.cancel_reason = "because";
    let message = pb::WatchResponse {
        header: Some(header),
        watch_id: -1,
        created: true,
        canceled: true,
        compact_revision: 9,
        cancel_reason: "because".to_owned(),
        fragment: false,
        events: Vec::new(),
    };
    check(&response, &message);
}

fn check(response: &Response, message: &pb::WatchResponse) {
    let mut bytes = Vec::new();
    response.encode_into(&mut bytes);
    assert_eq!(bytes, message.encode_to_vec());
    assert_eq!(response.encoded_len(), bytes.len());
    assert_eq!(response.charge(), bytes.len() + OVERHEAD_BYTES);
    assert_eq!(pb::WatchResponse::decode(&bytes[..]).as_ref(), Ok(message));
}

fn message(event: &Event, wants_prev: bool) -> mvccpb::Event {
    use mvccpb::event::EventType;
    let change = event.change();
    let decode = |kv: &bytes::Bytes| mvccpb::KeyValue::decode(kv.clone()).unwrap();
    let kind = if change.is_delete { EventType::Delete } else { EventType::Put };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(decode(&change.kv)),
        prev_kv: change.prev.as_ref().filter(|_| wants_prev).map(decode),
    }
}
