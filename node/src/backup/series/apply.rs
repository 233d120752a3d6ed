//! Puts the keys of one prefix, as they were, back into a running cluster. Each transaction is atomic;
//! all of them together are not. None overwrites what was written since it was looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use flotilla_core::image::Source;
use flotilla_proto::Span;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op;
use prost::Message;

use super::cluster::Cluster;
use super::directory::Directory;
use super::restore::{self, At, State};
use crate::ctl::Target;

/// Bytes of keys and values that are put at most, all of which are in memory.
const STATE_BYTES_MAX: usize = 1 << 30;
/// Bytes of keys and values in a transaction, exceeded by none but that of a single key: well below
/// etcd's limit of a request, 1.5 MiB, which counts keys of comparisons as well.
const TXN_BYTES_MAX: usize = 512 << 10;

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) dir: PathBuf,
    pub(super) at: At,
    pub(super) prefix: Bytes,
    pub(super) target: Target,
    /// Keys that were not there are deleted.
    pub(super) is_exact: bool,
    /// Nothing is written.
    pub(super) is_dry: bool,
    /// Keys whose lease is gone are put without one; otherwise they are left out.
    pub(super) drops_leases: bool,
    /// Operations in a transaction.
    pub(super) txn_ops_max: usize,
}

/// A key as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    value: Bytes,
    lease: i64,
}

/// A write, and the revision at which its key was last changed when it was looked at; 0: it was not
/// there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    key: Bytes,
    mod_revision: i64,
    /// `None`: a delete.
    value: Option<Value>,
}

/// What differs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    writes: Vec<Write>,
    unchanged: usize,
    /// Are there, were not, and are left alone.
    extra: usize,
    /// Their lease is gone.
    leased: usize,
}

pub(super) fn apply(request: &Request) -> anyhow::Result<String> {
    let directory = Directory::open(&request.dir)?;
    let state = restore::read(&directory, request.at, request.prefix.clone())?;
    let wanted = keys(&state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(write(request, wanted))?;
    Ok(state.notes + &said)
}

/// Keys that were there.
fn keys(state: &State) -> anyhow::Result<BTreeMap<Bytes, Value>> {
    let (mut keys, mut bytes, mut result) = (BTreeMap::new(), 0_usize, Ok(()));
    let size = |key: &Bytes, value: &Value| key.len() + value.value.len();
    state.chain.visit_changes(&mut |change| {
        let kv = match KeyValue::decode(change.kv) {
            Ok(kv) => kv,
            Err(error) => {
                result = Err(error.into());
                return ControlFlow::Break(());
            }
        };
        let old = if change.is_delete {
            keys.remove(&kv.key)
        } else {
            let value = Value { value: kv.value, lease: kv.lease };
            bytes += size(&kv.key, &value);
            keys.insert(kv.key.clone(), value)
        };
        bytes -= old.map_or(0, |old| size(&kv.key, &old));
        if bytes > STATE_BYTES_MAX {
            result = Err(anyhow::anyhow!(
                "the keys of the prefix have more than {} MiB: choose a longer one",
                STATE_BYTES_MAX >> 20
            ));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    result.map(|()| keys)
}

async fn write(request: &Request, wanted: BTreeMap<Bytes, Value>) -> anyhow::Result<String> {
    let cluster = Cluster::connect(&request.target).await?;
    let leases: BTreeSet<i64> = wanted.values().map(|it| it.lease).filter(|it| *it != 0).collect();
    let leases = cluster.ttls(leases.into_iter().collect()).await?;
    let mut difference = Differ { request, wanted, leases: leases.into_keys().collect() };
    let span = Span::prefix(request.prefix.clone());
    let (mut from, range_end) = span.into_request();
    let mut found = Difference::default();
    loop {
        let (kvs, has_more) = cluster.page(from.clone(), range_end.clone()).await?;
        let last = kvs.last().map(|kv| kv.key.clone());
        kvs.into_iter().for_each(|kv| difference.take(kv, &mut found));
        match last.filter(|_| has_more) {
            // The next key there can be.
            Some(last) => from = [&last[..], &[0]].concat().into(),
            None => break,
        }
    }
    difference.rest(&mut found);
    let (puts, deletes): (Vec<_>, Vec<_>) =
        found.writes.iter().partition(|write| write.value.is_some());
    let mut text =
        format!("{} put, {} deleted, {} unchanged", puts.len(), deletes.len(), found.unchanged);
    if found.extra > 0 {
        write!(text, ", {} that were not there left alone", found.extra)?;
    }
    if found.leased > 0 {
        write!(text, ", {} whose lease is gone left out", found.leased)?;
    }
    if request.is_dry {
        return Ok(format!("would be: {text}\n"));
    }
    let txns = batches(found.writes, request.txn_ops_max);
    let txns_count = txns.len();
    for (done, writes) in txns.into_iter().enumerate() {
        let first = writes.first().map(|write| write.key.clone()).unwrap_or_default();
        let behind = || format!("{done} of {txns_count} transactions were carried out");
        if !cluster.txn(txn(writes)).await.with_context(behind)? {
            bail!(
                "a key from {:?} on was changed meanwhile and is left as it is; {}: ask again",
                String::from_utf8_lossy(&first),
                behind()
            );
        }
    }
    Ok(format!("{text}, in {txns_count} transactions\n"))
}

/// Compares what was with what is.
struct Differ<'a> {
    request: &'a Request,
    /// What was, without what was looked at already.
    wanted: BTreeMap<Bytes, Value>,
    /// Those that are there.
    leases: BTreeSet<i64>,
}

impl Differ<'_> {
    /// A key that is there.
    fn take(&mut self, kv: KeyValue, found: &mut Difference) {
        let mod_revision = kv.mod_revision;
        let Some(value) = self.wanted.remove(&kv.key) else {
            if self.request.is_exact {
                found.writes.push(Write { key: kv.key, mod_revision, value: None });
            } else {
                found.extra += 1;
            }
            return;
        };
        let is_same = |value: &Value| value.value == kv.value && value.lease == kv.lease;
        match self.possible(value) {
            None => found.leased += 1,
            Some(value) if is_same(&value) => found.unchanged += 1,
            Some(value) => {
                found.writes.push(Write { key: kv.key, mod_revision, value: Some(value) });
            }
        }
    }

    /// Keys that are not there.
    fn rest(&mut self, found: &mut Difference) {
        for (key, value) in std::mem::take(&mut self.wanted) {
            match self.possible(value) {
                Some(value) => {
                    found.writes.push(Write { key, mod_revision: 0, value: Some(value) });
                }
                None => found.leased += 1,
            }
        }
    }

    /// With a lease that is there.
    fn possible(&self, value: Value) -> Option<Value> {
        if !self.is_gone(value.lease) {
            return Some(value);
        }
        self.request.drops_leases.then_some(Value { lease: 0, ..value })
    }

    fn is_gone(&self, lease: i64) -> bool {
        lease != 0 && !self.leases.contains(&lease)
    }
}

/// So many writes together, of so many bytes.
fn batches(writes: Vec<Write>, ops_max: usize) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = write.key.len() * 2 + write.value.as_ref().map_or(0, |it| it.value.len());
        bytes += size;
        match batches.last_mut() {
            Some(batch) if batch.len() < ops_max && bytes <= TXN_BYTES_MAX => batch.push(write),
            _ => {
                bytes = size;
                batches.push(vec![write]);
            }
        }
    }
    batches
}

/// All of it, if none of the keys was changed since.
fn txn(writes: Vec<Write>) -> pb::TxnRequest {
    let compare = |write: &Write| pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: write.key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(write.mod_revision)),
    };
    let operation = |write: Write| {
        let key = write.key;
        let request = match write.value {
            Some(Value { value, lease }) => request_op::Request::RequestPut(pb::PutRequest {
                key,
                value,
                lease,
                ..Default::default()
            }),
            None => request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key,
                ..Default::default()
            }),
        };
        pb::RequestOp { request: Some(request) }
    };
    pb::TxnRequest {
        compare: writes.iter().map(compare).collect(),
        success: writes.into_iter().map(operation).collect(),
        failure: Vec::new(),
    }
}
