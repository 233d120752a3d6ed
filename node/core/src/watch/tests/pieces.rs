//! Blocks of history that come in pieces: from here and from elsewhere, in any order, refused, late,
//! or never, while ranges are cut and merged.

use crate::GroupId;
use crate::mvcc::Head;
use crate::proto::internal::{Ask, AskedChanges, ask::What};
use crate::remote::{self, Assembly, Owners};
use crate::watch::{Block, BlockRequest, Effect, Hub};

use super::random::{Chance, KEYS};
use super::stage::Store;

/// Ranges that there ever were.
const RANGES_MAX: u64 = 40;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) blocks: u64,
    pub(super) refused: u64,
    pub(super) moved: u64,
    pub(super) given_up: u64,
    pub(super) late: u64,
    pub(super) within_a_revision: u64,
}

#[derive(Debug, Default)]
pub(super) struct Pieces {
    owners: Owners,
    ranges_count: u64,
    assembly: Option<Assembly>,
    asked: Vec<(GroupId, AskedChanges)>,
    /// Given up, and answered all the same.
    late: Option<(BlockRequest, Block)>,
    pub(super) seen: Seen,
}

impl Pieces {
    /// Keys change hands.
    pub(super) fn move_keys(&mut self, chance: &mut Chance) {
        let owners: Vec<GroupId> = self.owners.ranges().collect();
        if chance.below(2) == 0 && owners.len() > 1 {
            let at = chance.below(owners.len() as u64 - 1) as usize;
            // Range 0 takes over nobody, and nobody takes it over.
            if owners[at] != GroupId::SPINE && owners[at + 1] != GroupId::SPINE {
                self.owners.merge(owners[at], owners[at + 1]);
            }
        } else if self.ranges_count < RANGES_MAX {
            self.ranges_count += 1;
            let key = KEYS[chance.below(KEYS.len() as u64) as usize];
            self.owners.split(key.into(), GroupId(self.ranges_count));
        }
    }

    /// A little of what a driver does whose node lacks some ranges.
    pub(super) fn step(
        &mut self,
        chance: &mut Chance,
        hub: &mut Hub,
        store: &Store,
        head: Head,
    ) -> Vec<Effect> {
        if let Some((request, block)) = self.late.take_if(|_| chance.below(4) == 0) {
            self.seen.late += 1;
            let effects = hub.take_block(&request, Some(block));
            assert_eq!(effects, [], "it was given up");
        }
        let Some(assembly) = &mut self.assembly else {
            let mut effects = Vec::new();
            self.assembly = hub.next_block(head, &mut effects).map(Assembly::new);
            return effects;
        };
        let is_given_up = !hub.is_asking();
        while self.asked.len() < 4 && chance.below(3) > 0 {
            let Some(piece) = assembly.next(&self.owners) else { break };
            self.asked.push(piece);
        }
        if self.asked.is_empty() {
            return Vec::new();
        }
        if chance.below(6) == 0 {
            self.move_keys(chance);
            return Vec::new();
        }
        let at = chance.below(self.asked.len() as u64) as usize;
        let (range, asked) = self.asked.remove(at);
        let span = crate::proto::Span::from_request(asked.key.clone(), asked.range_end.clone());
        self.seen.moved += u64::from(!self.owners.owns(range, &span));
        if is_given_up || chance.below(30) == 0 {
            return self.give_up(hub, store);
        }
        if chance.below(5) == 0 {
            self.seen.refused += 1;
            assembly.put_back(&asked);
            return Vec::new();
        }
        if range.0.is_multiple_of(2) {
            match remote::changes(store.view(), &asked) {
                Ok(page) => assembly.take(&asked, page),
                Err(_) => return self.give_up(hub, store),
            }
        } else {
            let revision = store.head.revision;
            let what = Some(What::Changes(asked.clone()));
            let ask = Ask { range: range.0, revision, what, ..Ask::default() };
            let told = remote::answer(store.view(), &ask).expect("memory can be read");
            assert!(!told.is_refused);
            self.seen.within_a_revision += u64::from(told.next_revision == asked.from);
            match remote::outcome(told) {
                Ok(told) => {
                    let context = format!("{asked:?}: {told:?}");
                    assert!(assembly.take_told(&asked, told), "{context}");
                }
                Err(_) => return self.give_up(hub, store),
            }
        }
        let Some(assembly) = self.assembly.take_if(|assembly| assembly.is_complete()) else {
            return Vec::new();
        };
        self.seen.blocks += 1;
        let request = assembly.request().clone();
        hub.take_block(&request, Some(assembly.finish()))
    }

    fn give_up(&mut self, hub: &mut Hub, store: &Store) -> Vec<Effect> {
        self.seen.given_up += 1;
        self.asked.clear();
        let assembly = self.assembly.take().expect("one is under way");
        let request = assembly.request().clone();
        let block = request.read(store.view()).expect("memory can be read");
        self.late = block.map(|block| (request.clone(), block));
        hub.take_block(&request, None)
    }
}
