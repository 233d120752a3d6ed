//! The keys that a user may read and write: the union of what the user's roles grant, with spans
//! that touch put together, so that a request may cross from one into the next.

use bytes::Bytes;

use crate::proto::Span;
use crate::proto::authpb::{Permission, permission};

/// What a request does with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Their state shows in the answer, or decides something.
    Read,
    /// They are put or deleted.
    Write,
}

/// What a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// In order, no two of them overlapping or touching.
    read: Vec<Span>,
    write: Vec<Span>,
}

impl Grants {
    /// The union of permissions.
    pub fn new<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let span = Span::from_request(permission.key.clone(), permission.range_end.clone());
            match permission.perm_type() {
                permission::Type::Read => read.push(span),
                permission::Type::Write => write.push(span),
                permission::Type::Readwrite => {
                    read.push(span.clone());
                    write.push(span);
                }
            }
        }
        Self { read: union(read), write: union(write) }
    }

    /// Whether all keys of a span may be used. A span without a key needs what etcd asks for it: a
    /// grant that has its start and does not end before it does.
    pub fn allow(&self, span: &Span, access: Access) -> bool {
        let spans = match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        let at = spans.partition_point(|grant| grant.start <= span.start);
        let Some(grant) = at.checked_sub(1).map(|at| &spans[at]) else { return false };
        let reaches_end = match (&grant.end, &span.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(wanted)) => end >= wanted,
        };
        grant.contains(&span.start) && reaches_end
    }
}

fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|span| !span.is_empty());
    spans.sort_by(|one, other| one.start.cmp(&other.start));
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        let touched = merged.last_mut().filter(|last| reaches(last, &span.start));
        match touched {
            None => merged.push(span),
            Some(last) => {
                last.end = match (last.end.take(), span.end) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    (None, _) | (_, None) => None,
                };
            }
        }
    }
    merged
}

/// Whether nothing is left out between the end of a span and a key after its start.
fn reaches(span: &Span, key: &Bytes) -> bool {
    span.end.as_ref().is_none_or(|end| end >= key)
}
