//! Transactions over several ranges that are decided, until the log of each of their ranges tells
//! what became of them. A part of the spine's state.
//!
//! The first record that names a transaction decides it: a commit, or an end without effect. The
//! second is void by its request id (I13), so nothing has to be kept of what had no effect.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::GroupId;
use crate::command::RequestId;
use crate::proto::internal::{self, Share, StoredTxn};

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It has this revision, and these effects in the range that is asked for.
    Commit(i64, Share),
    /// It has no effect.
    Abort,
}

/// Committed transactions whose effects are not in the logs of all ranges yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txns {
    by_id: BTreeMap<RequestId, StoredTxn>,
}

impl Txns {
    /// A transaction is committed.
    pub fn commit(&mut self, id: RequestId, revision: i64, shares: Vec<Share>) {
        self.by_id.insert(id, StoredTxn { revision, shares });
    }

    /// The log of a range tells what became of a transaction. True if that was news.
    pub fn resolved(&mut self, range: GroupId, id: RequestId) -> bool {
        let Some(txn) = self.by_id.get_mut(&id) else { return false };
        let before = txn.shares.len();
        txn.shares.retain(|share| share.range != range.0);
        let is_news = txn.shares.len() < before;
        if txn.shares.is_empty() {
            self.by_id.remove(&id);
        }
        is_news
    }

    /// What a committed transaction does to a range whose log does not tell of it yet.
    pub fn share(&self, range: GroupId, id: RequestId) -> Option<(i64, &Share)> {
        let txn = self.by_id.get(&id)?;
        let share = txn.shares.iter().find(|share| share.range == range.0)?;
        Some((txn.revision, share))
    }

    /// Those that concern a range whose log may not tell of them yet.
    pub fn open(&self, range: GroupId) -> impl Iterator<Item = (RequestId, &Share)> {
        let ids = self.by_id.keys().copied();
        ids.filter_map(move |id| self.share(range, id).map(|(_, share)| (id, share)))
    }

    /// A transaction as it is stored; `None` when nothing of it is left to keep.
    pub fn encode(&self, id: RequestId) -> Option<Bytes> {
        self.by_id.get(&id).map(|txn| txn.encode_to_vec().into())
    }

    /// Takes a transaction as it was stored. `None` when that is damaged.
    pub fn decode(&mut self, id: RequestId, value: &[u8]) -> Option<()> {
        let txn = StoredTxn::decode(value).ok()?;
        self.by_id.insert(id, txn);
        Some(())
    }
}

/// The name of a transaction on the wire.
pub fn to_proto(id: RequestId) -> internal::TxnId {
    internal::TxnId { origin: id.origin, n: id.n }
}

/// The name that a record or an entry of a log gives; one that gives none names nobody's.
pub fn id_of(id: Option<&internal::TxnId>) -> RequestId {
    id.map(from_proto).unwrap_or_default()
}

/// And back.
pub fn from_proto(id: &internal::TxnId) -> RequestId {
    RequestId { origin: id.origin, n: id.n }
}
