//! The buckets of an etcd's database, and what their rows mean. The only place that knows them.
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `alarm` | `AlarmMember` | empty |
//! | `auth` | `authEnabled`, `authRevision` | one byte, 8 bytes |
//! | `authRoles`, `authUsers` | the name | `authpb.Role`, `authpb.User` |
//! | `cluster` | `clusterVersion` | text |
//! | `key` | revision: main (8), `_`, sub (8), and `t` if it is a delete | `mvccpb.KeyValue`; of a delete its key |
//! | `lease` | id (8) | `leasepb.Lease` |
//! | `members`, `members_removed` | id in hex | JSON, `removed` |
//! | `meta` | `consistent_index`, `term`, `confState`, `scheduledCompactRev`, `finishedCompactRev` | 8 bytes, 8 bytes, JSON, two revisions as in `key` |
//!
//! Numbers are big-endian. Buckets and rows are written in the order of their bytes, so equal states
//! give equal files. Source: etcd server/storage/schema, tag v3.6.14.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes};
use prost::Message;

use super::bolt::{self, Reader, Writer};
use super::{Error, bolt::Damage};
use crate::auth::Auth;
use crate::mvcc::layout::{KeyValueFields, Revision};
use crate::proto::etcdserverpb::AlarmMember;
use crate::proto::internal::{ConfState, Member};
use crate::spine::State;
use crate::spine::state::Lease;

const ALARM: &str = "alarm";
const AUTH: &str = "auth";
const AUTH_ROLES: &str = "authRoles";
const AUTH_USERS: &str = "authUsers";
const CLUSTER: &str = "cluster";
const KEY: &str = "key";
const LEASE: &str = "lease";
const MEMBERS: &str = "members";
const MEMBERS_REMOVED: &str = "members_removed";
const META: &str = "meta";

const AUTH_ENABLED: &[u8] = b"authEnabled";
const AUTH_REVISION: &[u8] = b"authRevision";
const CLUSTER_VERSION: &[u8] = b"clusterVersion";
const CONF_STATE: &[u8] = b"confState";
const CONSISTENT_INDEX: &[u8] = b"consistent_index";
const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
const TERM: &[u8] = b"term";

/// Bytes of the key of a change.
const CHANGE_KEY_BYTES: usize = 17;
/// Behind the key of a delete.
const DELETE: u8 = b't';
/// Separates the halves of a revision.
const SEPARATOR: u8 = b'_';

/// What there is beside keys: of a state that is written, or of an image that is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Of the history, everything that this compact revision makes useless is left out; -1 if it was
    /// never compacted.
    pub compacted: i64,
    /// The compact revision: what it makes useless is perhaps still there. -1 if there is none.
    pub compact_revision: i64,
    /// By id. Ranges are not known.
    pub leases: BTreeMap<i64, Lease>,
    /// Users, roles and permissions.
    pub auth: Auth,
    /// (kind, member) of active alarms.
    pub alarms: BTreeSet<(i32, u64)>,
}

/// Where an image comes from. Nothing of it is restored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The applied entry of the spine, and its term.
    pub index: u64,
    /// See `index`.
    pub term: u64,
    /// Voters and learners.
    pub conf: ConfState,
    /// The members of the cluster.
    pub members: Vec<Member>,
    /// Ids of members that were removed.
    pub removed: BTreeSet<u64>,
    /// Empty if it was not agreed on.
    pub cluster_version: String,
}

/// One change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// Its place in the order.
    pub revision: Revision,
    /// The key was removed.
    pub is_delete: bool,
    /// Encoded `KeyValue`, of a delete with nothing but the key. Empty: no change, but the store was
    /// at this revision, as etcd's tools leave it when they raise a revision.
    pub kv: &'a [u8],
}

impl Facts {
    /// Of a state.
    pub fn of(state: &State) -> Self {
        let compact_revision = state.position().compact_revision;
        Self {
            compacted: compact_revision,
            compact_revision,
            leases: state.leases().clone(),
            auth: Auth::clone(state.auth()),
            alarms: state.alarms().clone(),
        }
    }
}

impl Origin {
    /// Of a state.
    pub fn of(state: &State) -> Self {
        Self {
            index: state.position().index,
            term: state.position().term,
            conf: state.conf().clone(),
            members: state.members().values().cloned().collect(),
            removed: state.removed().clone(),
            cluster_version: state.cluster_version().to_owned(),
        }
    }
}

/// `leasepb.Lease`.
#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

/// Writes what comes before the keys. Changes follow, in the order of their revisions.
pub fn write_before(facts: &Facts, origin: &Origin, writer: &mut Writer) {
    writer.bucket(ALARM.as_bytes());
    let alarm = |(alarm, member_id): &(i32, u64)| {
        AlarmMember { member_id: *member_id, alarm: *alarm }.encode_to_vec()
    };
    let alarms: BTreeSet<Vec<u8>> = facts.alarms.iter().map(alarm).collect();
    alarms.iter().for_each(|alarm| writer.put(alarm, &[]));
    writer.bucket(AUTH.as_bytes());
    writer.put(AUTH_ENABLED, &[u8::from(facts.auth.is_enabled())]);
    writer.put(AUTH_REVISION, &facts.auth.revision().to_be_bytes());
    writer.bucket(AUTH_ROLES.as_bytes());
    for name in facts.auth.role_names() {
        writer.put(name.as_bytes(), &facts.auth.encode_role(name).unwrap_or_default());
    }
    writer.bucket(AUTH_USERS.as_bytes());
    for name in facts.auth.user_names() {
        writer.put(name.as_bytes(), &facts.auth.encode_user(name).unwrap_or_default());
    }
    writer.bucket(CLUSTER.as_bytes());
    if !origin.cluster_version.is_empty() {
        writer.put(CLUSTER_VERSION, origin.cluster_version.as_bytes());
    }
    writer.bucket(KEY.as_bytes());
}

/// Writes a change.
pub fn write_change(change: &Change<'_>, writer: &mut Writer) {
    let mut key = revision_key(change.revision);
    if change.is_delete {
        key.push(DELETE);
    }
    writer.put(&key, change.kv);
}

/// Writes what comes behind the keys.
pub fn write_after(facts: &Facts, origin: &Origin, writer: &mut Writer) {
    writer.bucket(LEASE.as_bytes());
    let mut leases: Vec<(u64, &Lease)> =
        facts.leases.iter().map(|(id, lease)| (id.cast_unsigned(), lease)).collect();
    leases.sort_by_key(|(id, _)| *id);
    for (id, Lease { ttl, remaining_ttl, .. }) in leases {
        let (ttl, remaining_ttl) = (*ttl, *remaining_ttl);
        let value = StoredLease { id: id.cast_signed(), ttl, remaining_ttl }.encode_to_vec();
        writer.put(&id.to_be_bytes(), &value);
    }
    writer.bucket(MEMBERS.as_bytes());
    let members: BTreeMap<String, &Member> =
        origin.members.iter().map(|member| (format!("{:x}", member.id), member)).collect();
    for (id, member) in members {
        let mut value = serde_json::json!({
            "id": member.id,
            "peerURLs": member.peer_urls,
            "name": member.name,
            "clientURLs": member.client_urls,
        });
        if member.is_learner {
            value["isLearner"] = true.into();
        }
        writer.put(id.as_bytes(), value.to_string().as_bytes());
    }
    writer.bucket(MEMBERS_REMOVED.as_bytes());
    let removed: BTreeSet<String> = origin.removed.iter().map(|id| format!("{id:x}")).collect();
    removed.iter().for_each(|id| writer.put(id.as_bytes(), b"removed"));
    writer.bucket(META.as_bytes());
    let mut conf = serde_json::json!({ "voters": origin.conf.voters, "auto_leave": false });
    if !origin.conf.learners.is_empty() {
        conf["learners"] = origin.conf.learners.clone().into();
    }
    writer.put(CONF_STATE, conf.to_string().as_bytes());
    writer.put(CONSISTENT_INDEX, &origin.index.to_be_bytes());
    let revision = |main| revision_key(Revision { main, sub: 0 });
    if facts.compacted >= 0 {
        writer.put(FINISHED_COMPACT, &revision(facts.compacted));
    }
    if facts.compact_revision >= 0 {
        writer.put(SCHEDULED_COMPACT, &revision(facts.compact_revision));
    }
    writer.put(TERM, &origin.term.to_be_bytes());
}

/// Reads what there is beside keys.
///
/// # Errors
/// The file cannot be read, is damaged, or is no etcd's.
pub fn facts(reader: &Reader<impl bolt::Bytes>) -> Result<Facts, Error> {
    let (mut compacted, mut compact_revision) = (-1, -1);
    let has_meta = rows(reader, META, &mut |key, value| {
        match key {
            FINISHED_COMPACT => compacted = read_revision(value)?.main,
            SCHEDULED_COMPACT => compact_revision = read_revision(value)?.main,
            _ => {}
        }
        Some(())
    })?;
    if !has_meta {
        return Err(Damage("it is not the database of an etcd".to_owned()).into());
    }
    let (mut is_enabled, mut revision) = (false, 1);
    rows(reader, AUTH, &mut |key, value| {
        match key {
            AUTH_ENABLED => is_enabled = value == [1],
            AUTH_REVISION => revision = u64::from_be_bytes(value.try_into().ok()?),
            _ => {}
        }
        Some(())
    })?;
    let mut auth = Auth::restored(is_enabled, revision);
    rows(reader, AUTH_ROLES, &mut |_, value| auth.decode_role(value))?;
    rows(reader, AUTH_USERS, &mut |_, value| auth.decode_user(value))?;
    let mut leases = BTreeMap::new();
    rows(reader, LEASE, &mut |key, value| {
        let lease = StoredLease::decode(value).ok()?;
        let is_sound = key == lease.id.to_be_bytes() && lease.id != 0 && lease.ttl > 0;
        let (ttl, remaining_ttl) = (lease.ttl, lease.remaining_ttl.clamp(0, lease.ttl));
        leases.insert(lease.id, Lease { ttl, remaining_ttl, ..Lease::default() });
        is_sound.then_some(())
    })?;
    let mut alarms = BTreeSet::new();
    rows(reader, ALARM, &mut |key, _| {
        let alarm = AlarmMember::decode(key).ok()?;
        alarms.insert((alarm.alarm, alarm.member_id));
        Some(())
    })?;
    let compact_revision = compact_revision.max(compacted);
    Ok(Facts { compacted, compact_revision, leases, auth, alarms })
}

/// Visits all changes in the order of their revisions; `Break` ends it.
///
/// # Errors
/// The file cannot be read, is damaged, or is no etcd's.
pub fn visit_changes(
    reader: &Reader<impl bolt::Bytes>,
    visit: &mut dyn FnMut(Change<'_>) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut is_found = Ok(());
    let has_keys = reader.visit(KEY.as_bytes(), &mut |key, value| {
        let change = read_change(key, value);
        match change {
            Ok(change) => visit(change),
            Err(what) => {
                is_found = Err(Error::Row { bucket: KEY, what });
                ControlFlow::Break(())
            }
        }
    })?;
    if !has_keys {
        return Err(Damage("it is not the database of an etcd".to_owned()).into());
    }
    is_found
}

/// The revision of the state: that of the last change, or the compact revision if that is later.
///
/// # Errors
/// The file cannot be read, is damaged, or is no etcd's.
pub fn revision(reader: &Reader<impl bolt::Bytes>) -> Result<i64, Error> {
    let mut last = facts(reader)?.compact_revision.max(1);
    visit_changes(reader, &mut |change| {
        last = last.max(change.revision.main);
        ControlFlow::Continue(())
    })?;
    Ok(last)
}

fn read_change<'a>(key: &[u8], kv: &'a [u8]) -> Result<Change<'a>, String> {
    let wrong = |what: &str| format!("{what} at {key:02x?}");
    let is_delete = key.len() == CHANGE_KEY_BYTES + 1 && key.last() == Some(&DELETE);
    let place = if is_delete { &key[..CHANGE_KEY_BYTES] } else { key };
    let revision = read_revision(place).ok_or_else(|| wrong("no revision"))?;
    if kv.is_empty() && !is_delete {
        return Ok(Change { revision, is_delete, kv });
    }
    let fields = KeyValueFields::decode(kv).map_err(|error| wrong(&error.0))?;
    let is_sound = is_delete
        || (fields.mod_revision == revision.main
            && (1..=revision.main).contains(&fields.create_revision)
            && fields.version > 0);
    if fields.key.is_empty() || !is_sound {
        return Err(wrong("a key-value of another revision"));
    }
    Ok(Change { revision, is_delete, kv })
}

/// Takes a row; `None` if it cannot be understood.
type ReadRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Option<()>;

/// Reads all rows of a bucket, which may be missing. Whether it was there.
fn rows(
    reader: &Reader<impl bolt::Bytes>,
    bucket: &'static str,
    read: ReadRow<'_>,
) -> Result<bool, Error> {
    let mut result = Ok(());
    let is_there = reader.visit(bucket.as_bytes(), &mut |key, value| match read(key, value) {
        Some(()) => ControlFlow::Continue(()),
        None => {
            let key = Bytes::copy_from_slice(key);
            result = Err(Error::Row { bucket, what: format!("{key:?}") });
            ControlFlow::Break(())
        }
    })?;
    result.map(|()| is_there)
}

fn revision_key(revision: Revision) -> Vec<u8> {
    let mut key = Vec::with_capacity(CHANGE_KEY_BYTES + 1);
    key.put_i64(revision.main);
    key.put_u8(SEPARATOR);
    key.put_i64(revision.sub);
    key
}

fn read_revision(key: &[u8]) -> Option<Revision> {
    let (main, rest) = key.split_first_chunk()?;
    let (separator, sub) = rest.split_first()?;
    let (main, sub) = (i64::from_be_bytes(*main), i64::from_be_bytes(sub.try_into().ok()?));
    (*separator == SEPARATOR && main >= 0 && sub >= 0).then_some(Revision { main, sub })
}
