//! A loss of power: which of the changes that were not synced have reached the disk all the same.

use std::fmt;

use super::volume::{Body, Change, Volume, What};
use crate::sim::chance::Chance;

/// Bytes that reach a disk together at least.
const SECTORS: [usize; 2] = [512, 4_096];
/// A page cache writes back in pieces of this size, in any order.
const BLOCK: usize = 4_096;

/// What a loss of power leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    DropAll,
    /// What came first: a prefix, up to some moment.
    DropSuffix,
    /// Any part, in any order.
    RandomSubset,
    /// A prefix, the last write of which is there in sectors of this size, or not.
    Tear(usize),
    /// Names and sizes, but zeros for the bytes.
    MetadataWithoutData,
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Changes that were not synced when the power failed.
    pub changes: usize,
    /// Of these, the ones that are not there, or not all there.
    pub lost: usize,
    /// Bytes that were written and are not there.
    pub bytes: usize,
}

impl Policy {
    /// One of all policies.
    pub fn draw(chance: &mut Chance) -> Policy {
        match chance.below(5) {
            0 => Policy::DropAll,
            1 => Policy::DropSuffix,
            2 => Policy::RandomSubset,
            3 => Policy::Tear(*chance.pick(&SECTORS)),
            _ => Policy::MetadataWithoutData,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::DropAll => f.write_str("drop-all"),
            Policy::DropSuffix => f.write_str("drop-suffix"),
            Policy::RandomSubset => f.write_str("random-subset"),
            Policy::Tear(sector) => write!(f, "tear-{sector}"),
            Policy::MetadataWithoutData => f.write_str("metadata-without-data"),
        }
    }
}

impl Volume {
    /// The power fails. From now on everything fails until it comes back; then only what has
    /// reached the disk is there.
    pub fn cut(&mut self, policy: Policy, chance: &mut Chance) -> Loss {
        let changes = |inode: &super::volume::Inode| match &inode.body {
            Body::File(content) => content.changes.clone(),
            Body::Directory { .. } | Body::Link(_) => Vec::new(),
        };
        let mut pending: Vec<(u64, u64, What)> = Vec::new();
        for (number, inode) in &self.inodes {
            let all = changes(inode).into_iter();
            pending.extend(all.map(|Change { order, what }| (order, *number, what)));
        }
        pending.sort_by_key(|(order, ..)| *order);
        let names = std::mem::take(&mut self.names);
        let mut orders: Vec<u64> = pending.iter().map(|(order, ..)| *order).collect();
        orders.extend(names.iter().map(|change| change.order));
        orders.sort_unstable();
        let mut loss = Loss { changes: orders.len(), ..Loss::default() };
        // What comes before this has reached the disk, if it goes by order.
        let place = usize::try_from(chance.below(orders.len() as u64 + 1)).expect("a short list");
        let end = orders.get(place).copied().unwrap_or(u64::MAX);
        let last_kept = pending.iter().rev().find(|(order, ..)| *order < end).map(|it| it.0);

        for (order, inode, what) in pending {
            let kept = match policy {
                Policy::DropAll => Vec::new(),
                Policy::DropSuffix if order < end => vec![what.clone()],
                Policy::Tear(sector) if Some(order) == last_kept => tear(&what, sector, chance),
                Policy::Tear(_) if order < end => vec![what.clone()],
                Policy::DropSuffix | Policy::Tear(_) => Vec::new(),
                Policy::RandomSubset => tear(&what, BLOCK, chance),
                Policy::MetadataWithoutData => vec![without_data(&what)],
            };
            let kept_bytes: usize = kept.iter().map(What::bytes).sum();
            let is_whole = kept_bytes == what.bytes() && (kept_bytes > 0 || !kept.is_empty());
            loss.lost += usize::from(!is_whole);
            loss.bytes += what.bytes() - kept_bytes;
            if let Some(Body::File(content)) =
                self.inodes.get_mut(&inode).map(|inode| &mut inode.body)
            {
                kept.iter().for_each(|what| what.apply(&mut content.durable));
            }
        }
        // A journal is a prefix; without one each change of names stands for itself.
        for change in names {
            let is_kept = match policy {
                Policy::DropAll => false,
                Policy::DropSuffix | Policy::Tear(_) => change.order < end,
                Policy::RandomSubset if self.has_strict_names => chance.one_in(2),
                Policy::RandomSubset => change.order < end,
                Policy::MetadataWithoutData => true,
            };
            if is_kept {
                self.commit(&change);
            } else {
                loss.lost += 1;
            }
        }
        self.restart();
        self.is_off = true;
        loss
    }
}

/// Any sectors of a write; another change happens or not.
fn tear(what: &What, sector: usize, chance: &mut Chance) -> Vec<What> {
    let What::Write(offset, data) = what else {
        return if chance.one_in(2) { vec![what.clone()] } else { Vec::new() };
    };
    let mut kept = Vec::new();
    let mut at = 0;
    while at < data.len() {
        // Sectors lie where the disk has them, not where the write begins.
        let begin = usize::try_from(*offset).expect("files fit in memory") + at;
        let length = (sector - begin % sector).min(data.len() - at);
        if chance.one_in(2) {
            kept.push(What::Write(begin as u64, data[at..at + length].to_vec()));
        }
        at += length;
    }
    kept
}

/// The size that a change leads to, without its bytes.
fn without_data(what: &What) -> What {
    match what {
        What::Write(offset, data) => What::Grow(offset + data.len() as u64),
        other => other.clone(),
    }
}

impl What {
    fn bytes(&self) -> usize {
        match self {
            What::Write(_, data) => data.len(),
            What::Resize(_) | What::Grow(_) | What::Zero(..) => 0,
        }
    }
}
