//! Reads that are not, or not wholly, answered from the node's own store.

use flotilla_core::mvcc::{self, Failure};
use flotilla_core::proto::etcdserverpb::RangeRequest;
use flotilla_core::proto::internal::{Ask, AskedRows, Told, ask::What};
use flotilla_core::remote::{self, Attached, Gathering, Reading};
use flotilla_core::spine::replica::{Input, Question};
use flotilla_core::spine::{Parcel, Shown};
use flotilla_core::{GroupId, LeaseId, NodeId};

use super::event::NodeEvent;
use super::reduction::Part;
use super::world::World;
use crate::history::{Answer, Outcome, Request};

/// How soon a read is tried again that was told to look anew.
const AGAIN_PAUSE: u64 = super::plan::MS;

/// A read that waits for another node.
#[derive(Debug)]
pub(super) struct Elsewhere {
    operation: usize,
    shown: Shown,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Read(Reading, RangeRequest),
    Txn(Gathering),
    LeaseKeys(Attached, AskedRows),
}

impl World {
    /// Whether the keys of a range are read on this node.
    fn is_read_here(&mut self, id: u64, operation: usize, range: GroupId) -> bool {
        let is_shown = self.up(id).stage.reach().has(range);
        // A question about what is shown here is given up by the next tick. A long read would not
        // come to its end with such.
        let is_sent_away = self.plan.reads_elsewhere_one_in > 0
            && !self.reads_refused.contains(&operation)
            && self.chance.one_in(self.plan.reads_elsewhere_one_in)
            && self.reduction.has(Part::ReadsElsewhere);
        is_shown && !is_sent_away
    }

    /// Answers a read from what this node may read, and from others.
    pub(super) fn evaluate_read(&mut self, id: u64, operation: usize) {
        if !self.permit_read(id, operation) {
            return;
        }
        let shown = self.up(id).stage.reach().shown;
        let work = match self.operations[operation].request.clone() {
            Request::Read(request) => match Reading::new(shown, request) {
                Ok(reading) => Work::Read(reading, RangeRequest::default()),
                Err(Failure::Client(error)) => return self.answer_error(id, operation, error),
                Err(error) => {
                    return self.invariants.break_with(format!("node {id}: {error}"));
                }
            },
            Request::Txn(request) => Work::Txn(Gathering::new(&request)),
            Request::LeaseTimeToLive(request) => {
                let attached = Attached::new(shown, LeaseId(request.id));
                Work::LeaseKeys(attached, AskedRows::default())
            }
            request => unreachable!("{request} is not a read"),
        };
        self.go_on_reading(id, Elsewhere { operation, shown, work });
    }

    fn go_on_reading(&mut self, id: u64, elsewhere: Elsewhere) {
        let Elsewhere { operation, shown, work } = elsewhere;
        match work {
            Work::Read(reading, _) => self.go_on_with_pages(id, operation, shown, reading),
            Work::Txn(gathering) => self.go_on_with_rows(id, operation, shown, gathering),
            Work::LeaseKeys(attached, _) => {
                self.go_on_with_lease(id, operation, shown, attached);
            }
        }
    }

    fn go_on_with_pages(&mut self, id: u64, operation: usize, shown: Shown, mut reading: Reading) {
        loop {
            let Some((range, read)) = reading.next(&self.up(id).stage.reach().owners) else {
                break;
            };
            if !self.is_read_here(id, operation, range) {
                let what = What::Read(read.clone());
                let work = Work::Read(reading, read);
                return self.put_question(id, range, what, Elsewhere { operation, shown, work });
            }
            match remote::page(&self.nodes[&id].store.view, shown.head, &read) {
                Ok(page) => {
                    let next = page.next.map(|cursor| cursor.start().clone());
                    reading.take(&read, page.answer, next);
                }
                Err(error) => return self.fail_reading(id, operation, error),
            }
        }
        self.answer_read(id, operation, Answer::Read(reading.finish()));
    }

    fn go_on_with_lease(
        &mut self,
        id: u64,
        operation: usize,
        shown: Shown,
        mut attached: Attached,
    ) {
        loop {
            let Some((range, asked)) = attached.next(&self.up(id).stage.reach().owners) else {
                break;
            };
            if !self.is_read_here(id, operation, range) {
                let what = What::Rows(asked.clone());
                let work = Work::LeaseKeys(attached, asked);
                return self.put_question(id, range, what, Elsewhere { operation, shown, work });
            }
            let rows = remote::attached(&self.nodes[&id].store.view, &asked);
            if let Err(error) = rows.and_then(|rows| Ok(attached.take(&asked, &rows)?)) {
                return self.fail_reading(id, operation, error);
            }
        }
        let Some(mut answer) = self.up(id).without_keys.remove(&operation) else {
            let text = format!("node {id} read the keys of a lease for call {operation} twice");
            return self.invariants.break_with(text);
        };
        answer.keys = attached.finish();
        answer.header = mvcc::header(shown.head.revision);
        self.see("keys of a lease read");
        self.answer(id, operation, Outcome::Answered(Answer::LeaseTimeToLive(answer)));
    }

    fn go_on_with_rows(
        &mut self,
        id: u64,
        operation: usize,
        shown: Shown,
        mut gathering: Gathering,
    ) {
        let reach = self.up(id).stage.reach().clone();
        let all: Vec<GroupId> = reach.owners.ranges().collect();
        let here: Vec<GroupId> =
            all.into_iter().filter(|range| self.is_read_here(id, operation, *range)).collect();
        if let Some((range, rows)) = gathering.next(&reach.owners, |range| here.contains(&range)) {
            let work = Work::Txn(gathering);
            let elsewhere = Elsewhere { operation, shown, work };
            return self.put_question(id, range, What::Rows(rows), elsewhere);
        }
        if !gathering.is_still_here(&reach.owners, |range| reach.has(range)) {
            return self.on_node(id, AGAIN_PAUSE, NodeEvent::Evaluate(operation));
        }
        let Request::Txn(request) = &self.operations[operation].request else {
            unreachable!("rows are gathered for transactions")
        };
        let overlay = gathering.over(&self.nodes[&id].store.view).map_err(Failure::View);
        match overlay.and_then(|overlay| mvcc::read_txn(&overlay, shown.head, request)) {
            Ok(answer) => self.answer_read(id, operation, Answer::Txn(answer)),
            Err(error) => self.fail_reading(id, operation, error),
        }
    }

    fn put_question(&mut self, id: u64, range: GroupId, what: What, elsewhere: Elsewhere) {
        let running = self.up(id);
        running.requests_count += 1;
        let n = running.requests_count;
        let shown = elsewhere.shown;
        running.elsewhere.insert(n, elsewhere);
        self.see("read elsewhere");
        self.step(id, Input::Question(n, Question { range, shown, what }));
    }

    fn fail_reading(&mut self, id: u64, operation: usize, failure: Failure) {
        match failure {
            Failure::Client(error) => self.answer_error(id, operation, error),
            // With a newer head, then.
            Failure::Overtaken => {
                self.see("read overtaken by compaction");
                self.on_node(id, AGAIN_PAUSE, NodeEvent::Evaluate(operation));
            }
            Failure::View(error) => self.invariants.break_with(format!("node {id}: {error}")),
        }
    }

    pub(super) fn on_told(&mut self, id: u64, n: u64, told: Told) {
        let Some(told) = self.on_block_told(id, n, told) else { return };
        let Some(mut elsewhere) = self.up(id).elsewhere.remove(&n) else {
            return self.invariants.break_with(format!("node {id} answers question {n} twice"));
        };
        if told.is_refused {
            self.see("question refused");
            self.reads_refused.insert(elsewhere.operation);
            // By now the keys may be read here, or be another range's.
            return self.on_node(id, AGAIN_PAUSE, NodeEvent::Evaluate(elsewhere.operation));
        }
        let told = match remote::outcome(told) {
            Ok(told) => told,
            Err(failure) => return self.fail_reading(id, elsewhere.operation, failure),
        };
        match &mut elsewhere.work {
            Work::Read(reading, read) => {
                let next = (!told.next.is_empty()).then_some(told.next);
                reading.take(read, told.answer.unwrap_or_default(), next);
            }
            Work::Txn(gathering) => {
                if let Err(error) = gathering.take(told.rows, told.next) {
                    return self.answer_error(id, elsewhere.operation, error);
                }
            }
            Work::LeaseKeys(attached, asked) => {
                if let Err(error) = attached.take(asked, &told.rows) {
                    return self.fail_reading(id, elsewhere.operation, Failure::View(error));
                }
            }
        }
        self.go_on_reading(id, elsewhere);
    }

    /// Another node asks.
    pub(super) fn answer_question(&mut self, id: u64, to: NodeId, ask: &Ask) {
        let mut ask = ask.clone();
        if let Some(What::Rows(rows)) = &mut ask.what {
            // Keys are few and short here: pages are made so too.
            rows.bytes_max = [0, 1, 60][(ask.n % 3) as usize];
        }
        match remote::answer(&self.nodes[&id].store.view, &ask) {
            Ok(told) => self.gather(id, to.0, Parcel::Told(told)),
            Err(error) => self.invariants.break_with(format!("node {id}: {error}")),
        }
    }
}
