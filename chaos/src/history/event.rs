//! One put or delete, as a watcher sees it. Owns the conversion from etcd's message and how an
//! event is printed; knows nothing of previous pairs.

use std::fmt;

use bytes::Bytes;
use flotilla_proto::mvccpb;
use flotilla_proto::mvccpb::KeyValue;
use thiserror::Error;

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The key has this pair from now on.
    Put(KeyValue),
    /// The key is gone.
    Delete {
        /// The key that was deleted.
        key: Bytes,
        /// The revision that deleted it.
        revision: i64,
    },
}

/// The message is not an event that etcd could send.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MalformedEvent {
    /// The message has no pair.
    #[error("an event without a pair")]
    NoPair,
    /// The type is neither put nor delete.
    #[error("an event of unknown type {0}")]
    UnknownType(i32),
    /// A delete carries more than the key and its revision.
    #[error("the delete of {key:?} carries a value, a lease, a version or a create revision")]
    DeleteWithContent {
        /// The key, printable.
        key: String,
    },
}

impl Event {
    /// Reads etcd's message, leaving its `prev_kv` out.
    pub fn from_proto(message: &mvccpb::Event) -> Result<Event, MalformedEvent> {
        let pair = message.kv.as_ref().ok_or(MalformedEvent::NoPair)?;
        match mvccpb::event::EventType::try_from(message.r#type) {
            Ok(mvccpb::event::EventType::Put) => Ok(Event::Put(pair.clone())),
            Ok(mvccpb::event::EventType::Delete) => {
                let bare = KeyValue {
                    key: pair.key.clone(),
                    mod_revision: pair.mod_revision,
                    ..KeyValue::default()
                };
                if *pair != bare {
                    let key = pair.key.escape_ascii().to_string();
                    return Err(MalformedEvent::DeleteWithContent { key });
                }
                Ok(Event::Delete { key: pair.key.clone(), revision: pair.mod_revision })
            }
            Err(_) => Err(MalformedEvent::UnknownType(message.r#type)),
        }
    }

    /// The message of etcd, without `prev_kv`.
    pub fn to_proto(&self) -> mvccpb::Event {
        match self {
            Event::Put(pair) => mvccpb::Event {
                r#type: mvccpb::event::EventType::Put.into(),
                kv: Some(pair.clone()),
                prev_kv: None,
            },
            Event::Delete { key, revision } => mvccpb::Event {
                r#type: mvccpb::event::EventType::Delete.into(),
                kv: Some(KeyValue {
                    key: key.clone(),
                    mod_revision: *revision,
                    ..KeyValue::default()
                }),
                prev_kv: None,
            },
        }
    }

    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put(pair) => &pair.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// The revision that changed it.
    pub fn revision(&self) -> i64 {
        match self {
            Event::Put(pair) => pair.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }

    /// True if the key is gone afterwards.
    pub fn is_delete(&self) -> bool {
        matches!(self, Event::Delete { .. })
    }

    /// True for the first put of a life of the key.
    pub fn is_create(&self) -> bool {
        matches!(self, Event::Put(pair) if pair.create_revision == pair.mod_revision)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Put(pair) => write!(f, "put {}", print_pair(pair)),
            Event::Delete { key, revision } => {
                write!(f, "delete {} at {revision}", key.escape_ascii())
            }
        }
    }
}

/// A pair on one line.
pub fn print_pair(pair: &KeyValue) -> String {
    format!(
        "{}={} (mod {}, create {}, version {}, lease {:x})",
        pair.key.escape_ascii(),
        pair.value.escape_ascii(),
        pair.mod_revision,
        pair.create_revision,
        pair.version,
        pair.lease,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_with_a_value_is_refused() {
        let mut message = Event::Delete { key: Bytes::from("a"), revision: 4 }.to_proto();
        assert_eq!(
            Event::from_proto(&message),
            Ok(Event::Delete { key: Bytes::from("a"), revision: 4 })
        );
        message.kv.as_mut().expect("made with a pair").version = 1;
        assert!(matches!(
            Event::from_proto(&message),
            Err(MalformedEvent::DeleteWithContent { .. })
        ));
    }

    #[test]
    fn a_message_without_pair_or_with_a_strange_type_is_refused() {
        assert_eq!(Event::from_proto(&mvccpb::Event::default()), Err(MalformedEvent::NoPair));
        let strange =
            mvccpb::Event { r#type: 7, kv: Some(KeyValue::default()), ..Default::default() };
        assert_eq!(Event::from_proto(&strange), Err(MalformedEvent::UnknownType(7)));
    }
}
