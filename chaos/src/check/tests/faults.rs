//! Faults planted into the record of a right run. Each is certainly wrong: where a change could
//! be explained by something the clients do not know, it is not made.

use bytes::Bytes;
use flotilla_proto::etcdserverpb::{RangeRequest, WatchResponse};
use flotilla_proto::mvccpb::KeyValue;
use rand::Rng;
use rand::rngs::StdRng;

use super::scene::{answer, edit_evidence, response};
use super::world::Run;
use crate::check::attribution::claims;
use crate::check::sight::Seen;
use crate::history::{
    Answer, ClientId, Code, Event, Operation, Outcome, Received, Refused, Request,
};
use crate::model::{Refusal, View};

/// Plants a fault if the run has a place for it. Returns whether it did.
pub(super) type Fault = fn(&mut Run, &mut StdRng) -> bool;

pub(super) const FAULTS: [(&str, Fault); 29] = [
    ("stale read", stale_read),
    ("other value read", other_value_read),
    ("key left out of a read", key_left_out),
    ("wrong count", wrong_count),
    ("two writes at one revision", duplicate_revision),
    ("lost revision", lost_revision),
    ("write in the past", write_in_past),
    ("wrong previous pair", wrong_prev_kv),
    ("torn evidence", torn_evidence),
    ("wrong version", wrong_version),
    ("phantom", phantom),
    ("refused but applied", refused_but_applied),
    ("other branch", other_branch),
    ("unjustified refusal", unjustified_refusal),
    ("compaction twice", compaction_twice),
    ("read below compaction", read_below_compaction),
    ("renewal of no lease", renewal_of_no_lease),
    ("wrong granted TTL", wrong_granted_ttl),
    ("replica differs", replica_differs),
    ("event skipped", event_skipped),
    ("event twice", event_twice),
    ("events swapped", events_swapped),
    ("revision split", revision_split),
    ("progress ahead", progress_ahead),
    ("wrong pair before event", wrong_pair_before_event),
    ("wrong event", wrong_event),
    ("event after cancel", event_after_cancel),
    ("header behind events", header_behind),
    ("watcher never catches up", never_catches_up),
];

// Operations.

/// The places of the operations that satisfy a condition, one of them chosen.
fn pick(run: &Run, rng: &mut StdRng, is_wanted: impl Fn(&Operation) -> bool) -> Option<usize> {
    let operations = run.history.operations.iter().enumerate();
    let places: Vec<usize> =
        operations.filter(|(_, it)| is_wanted(it)).map(|(index, _)| index).collect();
    if places.is_empty() { None } else { Some(places[rng.random_range(0..places.len())]) }
}

fn is_write(operation: &Operation) -> bool {
    operation.answer().is_some_and(claims)
}

fn stale_read(run: &mut Run, rng: &mut StdRng) -> bool {
    let seen = Seen::new(&run.history);
    let picked = pick(run, rng, |it| {
        matches!(&it.request, Request::Read(read) if !read.serializable && read.revision <= 0)
            && it.answer().is_some()
            && seen.revision_before(it.invoked) > 1
    });
    let Some(index) = picked else { return false };
    let operation = &run.history.operations[index];
    let revision = rng.random_range(1..seen.revision_before(operation.invoked));
    let Request::Read(read) = &operation.request else { return false };
    let view = View { revision, ..run.model.view() };
    let Ok(step) = view.read(read) else { return false };
    *answer(&mut run.history, index) = step.answer;
    true
}

fn read_with_pairs(run: &Run, rng: &mut StdRng) -> Option<usize> {
    pick(run, rng, |it| matches!(it.answer(), Some(Answer::Read(read)) if !read.kvs.is_empty()))
}

fn other_value_read(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(index) = read_with_pairs(run, rng) else { return false };
    let Answer::Read(read) = answer(&mut run.history, index) else { return false };
    let pair = rng.random_range(0..read.kvs.len());
    read.kvs[pair].value = Bytes::from("never written");
    true
}

fn key_left_out(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(index) = read_with_pairs(run, rng) else { return false };
    let Answer::Read(read) = answer(&mut run.history, index) else { return false };
    read.kvs.remove(rng.random_range(0..read.kvs.len()));
    true
}

fn wrong_count(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(index) = pick(run, rng, |it| matches!(it.answer(), Some(Answer::Read(_)))) else {
        return false;
    };
    let Answer::Read(read) = answer(&mut run.history, index) else { return false };
    read.count += 1;
    true
}

fn duplicate_revision(run: &mut Run, rng: &mut StdRng) -> bool {
    let (Some(first), Some(second)) = (pick(run, rng, is_write), pick(run, rng, is_write)) else {
        return false;
    };
    let header = answer(&mut run.history, first).header_mut().take();
    *answer(&mut run.history, first).header_mut() = header;
    *answer(&mut run.history, second).header_mut() = header;
    first != second
}

fn lost_revision(run: &mut Run, rng: &mut StdRng) -> bool {
    let head = run.model.revision();
    if head < 2 {
        return false;
    }
    run.history.evidence.forget(rng.random_range(2..=head)).is_some()
}

fn write_in_past(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(index) = pick(run, rng, is_write) else { return false };
    let revision = answer(&mut run.history, index).revision();
    let is_later =
        |it: &Operation| is_write(it) && it.answer().is_some_and(|it| it.revision() > revision);
    let Some(later) = pick(run, rng, is_later) else { return false };
    let returned = run.history.operations[later].returned.expect("it was answered");
    let operation = &mut run.history.operations[index];
    operation.invoked = returned + 1;
    operation.returned = Some(returned + 1);
    true
}

fn wrong_prev_kv(run: &mut Run, rng: &mut StdRng) -> bool {
    let has_pair = |it: &Operation| match it.answer() {
        Some(Answer::Put(put)) => put.prev_kv.is_some(),
        Some(Answer::DeleteRange(delete)) => !delete.prev_kvs.is_empty(),
        _ => false,
    };
    let Some(index) = pick(run, rng, has_pair) else { return false };
    let is_left_out = rng.random_range(0..2) == 0;
    match answer(&mut run.history, index) {
        Answer::Put(put) if is_left_out => put.prev_kv = None,
        Answer::Put(put) => put.prev_kv.as_mut().expect("picked with one").version += 1,
        Answer::DeleteRange(delete) => delete.prev_kvs[0].version += 1,
        _ => return false,
    }
    true
}

/// Changes the events of a revision that an answered operation made.
fn bend_evidence(
    run: &mut Run,
    rng: &mut StdRng,
    is_wanted: impl Fn(&[Event]) -> bool,
    bend: impl Fn(&mut Vec<Event>),
) -> bool {
    let evidence = &run.history.evidence;
    let is_it = |it: &Operation| {
        is_write(it)
            && it
                .answer()
                .and_then(|answer| evidence.events_at(answer.revision()))
                .is_some_and(&is_wanted)
    };
    let Some(index) = pick(run, rng, is_it) else { return false };
    let wanted = answer(&mut run.history, index).revision();
    edit_evidence(&mut run.history, |revision, mut events| {
        if revision == wanted {
            bend(&mut events);
        }
        Some(events)
    });
    true
}

fn torn_evidence(run: &mut Run, rng: &mut StdRng) -> bool {
    let last = rng.random_range(0..2) == 0;
    bend_evidence(
        run,
        rng,
        |events| events.len() > 1,
        |events| {
            events.remove(if last { events.len() - 1 } else { 0 });
        },
    )
}

fn wrong_version(run: &mut Run, rng: &mut StdRng) -> bool {
    bend_evidence(
        run,
        rng,
        |events| matches!(events[0], Event::Put(_)),
        |events| {
            if let Event::Put(pair) = &mut events[0] {
                pair.version += 1;
            }
        },
    )
}

fn phantom(run: &mut Run, _: &mut StdRng) -> bool {
    let revision = run.model.revision() + 1;
    let pair = KeyValue {
        key: Bytes::from("ghost"),
        value: Bytes::from("nobody's"),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    };
    run.history.evidence.tell("node 1", revision, vec![Event::Put(pair)]);
    run.history.evidence.close(revision);
    true
}

fn refused_but_applied(run: &mut Run, rng: &mut StdRng) -> bool {
    let is_unique = |it: &Operation| {
        is_write(it) && matches!(&it.request, Request::Put(put) if put.value.starts_with(b"v"))
    };
    let Some(index) = pick(run, rng, is_unique) else { return false };
    let text = "etcdserver: too many requests".to_owned();
    run.history.operations[index].outcome = Outcome::Refused(Refused { code: Code(2), text });
    true
}

fn other_branch(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(index) = pick(run, rng, |it| matches!(it.answer(), Some(Answer::Txn(_)))) else {
        return false;
    };
    let Answer::Txn(txn) = answer(&mut run.history, index) else { return false };
    txn.succeeded = !txn.succeeded;
    true
}

fn unjustified_refusal(run: &mut Run, rng: &mut StdRng) -> bool {
    let is_current = |it: &Operation| {
        matches!(&it.request, Request::Read(read) if read.revision <= 0) && it.answer().is_some()
    };
    let Some(index) = pick(run, rng, is_current) else { return false };
    let refusals = [Refusal::FutureRevision, Refusal::Compacted, Refusal::EmptyKey];
    let refusal = refusals[rng.random_range(0..refusals.len())];
    run.history.operations[index].outcome = Outcome::Refused(refusal.received());
    true
}

fn compaction_twice(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(index) = pick(run, rng, |it| matches!(it.answer(), Some(Answer::Compact(_)))) else {
        return false;
    };
    let again = run.history.operations[index].clone();
    run.history.operations.push(again);
    true
}

fn read_below_compaction(run: &mut Run, rng: &mut StdRng) -> bool {
    let is_compaction = |it: &Operation| {
        matches!(&it.request, Request::Compact(compact) if compact.revision > 2)
            && it.answer().is_some()
    };
    if pick(run, rng, is_compaction).is_none() {
        return false;
    }
    let head = run.model.revision();
    let request = RangeRequest { key: Bytes::from("a"), revision: 2, ..RangeRequest::default() };
    let view = View { compacted: -1, ..run.model.view() };
    let step = view.read(&request).expect("the history is all there");
    assert_eq!(step.answer.revision(), head);
    let end = run.history.operations.iter().filter_map(|it| it.returned).max().unwrap_or(0);
    run.history.operations.push(Operation {
        client: ClientId(1),
        invoked: end + 1,
        returned: Some(end + 2),
        request: Request::Read(request),
        outcome: Outcome::Answered(step.answer),
    });
    true
}

fn renewal_of_no_lease(run: &mut Run, rng: &mut StdRng) -> bool {
    let is_renewal = |it: &Operation| matches!(it.answer(), Some(Answer::LeaseKeepAlive(_)));
    let Some(index) = pick(run, rng, is_renewal) else { return false };
    if run.history.operations.iter().any(|it| {
        it.is_unknown() && matches!(&it.request, Request::LeaseGrant(grant) if grant.id == 0)
    }) {
        return false;
    }
    let Request::LeaseKeepAlive(request) = &mut run.history.operations[index].request else {
        return false;
    };
    request.id = 4_000;
    let Answer::LeaseKeepAlive(renewed) = answer(&mut run.history, index) else { return false };
    renewed.id = 4_000;
    renewed.ttl = 9;
    true
}

fn wrong_granted_ttl(run: &mut Run, rng: &mut StdRng) -> bool {
    let is_granted = |it: &Operation| matches!(it.answer(), Some(Answer::LeaseTimeToLive(answer)) if answer.granted_ttl > 0);
    let Some(index) = pick(run, rng, is_granted) else { return false };
    let Answer::LeaseTimeToLive(it) = answer(&mut run.history, index) else { return false };
    it.granted_ttl += 1_000;
    true
}

fn replica_differs(run: &mut Run, rng: &mut StdRng) -> bool {
    let index = rng.random_range(0..run.history.hashes.len());
    run.history.hashes[index].hash += 7;
    true
}

// Watchers.

/// A response with events that satisfies a condition: watcher and place.
fn pick_batch(
    run: &Run,
    rng: &mut StdRng,
    is_wanted: impl Fn(&WatchResponse) -> bool,
) -> Option<(usize, usize)> {
    let places: Vec<(usize, usize)> = run
        .history
        .watches
        .iter()
        .enumerate()
        .flat_map(|(watcher, watch)| {
            watch.received.iter().enumerate().map(move |(place, it)| (watcher, place, it))
        })
        .filter(|(_, _, it)| !it.response.events.is_empty() && is_wanted(&it.response))
        .map(|(watcher, place, _)| (watcher, place))
        .collect();
    if places.is_empty() { None } else { Some(places[rng.random_range(0..places.len())]) }
}

fn batch(run: &mut Run, at: (usize, usize)) -> &mut WatchResponse {
    &mut run.history.watches[at.0].received[at.1].response
}

fn insert(run: &mut Run, at: (usize, usize), response: WatchResponse) {
    let received = &mut run.history.watches[at.0].received;
    let stamp = received[at.1].at;
    received.insert(at.1, Received { at: stamp, response });
}

fn revision_of(event: &flotilla_proto::mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |pair| pair.mod_revision)
}

fn event_skipped(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(at) = pick_batch(run, rng, |it| it.events.len() > 1) else { return false };
    let events = &mut batch(run, at).events;
    events.remove(rng.random_range(0..events.len() - 1));
    true
}

fn event_twice(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(at) = pick_batch(run, rng, |_| true) else { return false };
    let again = batch(run, at).clone();
    if rng.random_range(0..2) == 0 {
        let events = &mut batch(run, at).events;
        events.extend(again.events.last().cloned());
    } else {
        insert(run, at, again);
    }
    true
}

fn events_swapped(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(at) = pick_batch(run, rng, |it| it.events.len() > 1) else { return false };
    let events = &mut batch(run, at).events;
    let first = rng.random_range(0..events.len() - 1);
    events.swap(first, first + 1);
    true
}

fn revision_split(run: &mut Run, rng: &mut StdRng) -> bool {
    let is_wide = |it: &WatchResponse| {
        !it.fragment && it.events.windows(2).any(|it| revision_of(&it[0]) == revision_of(&it[1]))
    };
    let Some(at) = pick_batch(run, rng, is_wide) else { return false };
    let whole = batch(run, at);
    let cut = whole
        .events
        .windows(2)
        .position(|it| revision_of(&it[0]) == revision_of(&it[1]))
        .expect("picked for it");
    let rest = whole.events.split_off(cut + 1);
    let second = WatchResponse { events: rest, ..whole.clone() };
    let first = std::mem::replace(batch(run, at), second);
    insert(run, at, first);
    true
}

fn progress_ahead(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(at) = pick_batch(run, rng, |_| true) else { return false };
    let revision = batch(run, at).events.first().map_or(0, revision_of);
    insert(run, at, response(revision));
    true
}

fn wrong_pair_before_event(run: &mut Run, rng: &mut StdRng) -> bool {
    let has_pair = |it: &WatchResponse| it.events.iter().any(|it| it.prev_kv.is_some());
    let Some(at) = pick_batch(run, rng, has_pair) else { return false };
    let event = batch(run, at).events.iter_mut().find(|it| it.prev_kv.is_some());
    event.expect("picked for it").prev_kv.as_mut().expect("found for it").version += 1;
    true
}

fn wrong_event(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(at) = pick_batch(run, rng, |_| true) else { return false };
    let events = &mut batch(run, at).events;
    let event = rng.random_range(0..events.len());
    let pair = events[event].kv.as_mut().expect("a right event has a pair");
    match rng.random_range(0..3) {
        0 => pair.version += 1,
        1 => pair.value = Bytes::from("never written"),
        _ => pair.create_revision += 1,
    }
    true
}

fn event_after_cancel(run: &mut Run, _: &mut StdRng) -> bool {
    for watch in &mut run.history.watches {
        let is_cancelled = watch.received.last().is_some_and(|it| it.response.canceled);
        let with_events = watch.received.iter().find(|it| !it.response.events.is_empty()).cloned();
        if let (true, Some(again)) = (is_cancelled, with_events) {
            watch.received.push(again);
            return true;
        }
    }
    false
}

fn header_behind(run: &mut Run, rng: &mut StdRng) -> bool {
    let Some(at) = pick_batch(run, rng, |it| !it.fragment) else { return false };
    let whole = batch(run, at);
    let last = whole.events.last().map_or(0, revision_of);
    whole.header.as_mut().expect("a right response has one").revision = last - 1;
    true
}

fn never_catches_up(run: &mut Run, _: &mut StdRng) -> bool {
    for watch in &mut run.history.watches {
        let is_open = watch.open_at_end && !watch.received.iter().any(|it| it.response.canceled);
        let Some(last) = watch.received.iter().rposition(|it| !it.response.events.is_empty())
        else {
            continue;
        };
        if is_open {
            watch.received.truncate(last);
            return true;
        }
    }
    false
}
