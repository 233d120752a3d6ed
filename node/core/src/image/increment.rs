//! An increment: every change of a run of revisions, without a hole. Owns what its frames must say for
//! that to be so; whoever writes one is held to the same as whoever reads it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use prost::Message;

use super::bolt::{Bytes, Damage};
use super::{Change, Error, frames};
use crate::mvcc::layout::Revision;
use crate::proto::internal::backup_frame::Content;
use crate::proto::internal::{BackupChanges, BackupEnd, BackupHead, BackupLease};
use crate::proto::mvccpb::event::EventType;
use crate::proto::mvccpb::{Event, KeyValue};

/// What an increment is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Of the cluster.
    pub cluster_id: u64,
    /// The revision of the first change.
    pub first: i64,
    /// The revision of the last one.
    pub last: i64,
    /// When the last change was received: milliseconds since 1970.
    pub time_ms: u64,
    /// Of the cluster's users, after the last change.
    pub auth_revision: u64,
    /// How many changes there are.
    pub events_count: u64,
    /// Granted seconds of each lease that changes name; 0 if it had ended when it was asked for.
    pub leases: BTreeMap<i64, i64>,
}

/// Called for each change, with the moment it was received; `Break` ends it.
pub type Visit<'a> = &'a mut dyn FnMut(Change<'_>, u64) -> ControlFlow<()>;

/// Places changes one after another, and refuses what leaves a hole.
#[derive(Clone, Debug)]
struct Order {
    last: Revision,
    time_ms: u64,
    events_count: u64,
}

impl Order {
    fn new(first: i64) -> Result<Self, Error> {
        if first < 2 {
            return Err(damage(format!("revision {first} is nobody's")));
        }
        Ok(Self { last: Revision::last_of(first - 1), time_ms: 0, events_count: 0 })
    }

    /// The place of the next event.
    fn next(&mut self, event: &Event) -> Result<Revision, Error> {
        let Revision { main, sub } = self.last;
        let empty = KeyValue::default();
        let kv = event.kv.as_ref().unwrap_or(&empty);
        let at = kv.mod_revision;
        let revision = if at == main && self.events_count > 0 {
            Revision { main, sub: sub + 1 }
        } else if at == main + 1 {
            Revision { main: at, sub: 0 }
        } else {
            return Err(damage(format!(
                "revision {} is missing: {at} follows on {main}",
                main + 1
            )));
        };
        let is_sound = match event.r#type() {
            EventType::Delete => true,
            EventType::Put => (1..=at).contains(&kv.create_revision) && kv.version > 0,
        };
        if kv.key.is_empty() || !is_sound || at >= i64::MAX / 2 {
            return Err(damage(format!("there is an impossible change at revision {at}")));
        }
        self.last = revision;
        self.events_count += 1;
        Ok(revision)
    }

    fn at(&mut self, time_ms: u64) -> Result<(), Error> {
        if time_ms < self.time_ms {
            return Err(damage("its clock goes back"));
        }
        self.time_ms = time_ms;
        Ok(())
    }
}

/// Makes the bytes of an increment.
#[derive(Debug)]
pub struct Writer {
    order: Order,
    leases: BTreeMap<i64, i64>,
}

impl Writer {
    /// Also gives the first bytes.
    ///
    /// # Errors
    /// No change has this revision.
    pub fn new(cluster_id: u64, first: i64) -> Result<(Self, Vec<u8>), Error> {
        let order = Order::new(first)?;
        let head = Content::Head(BackupHead { cluster_id, first });
        let bytes = [frames::file_head(), frames::frame(head)].concat();
        Ok((Self { order, leases: BTreeMap::new() }, bytes))
    }

    /// Adds the changes of one message of a watch, received at a moment in milliseconds since 1970.
    ///
    /// # Errors
    /// A revision is missing, or a change is none.
    pub fn add(&mut self, mut time_ms: u64, events: Vec<Event>) -> Result<Vec<u8>, Error> {
        // A clock may be set back while nothing else may be.
        time_ms = time_ms.max(self.order.time_ms);
        self.order.at(time_ms)?;
        for event in &events {
            self.order.next(event)?;
            if let Some(kv) = event.kv.as_ref().filter(|kv| kv.lease != 0) {
                self.leases.insert(kv.lease, 0);
            }
        }
        Ok(frames::frame(Content::Changes(BackupChanges { time_ms, events })))
    }

    /// The revision of the last change; that before the first if there is none.
    pub fn last(&self) -> i64 {
        self.order.last.main
    }

    /// How many changes there are.
    pub fn events_count(&self) -> u64 {
        self.order.events_count
    }

    /// Leases that are to be asked for.
    pub fn leases(&self) -> impl Iterator<Item = i64> {
        self.leases.keys().copied()
    }

    /// The last bytes. `ttls` has the granted seconds of leases that are still there.
    pub fn finish(self, auth_revision: u64, ttls: &BTreeMap<i64, i64>) -> Vec<u8> {
        let lease = |id: i64| BackupLease { id, ttl: ttls.get(&id).copied().unwrap_or(0) };
        frames::last_frame(Content::End(BackupEnd {
            last: self.order.last.main,
            time_ms: self.order.time_ms,
            auth_revision,
            events_count: self.order.events_count,
            leases: self.leases.into_keys().map(lease).collect(),
        }))
    }
}

/// What an increment is about, of which nothing but both ends is read.
///
/// # Errors
/// One of them cannot be read, is damaged, or says what cannot be.
pub fn summary(file: &impl Bytes) -> Result<Summary, Error> {
    match frames::ends(file)? {
        (Content::Head(head), Content::End(end)) => sum_up(&head, end),
        _ => Err(damage("it is no increment")),
    }
}

/// Visits all changes in the order of their revisions.
///
/// # Errors
/// The file cannot be read, is damaged, or lacks a revision.
pub fn visit(file: &impl Bytes, visit: Visit<'_>) -> Result<Summary, Error> {
    let summary = summary(file)?;
    let mut order = Order::new(summary.first)?;
    let mut ended = false;
    let mut result = Ok(());
    let mut is_begun = false;
    frames::visit(file, &mut |content| {
        let take = || -> Result<ControlFlow<()>, Error> {
            match content {
                Content::Head(_) if !is_begun => is_begun = true,
                Content::Changes(changes) if is_begun && !ended => {
                    order.at(changes.time_ms)?;
                    for event in &changes.events {
                        let revision = order.next(event)?;
                        let (is_delete, kv) = encoded(event);
                        let change = Change { revision, is_delete, kv: &kv };
                        if visit(change, changes.time_ms).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                }
                Content::End(_) if is_begun && !ended => ended = true,
                _ => return Err(damage("its frames are out of order")),
            }
            Ok(ControlFlow::Continue(()))
        };
        take().unwrap_or_else(|error| {
            result = Err(error);
            ControlFlow::Break(())
        })
    })?;
    result?;
    let is_whole = order.last.main == summary.last
        && order.events_count == summary.events_count
        && order.time_ms == summary.time_ms;
    if ended && !is_whole {
        return Err(damage("its changes are not those that it ends with"));
    }
    Ok(summary)
}

/// The last revision whose last change was received at a moment or earlier; `None` if there is none.
///
/// # Errors
/// See `visit`.
pub fn revision_at(file: &impl Bytes, time_ms: u64) -> Result<Option<i64>, Error> {
    let (mut found, mut open) = (None, None);
    visit(file, &mut |change, received_ms| {
        let main = change.revision.main;
        if open != Some(main) {
            found = open.take();
        }
        if received_ms > time_ms {
            open = None;
            return ControlFlow::Break(());
        }
        open = Some(main);
        ControlFlow::Continue(())
    })?;
    Ok(open.or(found))
}

/// Whether it is a delete, and the key-value as a snapshot has it.
fn encoded(event: &Event) -> (bool, Vec<u8>) {
    let is_delete = event.r#type() == EventType::Delete;
    let kv = event.kv.as_ref();
    let kv = if is_delete {
        let key = kv.map(|kv| kv.key.clone()).unwrap_or_default();
        KeyValue { key, ..KeyValue::default() }.encode_to_vec()
    } else {
        kv.map(Message::encode_to_vec).unwrap_or_default()
    };
    (is_delete, kv)
}

fn sum_up(head: &BackupHead, end: BackupEnd) -> Result<Summary, Error> {
    let (cluster_id, first) = (head.cluster_id, head.first);
    if first < 2 || end.last < first || end.last >= i64::MAX / 2 {
        return Err(damage(format!("it ends at revision {} and begins at {first}", end.last)));
    }
    let mut leases = BTreeMap::new();
    for BackupLease { id, ttl } in end.leases {
        if id == 0 || ttl < 0 {
            return Err(damage(format!("it names a lease {id} of {ttl} s")));
        }
        leases.insert(id, ttl);
    }
    Ok(Summary {
        cluster_id,
        first,
        last: end.last,
        time_ms: end.time_ms,
        auth_revision: end.auth_revision,
        events_count: end.events_count,
        leases,
    })
}

fn damage(what: impl Into<String>) -> Error {
    Error::Part(Damage(what.into()))
}
