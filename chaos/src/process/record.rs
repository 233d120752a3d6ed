//! What is written down while a run goes on, shared by all clients and watchers: the operations,
//! the content of the revisions, and what later calls are drawn from.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use flotilla_proto::etcdserverpb::WatchResponse;

use crate::history::{
    Answer, ClientId, EMPTY_STORE_REVISION, Event, Evidence, Operation, Outcome, Request, Stamp,
};
use crate::process::clock::Clock;
use crate::process::traffic::Traffic;
use crate::sim::chance::Chance;
use crate::traffic::{KEPT_ONE_IN, Outlook};

/// One in so many puts attaches its key to a lease.
const ATTACHED_ONE_IN: u64 = 5;

/// Everything that is written down during a run.
#[derive(Debug)]
pub struct Recorder {
    /// The clock of the run.
    pub clock: Clock,
    notes: Mutex<Notes>,
}

/// What was written down.
#[derive(Debug, Default)]
pub struct Notes {
    /// The operations, in order of invocation.
    pub operations: Vec<Operation>,
    /// Which node each operation was sent to.
    pub nodes: Vec<usize>,
    /// The content of the revisions, as the watchers of everything saw it.
    pub evidence: Evidence,
    /// Evidence has no hole up to here.
    pub whole_through: i64,
    /// The highest revision that an answer named.
    pub revision_seen: i64,
    /// When a client could not connect to a node, and which.
    pub unreachable: Vec<(Stamp, usize)>,
    leases: BTreeSet<i64>,
    leases_count: i64,
}

impl Recorder {
    /// Nothing written down yet.
    pub fn new(clock: Clock) -> Self {
        let notes = Notes {
            whole_through: EMPTY_STORE_REVISION,
            revision_seen: EMPTY_STORE_REVISION,
            ..Notes::default()
        };
        Self { clock, notes: Mutex::new(notes) }
    }

    /// The notes, for one look.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("nobody panics while writing notes")
    }

    /// Draws the next call of a client. Compactions stay below what the evidence has, so that no
    /// hole of it is of the harness's own making; now and then one names the far future.
    pub fn draw(&self, traffic: &Traffic, chance: &mut Chance) -> Request {
        let mut notes = self.notes();
        let notes = &mut *notes;
        let name = format!("c{}", notes.operations.len());
        let mut outlook = Outlook {
            keys_count: traffic.keys_count,
            has_other_keys: traffic.fill_keys > 0,
            hot: None,
            weights: &traffic.weights,
            revision_seen: notes.revision_seen,
            leases: &notes.leases,
            leases_count: &mut notes.leases_count,
            attached_one_in: ATTACHED_ONE_IN,
            kept_one_in: KEPT_ONE_IN,
            is_about_past: false,
        };
        let mut request = outlook.draw_request(&name, chance);
        if let Request::Compact(request) = &mut request {
            request.revision = if chance.one_in(8) {
                notes.revision_seen + 100_000
            } else {
                request.revision.min(notes.whole_through)
            };
        }
        request
    }

    /// Writes down a call that is about to be made. Returns its place.
    pub fn begin(&self, client: ClientId, node: usize, request: Request) -> usize {
        let mut notes = self.notes();
        notes.operations.push(Operation {
            client,
            invoked: self.clock.now(),
            returned: None,
            request,
            outcome: Outcome::Unknown,
        });
        notes.nodes.push(node);
        notes.operations.len() - 1
    }

    /// Writes down what became of a call.
    pub fn end(&self, operation: usize, outcome: Outcome) {
        let now = self.clock.now();
        let mut notes = self.notes();
        if let Outcome::Answered(answer) = &outcome {
            notes.revision_seen = notes.revision_seen.max(answer.revision());
            match (&notes.operations[operation].request, answer) {
                (Request::LeaseGrant(_), Answer::LeaseGrant(answer)) => {
                    notes.leases.insert(answer.id);
                }
                (Request::LeaseRevoke(request), _) => {
                    let id = request.id;
                    notes.leases.remove(&id);
                }
                _ => {}
            }
        }
        let record = &mut notes.operations[operation];
        record.returned = (outcome != Outcome::Unknown).then_some(now);
        record.outcome = outcome;
    }

    /// Writes down that a node could not be reached.
    pub fn note_unreachable(&self, node: usize) {
        let now = self.clock.now();
        self.notes().unreachable.push((now, node));
    }

    /// Takes the events of a watcher of everything as evidence: what one response holds of a
    /// revision is all of that revision. Responses in pieces are not for evidence.
    pub fn tell(&self, source: &str, response: &WatchResponse) {
        let events = response.events.iter().filter_map(|event| Event::from_proto(event).ok());
        let mut notes = self.notes();
        let mut gathered: Vec<Event> = Vec::new();
        for event in events {
            if gathered.first().is_some_and(|first| first.revision() != event.revision()) {
                notes.tell(source, std::mem::take(&mut gathered));
            }
            gathered.push(event);
        }
        notes.tell(source, gathered);
    }
}

impl Notes {
    fn tell(&mut self, source: &str, events: Vec<Event>) {
        let Some(revision) = events.first().map(Event::revision) else { return };
        self.evidence.tell(source, revision, events);
        while self.evidence.events_at(self.whole_through + 1).is_some() {
            self.whole_through += 1;
        }
    }
}
