//! Blocks of history for watchers that are not, or not wholly, read from the node's own store.

use std::collections::BTreeMap;

use flotilla_core::GroupId;
use flotilla_core::mvcc::Failure;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::{AskedChanges, Told, ask::What};
use flotilla_core::remote::{self, Assembly};
use flotilla_core::spine::replica::{Input, Question};
use flotilla_core::watch::{Block, Effect};

use super::plan::{MS, SECOND};
use super::reduction::Part;
use super::world::World;

/// How soon it is looked again whether a block can go on.
const LOOK_AGAIN: u64 = 5 * MS;
/// A block that takes longer is given up.
const READ_WITHIN: u64 = 3 * SECOND;
/// Once in so many looks a block is given up when the store can be read after all.
const GIVEN_UP_ONE_IN: u64 = 2;

/// A block that waits for other nodes.
#[derive(Debug)]
pub(super) struct Fetching {
    assembly: Assembly,
    /// Pieces that were asked for, by the number of the question.
    asked: BTreeMap<u64, (GroupId, AskedChanges)>,
    since: u64,
    /// From then on pieces that can be read here are.
    is_refused: bool,
}

impl World {
    fn is_block_sent_away(&mut self) -> bool {
        self.chance.one_in(self.plan.blocks_elsewhere_one_in)
            && self.reduction.has(Part::BlocksElsewhere)
    }

    /// The hub of a node may want history.
    pub(super) fn on_catch_up(&mut self, id: u64) {
        let is_sent_away = self.is_block_sent_away();
        let running = self.up(id);
        running.is_catch_up_planned = false;
        let is_whole = running.stage.is_whole();
        if let Some(fetching) = &running.fetching {
            let is_late = fetching.since + READ_WITHIN < self.now;
            if is_late {
                self.see("watch block given up");
                self.end_block(id, None);
            } else if is_whole && self.chance.one_in(GIVEN_UP_ONE_IN) {
                self.see("watch block given up for the own store");
                self.forget_block(id);
                self.catch_up_here(id);
            } else {
                self.go_on_with_block(id);
            }
            return;
        }
        if !running.hub.is_behind() {
            return;
        }
        if is_whole && !is_sent_away {
            return self.catch_up_here(id);
        }
        let head = running.head();
        let mut effects: Vec<Effect> = Vec::new();
        let since = self.now;
        let running = self.up(id);
        running.fetching = running.hub.next_block(head, &mut effects).map(|request| Fetching {
            assembly: Assembly::new(request),
            asked: BTreeMap::new(),
            since,
            is_refused: false,
        });
        let is_asking = running.fetching.is_some();
        self.carry_out_hub(id, effects);
        if is_asking {
            self.go_on_with_block(id);
        }
    }

    fn catch_up_here(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a node has a hub");
        let running = node.running.as_mut().expect("it is up");
        let head = running.head();
        match running.hub.catch_up(&node.store.view, head, || true) {
            Ok(effects) => {
                self.see("watchers caught up from history");
                self.carry_out_hub(id, effects);
            }
            Err(error) => self.invariants.break_with(format!("node {id}: {error}")),
        }
    }

    /// Reads the pieces that are here, and asks for the others.
    fn go_on_with_block(&mut self, id: u64) {
        let reach = self.up(id).stage.reach().clone();
        let mut questions = Vec::new();
        let mut pieces_here = 0;
        loop {
            let is_sent_away = self.is_block_sent_away();
            let node = self.nodes.get_mut(&id).expect("a node has a hub");
            let running = node.running.as_mut().expect("it is up");
            let fetching = running.fetching.as_mut().expect("a block is under way");
            if reach.shown.head.revision < fetching.assembly.request().to {
                self.invariants.break_with(format!("node {id} was told of more than it shows"));
                return;
            }
            let Some((range, asked)) = fetching.assembly.next(&reach.owners) else { break };
            if !reach.has(range) || (is_sent_away && !fetching.is_refused) {
                running.requests_count += 1;
                let n = running.requests_count;
                fetching.asked.insert(n, (range, asked.clone()));
                let what = What::Changes(asked);
                questions.push((n, Question { range, shown: reach.shown, what }));
                continue;
            }
            match remote::changes(&node.store.view, &asked) {
                Ok(page) => fetching.assembly.take(&asked, page),
                Err(Failure::View(error)) => {
                    return self.invariants.break_with(format!("node {id}: {error}"));
                }
                Err(Failure::Client(_) | Failure::Overtaken) => {
                    self.see("watch block overtaken by compaction");
                    return self.end_block(id, None);
                }
            }
            pieces_here += 1;
        }
        if questions.len() > 1 || (!questions.is_empty() && pieces_here > 0) {
            self.see("watch block in pieces");
        }
        for (n, question) in questions {
            self.see("watch block from elsewhere");
            self.step(id, Input::Question(n, question));
        }
        self.finish_block(id);
    }

    /// Hands the block to the hub, if it has all its pieces.
    fn finish_block(&mut self, id: u64) {
        let Some(fetching) = self.up(id).fetching.take_if(|it| it.assembly.is_complete()) else {
            return self.plan_hub(id);
        };
        let request = fetching.assembly.request().clone();
        let block = fetching.assembly.finish();
        let effects = self.up(id).hub.take_block(&request, Some(block));
        self.see("watch block put together");
        self.carry_out_hub(id, effects);
    }

    fn end_block(&mut self, id: u64, block: Option<Block>) {
        let Some(fetching) = self.forget_block(id) else { return };
        let effects = self.up(id).hub.take_block(fetching.assembly.request(), block);
        self.carry_out_hub(id, effects);
    }

    fn forget_block(&mut self, id: u64) -> Option<Fetching> {
        let fetching = self.up(id).fetching.take()?;
        // They may have been answered with the same step.
        self.up(id).blocks_forgotten.extend(fetching.asked.keys());
        for n in fetching.asked.keys() {
            self.step(id, Input::QuestionUnwanted(*n));
        }
        Some(fetching)
    }

    /// Whether the question was for a block: then it is taken care of.
    pub(super) fn on_block_told(&mut self, id: u64, n: u64, told: Told) -> Option<Told> {
        let running = self.up(id);
        if running.blocks_forgotten.remove(&n) {
            return None;
        }
        let Some(fetching) = &mut running.fetching else { return Some(told) };
        let Some((range, asked)) = fetching.asked.remove(&n) else { return Some(told) };
        let span = Span::from_request(asked.key.clone(), asked.range_end.clone());
        let reach = running.stage.reach();
        let has_moved = !reach.owners.owns(range, &span);
        let is_here = reach.has_all(&span);
        if told.is_refused {
            fetching.is_refused = true;
            fetching.assembly.put_back(&asked);
            self.see("watch block refused");
            self.see_move(has_moved, is_here);
            self.plan_hub(id);
            return None;
        }
        match remote::outcome(told) {
            Ok(told) => {
                let is_understood = fetching.assembly.take_told(&asked, told);
                if !is_understood {
                    self.invariants.break_with(format!("node {id} is told nonsense"));
                }
                self.see_move(has_moved, is_here);
                self.go_on_with_block(id);
            }
            Err(_) => {
                self.see("watch block overtaken by compaction");
                self.end_block(id, None);
            }
        }
        None
    }

    fn see_move(&mut self, has_moved: bool, is_here: bool) {
        if has_moved {
            self.see("range moved between asking and taking");
        }
        if is_here {
            self.see("range was here between asking and taking");
        }
    }

    /// When the hub is to be looked at again.
    pub(super) fn block_pause(&mut self, id: u64, mean: u64) -> Option<u64> {
        let running = self.up(id);
        if running.fetching.is_some() {
            return Some(LOOK_AGAIN);
        }
        running.hub.is_behind().then(|| self.chance.wait(mean))
    }
}
