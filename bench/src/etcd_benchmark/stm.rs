//! `stm`: software transactions. Keys are read, some are written, and the commit compares what
//! the isolation asks for; a transaction that lost begins again.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{bail, ensure};
use bytes::Bytes;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::request_op::Request;
use flotilla_proto::v3lockpb;

use super::Benchmark;
use super::summary::{print, summary};
use crate::flags::Flags;
use crate::random::Random;
use crate::wire::{Channel, Code, Method, Status};

/// Attempts of one transaction before it counts as failed.
const ATTEMPTS_MAX: u32 = 10_000;
/// Seconds a lock's lease lives.
const LOCK_TTL_SECS: i64 = 60;

/// How strictly a transaction is kept apart from others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    ReadCommitted,
    RepeatableReads,
    Serializable,
    SerializableSnapshot,
}

#[derive(Clone)]
struct Transaction {
    isolation: Isolation,
    keys_count: u64,
    keys_per_txn: u64,
    writes: u64,
    value_bytes: usize,
}

/// `stm`
pub(super) async fn run(bench: &Benchmark, flags: &Flags) -> anyhow::Result<()> {
    let keys_count: u64 = flags.or("keys", 1)?;
    let keys_per_txn: u64 = flags.or("keys-per-txn", 1)?;
    let percent: u64 = flags.or("txn-wr-percent", 50)?;
    ensure!(keys_count > 0, "expected positive --keys, got ({keys_count})");
    ensure!(percent <= 100, "expected [0, 100] --txn-wr-percent, got ({percent})");
    ensure!(
        keys_per_txn <= keys_count,
        "expected --keys-per-txn between 0 and {keys_count}, got ({keys_per_txn})"
    );
    let has_lock = match flags.text("stm-locker").unwrap_or("stm") {
        "stm" => false,
        "lock-rpc" => true,
        "lock-client" => bail!("--stm-locker lock-client is not built; use stm or lock-rpc"),
        other => bail!("unexpected stm locker {other:?}"),
    };
    let isolation = match flags.text("isolation").unwrap_or("r") {
        "c" => Isolation::ReadCommitted,
        "r" => Isolation::RepeatableReads,
        "s" => Isolation::Serializable,
        "ss" => Isolation::SerializableSnapshot,
        other => bail!("--isolation: c, r, s or ss, not {other:?}"),
    };
    let transaction = Transaction {
        isolation,
        keys_count,
        keys_per_txn,
        writes: keys_per_txn * percent / 100,
        value_bytes: flags.or("val-size", 8)?,
    };
    let request = move |(channel, lease): (Arc<Channel>, i64), number| {
        let transaction = transaction.clone();
        async move {
            let mut lease = lease;
            let result = match has_lock {
                true => locked(&channel, &mut lease, &transaction, number).await,
                false => transaction.run(&channel, number).await,
            };
            ((channel, lease), result)
        }
    };
    let client = |client| (bench.pool.channel(client), 0);
    let total = flags.or("total", 10_000)?;
    let results = bench.drive(total, flags.or("rate", 0.0)?, client, request).await?;
    print(&summary(&results, bench.style))
}

async fn call<A: prost::Message + Default>(
    channel: &Channel,
    method: Method,
    request: &impl prost::Message,
) -> Result<A, Status> {
    let answer = channel.unary(method, &request.encode_to_vec()).await?;
    A::decode(answer).map_err(|error| Status::new(Code::INTERNAL, error.to_string()))
}

/// Runs a transaction under the one lock all clients share.
async fn locked(
    channel: &Channel,
    lease: &mut i64,
    transaction: &Transaction,
    number: u64,
) -> Result<(), Status> {
    if *lease == 0 {
        let request = pb::LeaseGrantRequest { ttl: LOCK_TTL_SECS, id: 0 };
        *lease = call::<pb::LeaseGrantResponse>(channel, Method::LeaseGrant, &request).await?.id;
    }
    let request = v3lockpb::LockRequest { name: Bytes::from_static(b"stmlock"), lease: *lease };
    let key = call::<v3lockpb::LockResponse>(channel, Method::Lock, &request).await?.key;
    let result = transaction.run(channel, number).await;
    let request = v3lockpb::UnlockRequest { key };
    call::<v3lockpb::UnlockResponse>(channel, Method::Unlock, &request).await?;
    result
}

impl Transaction {
    async fn run(&self, channel: &Channel, number: u64) -> Result<(), Status> {
        let mut random = Random::new(1, number);
        let mut keys = BTreeSet::new();
        while (keys.len() as u64) < self.keys_per_txn {
            keys.insert(random.below(self.keys_count));
        }
        let keys: Vec<Bytes> =
            keys.iter().map(|key| Bytes::from(format!("stm-{key:012}"))).collect();
        for _ in 0..ATTEMPTS_MAX {
            let (reads, first_revision) = self.read(channel, &keys).await?;
            if self.commit(channel, &keys, &reads, first_revision).await? {
                return Ok(());
            }
        }
        Err(Status::new(Code(10), "the transaction lost every time"))
    }

    /// Mod revisions of the keys, and the revision of the first read.
    async fn read(&self, channel: &Channel, keys: &[Bytes]) -> Result<(Vec<i64>, i64), Status> {
        let has_snapshot =
            matches!(self.isolation, Isolation::Serializable | Isolation::SerializableSnapshot);
        let (mut revisions, mut first) = (Vec::new(), 0);
        for key in keys {
            let request = pb::RangeRequest {
                key: key.clone(),
                revision: if has_snapshot { first } else { 0 },
                ..Default::default()
            };
            let answer: pb::RangeResponse = call(channel, Method::Range, &request).await?;
            if first == 0 {
                first = answer.header.map_or(0, |header| header.revision);
            }
            revisions.push(answer.kvs.first().map_or(0, |pair| pair.mod_revision));
        }
        Ok((revisions, first))
    }

    async fn commit(
        &self,
        channel: &Channel,
        keys: &[Bytes],
        reads: &[i64],
        first_revision: i64,
    ) -> Result<bool, Status> {
        let compare =
            |key: &Bytes, result: pb::compare::CompareResult, revision: i64| pb::Compare {
                result: result.into(),
                target: pb::compare::CompareTarget::Mod.into(),
                key: key.clone(),
                target_union: Some(pb::compare::TargetUnion::ModRevision(revision)),
                ..Default::default()
            };
        let written = &keys[..self.writes as usize];
        let mut conditions = Vec::new();
        if self.isolation != Isolation::ReadCommitted {
            let equal = pb::compare::CompareResult::Equal;
            conditions.extend(keys.iter().zip(reads).map(|(key, read)| compare(key, equal, *read)));
        }
        if self.isolation == Isolation::SerializableSnapshot {
            let less = pb::compare::CompareResult::Less;
            conditions.extend(written.iter().map(|key| compare(key, less, first_revision + 1)));
        }
        let value = Bytes::from(vec![b'v'; self.value_bytes]);
        let put = |key: &Bytes| {
            let put =
                pb::PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = written.iter().map(put).collect();
        let request = pb::TxnRequest { compare: conditions, success, failure: Vec::new() };
        Ok(call::<pb::TxnResponse>(channel, Method::Txn, &request).await?.succeeded)
    }
}
