//! Random commands, reads, compactions and crashes against the naive model.

use prost::Message;

use super::chance::Chance;
use super::elsewhere::Elsewhere;
use super::naive::Naive;
use super::*;
use crate::image::{Change, bolt, schema};
use crate::proto::Span;
use crate::proto::etcdserverpb::compare::TargetUnion;
use crate::view::{Column, View};

/// Keys and bounds that are hard on order and escaping.
const KEYS: [&[u8]; 14] = [
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\0\x01",
    b"a\0\xff",
    b"a\x01",
    b"ab",
    b"b",
    b"\0",
    b"\0\0",
    b"\xff",
    b"\xff\xff",
    b"key/1",
    b"key/2",
];
const VALUES: [&[u8]; 4] = [b"", b"x", b"y", b"a longer value \0\xff"];
const LEASES: [i64; 4] = [1, 7, -3, i64::MIN];

const COLUMNS: [Column; 4] = [Column::Key, Column::Revision, Column::History, Column::LeaseKey];

struct Run {
    chance: Chance,
    store: Store,
    naive: Naive,
    /// Every write so far, by revision from 2 on.
    log: Vec<Vec<Effect>>,
    /// What is left after a crash: the store, and the revision it is at.
    durable: (MemoryView, i64),
    /// Another replica with its own batches and its own pace of compaction.
    follower: (MemoryView, i64),
    seen: Seen,
}

/// Shows that the run reached the cases it is there for.
#[derive(Debug, Default)]
struct Seen {
    effects: usize,
    no_effects: usize,
    errors: usize,
    pipelined: usize,
    late_reads: usize,
    twice_in_one_revision: usize,
    old_reads: usize,
    encoded: usize,
    compacted_while_running: usize,
    crashes: usize,
    asked: usize,
    backups: usize,
}

#[test]
fn random_commands_agree_with_the_naive_model() {
    let mut seen = Seen::default();
    for seed in 0..80 {
        let mut run = Run::new(seed);
        for _ in 0..120 {
            run.step();
        }
        run.compare_replicas();
        seen.add(&run.seen);
    }
    assert!(seen.effects > 5_000, "{seen:?}");
    assert!(seen.no_effects > 500, "{seen:?}");
    assert!(seen.errors > 200, "{seen:?}");
    assert!(seen.pipelined > 500, "{seen:?}");
    assert!(seen.late_reads > 30, "{seen:?}");
    assert!(seen.twice_in_one_revision > 50, "{seen:?}");
    assert!(seen.old_reads > 2_000, "{seen:?}");
    assert!(seen.encoded > 2_000, "{seen:?}");
    assert!(seen.compacted_while_running > 100, "{seen:?}");
    assert!(seen.crashes > 100, "{seen:?}");
    assert!(seen.asked > 20_000, "{seen:?}");
    assert!(seen.backups > 500, "{seen:?}");
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.effects += other.effects;
        self.no_effects += other.no_effects;
        self.errors += other.errors;
        self.pipelined += other.pipelined;
        self.late_reads += other.late_reads;
        self.twice_in_one_revision += other.twice_in_one_revision;
        self.old_reads += other.old_reads;
        self.encoded += other.encoded;
        self.compacted_while_running += other.compacted_while_running;
        self.crashes += other.crashes;
        self.asked += other.asked;
        self.backups += other.backups;
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            chance: Chance::new(seed),
            store: Store::new(),
            naive: Naive::new(),
            log: Vec::new(),
            durable: (MemoryView::new(), 1),
            follower: (MemoryView::new(), 1),
            seen: Seen::default(),
        }
    }

    fn step(&mut self) {
        match self.chance.below(20) {
            0 => {
                let lease = self.chance.pick(&LEASES);
                self.store.leases.0.insert(lease);
                self.naive.leases.insert(lease);
            }
            1 => self.revoke(),
            2 => self.compact(),
            3 => self.crash(),
            4 => self.durable = (self.store.view.clone(), self.store.head.revision),
            5 => self.compare_replicas(),
            _ => self.write(),
        }
        if self.chance.one_in(2) {
            let rows_max = 1 + self.chance.below(5);
            let slices = self.chance.below(4);
            if !self.store.compact_rows(rows_max, slices) {
                self.seen.compacted_while_running += 1;
            }
        }
        self.follow();
        assert_eq!(self.store.head.revision, self.naive.revision());
        assert_eq!(self.store.head.compact_revision, self.naive.compact_revision);
        for _ in 0..4 {
            self.read();
        }
        self.read_history();
        if self.chance.one_in(4) {
            self.hash();
        }
        if self.chance.one_in(8) {
            self.back_up();
        }
        for lease in LEASES {
            let attached = self.naive.attached(lease, self.naive.revision());
            assert_eq!(lease_keys(&self.store.view, LeaseId(lease)).unwrap(), attached);
            let oldest = self.naive.compact_revision.max(1);
            let revision = self.chance.between(oldest, self.naive.revision());
            let found =
                lease_keys_at(&self.store.view, LeaseId(lease), &Span::all(), revision).unwrap();
            assert_eq!(found, self.naive.attached(lease, revision), "{lease} at {revision}");
        }
    }

    /// One write, or several that are all evaluated before the first is applied, as far as their
    /// footprints allow.
    fn write(&mut self) {
        let commands_max = if self.chance.one_in(2) { 1 } else { 5 };
        let mut footprints: Vec<Footprint> = Vec::new();
        let mut in_flight = Vec::new();
        for _ in 0..commands_max {
            let command = self.command();
            if Store::check(&command).is_err() {
                continue;
            }
            let footprint = footprint(&command);
            if footprints.iter().any(|other| conflict(other, &footprint)) {
                continue;
            }
            let (view, head, leases) = (&self.store.view, self.store.head, &self.store.leases);
            match evaluate(view, head, leases, &command).unwrap() {
                Evaluated::NoEffect => {
                    let outcome = outcome_without_effect(view, head, leases, &command);
                    let outcome =
                        client(outcome).map(|answer| answer.expect("no effect at the same head"));
                    let revision = self.naive.revision();
                    let want = self.run_naive(&command);
                    assert_eq!(outcome, want, "{command:?}");
                    assert_eq!(self.naive.revision(), revision, "{command:?}");
                    self.seen.no_effects += usize::from(want.is_ok());
                    self.seen.errors += usize::from(want.is_err());
                }
                Evaluated::Effects { effects, draft, .. } => {
                    assert!(!effects.is_empty());
                    let at_ticket = client(outcome_without_effect(view, head, leases, &command));
                    assert_eq!(at_ticket, Ok(None), "{command:?}");
                    footprints.push(footprint);
                    in_flight.push((command, effects, draft));
                }
            }
        }
        self.seen.effects += in_flight.len();
        self.seen.pipelined += in_flight.len().saturating_sub(1);
        let mut batch = Batch::default();
        let mut events = Vec::new();
        let mut applier = Applier::new(&self.store.view);
        let mut settled = Vec::new();
        for (command, effects, draft) in in_flight {
            self.store.head.revision += 1;
            let revision = self.store.head.revision;
            let keys: BTreeSet<_> = effects.iter().map(|effect| &effect.key).collect();
            self.seen.twice_in_one_revision += usize::from(keys.len() < effects.len());
            self.seen.late_reads += usize::from(draft.has_late_reads());
            let prev = applier
                .apply(revision, &effects, draft.wants_prev(), &mut batch, &mut events)
                .unwrap();
            settled.push((command, draft.settle(revision, prev)));
            self.log.push(effects);
        }
        self.store.view.apply(&batch);
        for (command, answer) in settled {
            assert_eq!(Ok(answer), self.run_naive(&command), "{command:?}");
        }
        self.compare_events(&events);
    }

    fn run_naive(&mut self, command: &Command) -> Result<Answer, Error> {
        match command {
            Command::Put(put) => self.naive.put(put).map(Answer::Put),
            Command::DeleteRange(delete) => Ok(Answer::DeleteRange(self.naive.delete(delete))),
            Command::Txn(txn) => self.naive.txn(txn).map(Answer::Txn),
            _ => unreachable!(),
        }
    }

    fn revoke(&mut self) {
        let lease = self.chance.pick(&LEASES);
        self.naive.revoke(lease);
        self.store.leases.0.remove(&lease);
        let keys = lease_keys(&self.store.view, LeaseId(lease)).unwrap();
        if keys.is_empty() {
            return;
        }
        let effects: Vec<_> = keys
            .into_iter()
            .map(|key| Effect { key, is_delete: true, ..Default::default() })
            .collect();
        let known = self.store.events.len();
        self.store.apply(&effects, false);
        self.log.push(effects);
        let events = self.store.events.split_off(known);
        self.compare_events(&events);
    }

    fn compact(&mut self) {
        let now = self.store.head.revision;
        let lowest = if self.chance.one_in(3) { -2 } else { now - 15 };
        let revision = self.chance.between(lowest, now + 1);
        assert_eq!(self.store.compact(revision), self.naive.compact(revision));
    }

    /// Loses what was not durable and repeats the writes; compaction goes on by itself.
    fn crash(&mut self) {
        self.seen.crashes += 1;
        let (view, revision) = self.durable.clone();
        self.store.view = view;
        let (store, log) = (&mut self.store, &self.log);
        replay_log(&mut store.view, revision, store.head.revision, log, &mut self.chance);
    }

    /// The follower applies a part of what it lacks, and compacts now and then.
    fn follow(&mut self) {
        let (view, revision) = &mut self.follower;
        let to = self.chance.between(*revision, self.store.head.revision);
        replay_log(view, *revision, to, &self.log, &mut self.chance);
        *revision = to;
        if self.chance.one_in(5) && self.store.head.compact_revision <= to {
            let rows_max = 1 + self.chance.below(20);
            let slice = compact_slice(view, self.store.head.compact_revision, rows_max).unwrap();
            if !self.chance.one_in(5) {
                view.apply(&slice.batch);
            }
        }
    }

    /// With the same writes and compaction finished, replicas hold the same rows, however they
    /// got there, and a replica that was never compacted before holds the same as well.
    fn compare_replicas(&mut self) {
        let (view, revision) = &mut self.follower;
        let to = self.store.head.revision;
        replay_log(view, *revision, to, &self.log, &mut self.chance);
        *revision = to;
        let mut fresh = MemoryView::new();
        replay_log(&mut fresh, 1, to, &self.log, &mut self.chance);
        self.store.compact_rows(3, usize::MAX);
        for view in [view, &mut fresh] {
            loop {
                let slice = compact_slice(view, self.store.head.compact_revision, 7).unwrap();
                view.apply(&slice.batch);
                if slice.is_finished {
                    break;
                }
            }
            for column in COLUMNS {
                let mine: Vec<_> = self.store.view.rows(column).collect();
                let theirs: Vec<_> = view.rows(column).collect();
                assert_eq!(mine, theirs, "{column:?}");
            }
        }
        self.compare_rows();
    }

    /// After compaction there is an event row for each change that is still visible, and nothing
    /// else is left.
    fn compare_rows(&self) {
        let floor = self.store.head.compact_revision;
        let mut events = 0;
        // Of each key: whether its newest record is there, and whether it goes when superseded at
        // or below the floor. A delete at the floor itself stays until the next compaction.
        let mut newest: std::collections::BTreeMap<Bytes, (bool, bool)> = Default::default();
        for (main, changes) in (0_i64..).zip(&self.naive.changes) {
            for change in changes {
                let is_put = change.kv.is_some();
                let is_there = is_put || main >= floor;
                let goes = is_put && main <= floor;
                let (_, old_goes) =
                    newest.insert(change.key.clone(), (is_there, goes)).unwrap_or_default();
                events += usize::from(is_there);
                events -= usize::from(main <= floor && old_goes);
            }
        }
        let keys = newest.values().filter(|(is_there, _)| *is_there).count();
        assert_eq!(self.store.view.rows_count(Column::Revision), events);
        assert_eq!(self.store.view.rows_count(Column::Key), keys);
        assert_eq!(self.store.view.rows_count(Column::History), events - keys);
    }

    fn compare_events(&self, events: &[Event]) {
        let mut events = events.iter();
        let first = events.as_slice().first().map_or(i64::MAX, |event| event.revision);
        for main in first..=self.naive.revision() {
            for want in self.naive_events(main) {
                assert_eq!(events.next(), Some(&want));
            }
        }
        assert_eq!(events.next(), None);
    }

    fn naive_events(&self, main: i64) -> Vec<Event> {
        let before = &self.naive.states[(main - 1) as usize];
        let event = |change: &super::naive::Change| {
            use prost::Message;
            let kv = change.kv.clone().unwrap_or_else(|| KeyValue {
                key: change.key.clone(),
                mod_revision: main,
                ..Default::default()
            });
            let is_create = change.kv.is_some() && kv.create_revision == main;
            let prev = before.get(&change.key).filter(|_| !is_create);
            Event {
                revision: main,
                sub: change.sub,
                key: change.key.clone(),
                is_delete: change.kv.is_none(),
                is_create,
                kv: kv.encode_to_vec().into(),
                prev: prev.map(|prev| prev.encode_to_vec().into()),
            }
        };
        self.naive.changes[main as usize].iter().map(event).collect()
    }

    fn read(&mut self) {
        let request = self.range_request(true);
        let now = self.store.head;
        // Also from a head that the view has left behind, as long as nothing it needs is gone.
        let oldest = now.compact_revision.max(1);
        let revision = if self.chance.one_in(2) {
            now.revision
        } else {
            self.chance.between(oldest, now.revision)
        };
        let head = Head { revision, ..now };
        let want = self.naive.range_at(head, &request);
        let got = client(read(&self.store.view, head, &request));
        assert_eq!(got, want, "{request:?} at {head:?}");
        self.read_elsewhere(head, &request, &want);
        self.seen.old_reads += usize::from(revision < now.revision && want.is_ok());
        if is_encodable(&request) {
            assert_eq!(self.read_encoded(head, &request), want, "{request:?} at {head:?}");
            self.seen.encoded += 1;
        }

        let mut streamed = request;
        streamed.sort_order = 0;
        streamed.sort_target = 0;
        for bound in [
            &mut streamed.min_mod_revision,
            &mut streamed.max_mod_revision,
            &mut streamed.min_create_revision,
            &mut streamed.max_create_revision,
        ] {
            *bound = 0;
        }
        let want = self.naive.range_at(head, &streamed);
        assert_eq!(self.read_pages(head, &streamed), want, "{streamed:?} at {head:?}");
    }

    /// As a node reads that shows some of the ranges only.
    fn read_elsewhere(
        &mut self,
        head: Head,
        request: &pb::RangeRequest,
        want: &Result<pb::RangeResponse, Error>,
    ) {
        let (once, now) = (&self.durable.0, &self.store.view);
        let mut elsewhere = Elsewhere::new(&mut self.chance, &KEYS, once, now);
        let got = client(elsewhere.read(&mut self.chance, head, request));
        assert_eq!(&got, want, "{request:?} at {head:?}: {elsewhere:?}");
        let mut txn = self.txn_request(1);
        txn.success = vec![op(Request::RequestRange(request.clone()))];
        txn.failure.retain(|op| matches!(op.request, Some(Request::RequestRange(_))));
        if check_txn(&txn, OPS_MAX).is_ok() {
            let want = client(read_txn(&self.store.view, head, &txn));
            let got = client(elsewhere.read_txn(head, &txn));
            assert_eq!(got, want, "{txn:?} at {head:?}: {elsewhere:?}");
        }
        let lease = self.chance.pick(&LEASES);
        let attached = self.naive.attached(lease, head.revision);
        assert_eq!(elsewhere.lease_keys(head, LeaseId(lease)), attached, "{lease} at {head:?}");
        self.seen.asked += elsewhere.asked;
    }

    fn read_pages(
        &mut self,
        head: Head,
        request: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Error> {
        let mut merged = pb::RangeResponse::default();
        let mut cursor = None;
        loop {
            let bytes_max = self.chance.below(80);
            let page = read_page(&self.store.view, head, request, cursor, bytes_max);
            let page = client(page)?;
            merged.kvs.extend(page.answer.kvs);
            cursor = page.next;
            if cursor.is_none() {
                merged.header = page.answer.header;
                merged.count = page.answer.count;
                merged.more = page.answer.more;
                return Ok(merged);
            }
            assert_eq!(page.answer.header, None);
            assert_eq!(page.answer.count, 0);
        }
    }

    /// What a client makes of what it is sent.
    fn read_encoded(
        &mut self,
        head: Head,
        request: &pb::RangeRequest,
    ) -> Result<pb::RangeResponse, Error> {
        let mut kvs = Vec::new();
        let mut cursor = None;
        loop {
            let bytes_max = self.chance.below(80);
            let page = read_encoded(&self.store.view, head, request, cursor, bytes_max);
            let EncodedPage { mut answer, rest } = client(page)?;
            kvs.append(&mut answer.kvs);
            match rest {
                Rest::Next(next) => cursor = Some(next),
                Rest::Count(rest) => {
                    answer.count += client(count_rest(&self.store.view, head, &rest))?;
                    return Ok(sent(EncodedRange { kvs, ..answer }));
                }
                Rest::Done => return Ok(sent(EncodedRange { kvs, ..answer })),
            }
        }
    }

    fn read_history(&mut self) {
        let now = self.store.head;
        let from = self.chance.between(now.compact_revision.max(1), now.revision);
        let to = self.chance.between(from, now.revision);
        let span = Span::from_request(self.key(), self.range_end());
        let wants_prev = self.chance.one_in(2);
        let limits = ReplayLimits {
            events_max: self.chance.below(6),
            bytes_max: self.chance.below(200),
            rows_max: self.chance.below(10),
        };
        let mut got = Vec::new();
        let mut next = from;
        while next <= to {
            let replay = events_from(&self.store.view, &span, next, to, wants_prev, limits);
            let replay = client(replay).unwrap();
            assert!(replay.next > next);
            assert!(replay.events.iter().all(|event| event.revision < replay.next));
            got.extend(replay.events);
            next = replay.next;
        }
        let (once, view) = (&self.durable.0, &self.store.view);
        let mut elsewhere = Elsewhere::new(&mut self.chance, &KEYS, once, view);
        let how = (wants_prev, limits);
        let pieces = elsewhere.events(&mut self.chance, now, &span, (from, to), how);
        assert_eq!(pieces, got, "{span:?} from {from} to {to}: {elsewhere:?}");
        self.seen.asked += elsewhere.asked;
        let mut got = got.into_iter().peekable();
        for main in from..=to {
            let events = self.naive_events(main);
            for (place, want) in events.iter().enumerate() {
                let is_superseded = events[place + 1..].iter().any(|later| later.key == want.key);
                if !span.contains(&want.key) {
                    continue;
                }
                if main <= now.compact_revision
                    && is_superseded
                    && got.peek().map(|event| (event.revision, event.sub)) != Some((main, want.sub))
                {
                    // Changed again at the compact revision itself: compaction may remove it.
                    continue;
                }
                let mut event = got.next().expect("no event is missing");
                if event.prev.is_none() && (!wants_prev || main - 1 < now.compact_revision) {
                    event.prev.clone_from(&want.prev);
                }
                assert_eq!(event, *want);
            }
        }
        assert_eq!(got.next(), None);
    }

    /// A backup at some revision is the same whichever ranges are elsewhere and however far the
    /// compaction has come, and what is restored from it cannot be told from what was there.
    fn back_up(&mut self) {
        let now = self.store.head;
        let revision = self.chance.between(now.compact_revision.max(1), now.revision);
        let head = Head { revision, ..now };
        let (once, view) = (&self.durable.0, &self.store.view);
        let mut elsewhere = Elsewhere::new(&mut self.chance, &KEYS, once, view);
        let file = elsewhere.back_up(&mut self.chance, head);
        let hash = client(hash_kv(&self.store.view, now, revision)).unwrap();
        assert_eq!(elsewhere.hash_kv(&mut self.chance, head), hash, "at {head:?}: {elsewhere:?}");
        self.seen.asked += elsewhere.asked;
        let mut compacted = self.store.clone();
        compacted.compact_rows(5, usize::MAX);
        for view in [&self.store.view, &compacted.view] {
            let whole = Elsewhere::nothing(view).back_up(&mut self.chance, head);
            assert!(whole == file, "at {head:?}: {elsewhere:?}");
        }
        let mut restored = self.restore(&file);
        assert_eq!(restored.head.compact_revision, head.compact_revision);
        // Revisions without a change that is still there are not told by the changes.
        assert!(restored.head.revision <= revision);
        restored.head = head;
        restored.compact_rows(3, usize::MAX);
        for at in head.compact_revision.max(1)..=revision {
            assert_eq!(restored.dump_at(at), compacted.dump_at(at), "at {at} of {head:?}");
            let request = pb::RangeRequest { revision: at, ..range("\0", "\0") };
            assert_eq!(restored.read(&request).unwrap().kvs, compacted.read(&request).unwrap().kvs);
        }
        let limits = ReplayLimits { events_max: 9_999, bytes_max: 1 << 20, rows_max: 9_999 };
        let events = |store: &Store| {
            let (all, from) = (Span::all(), head.compact_revision.max(1));
            client(events_from(&store.view, &all, from, revision, true, limits)).unwrap().events
        };
        assert_eq!(events(&restored), events(&compacted), "{head:?}");
        if revision == now.revision {
            assert_eq!(restored.hash(0), self.store.hash(0));
            for lease in LEASES.map(LeaseId) {
                let keys = lease_keys(&restored.view, lease).unwrap();
                assert_eq!(keys, lease_keys(&self.store.view, lease).unwrap());
            }
        }
        self.seen.backups += 1;
    }

    fn restore(&mut self, file: &[u8]) -> Store {
        let reader = bolt::Reader::open(file).unwrap();
        let facts = schema::facts(&reader).unwrap();
        let leases = LEASES.into_iter().collect();
        let mut store = Store::new();
        let mut changes = Vec::new();
        schema::visit_changes(&reader, &mut |it| {
            changes.push((it.revision, it.is_delete, it.kv.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let mut batch = Batch::default();
            let mut loader = Loader::new(&store.view, &leases);
            for (revision, is_delete, kv) in changes.by_ref().take(1 + self.chance.below(5)) {
                store.head.revision = revision.main;
                loader.add(&Change { revision, is_delete, kv: &kv }, &mut batch).unwrap();
            }
            store.view.apply(&batch);
        }
        let mut batch = Batch::default();
        note_compacted(facts.compact_revision, &mut batch);
        store.view.apply(&batch);
        store.head.compact_revision = facts.compact_revision;
        store
    }

    fn hash(&mut self) {
        let now = self.store.head;
        let mut revision = self.chance.between(now.compact_revision.max(0), now.revision);
        if self.chance.one_in(16) {
            revision = -1;
        }
        let hashed = if revision == 0 { now.revision } else { revision };
        let want = self.naive.hash(hashed);
        assert_eq!(self.store.hash(revision), Ok(want), "at {revision} of {now:?}");
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(self.chance.pick(&KEYS))
    }

    fn range_end(&mut self) -> Bytes {
        match self.chance.below(6) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(b"\0"),
            _ => self.key(),
        }
    }

    fn command(&mut self) -> Command {
        match self.chance.below(10) {
            0..=3 => Command::Put(self.put_request()),
            4 => Command::DeleteRange(self.delete_request()),
            _ => Command::Txn(self.txn_request(2)),
        }
    }

    fn put_request(&mut self) -> pb::PutRequest {
        let mut request = pb::PutRequest {
            key: self.key(),
            prev_kv: self.chance.one_in(3),
            ignore_value: self.chance.one_in(8),
            ignore_lease: self.chance.one_in(8),
            ..Default::default()
        };
        if !request.ignore_value {
            request.value = Bytes::from_static(self.chance.pick(&VALUES));
        }
        if !request.ignore_lease && self.chance.one_in(3) {
            request.lease = self.chance.pick(&LEASES);
        }
        request
    }

    fn delete_request(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            prev_kv: self.chance.one_in(2),
        }
    }

    fn range_request(&mut self, is_alone: bool) -> pb::RangeRequest {
        let now = self.store.head.revision;
        let mut request = pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(),
            keys_only: self.chance.one_in(5),
            count_only: self.chance.one_in(8),
            ..Default::default()
        };
        if self.chance.one_in(2) {
            request.limit = self.chance.between(-1, 5);
        }
        if self.chance.one_in(if is_alone { 2 } else { 5 }) {
            request.revision = self.chance.between(-2, now + 2);
        }
        if self.chance.one_in(2) {
            request.sort_order = self.chance.between(0, 2) as i32;
            request.sort_target = self.chance.between(0, 4) as i32;
        }
        if self.chance.one_in(3) {
            for bound in [
                &mut request.min_mod_revision,
                &mut request.max_mod_revision,
                &mut request.min_create_revision,
                &mut request.max_create_revision,
            ] {
                if self.chance.one_in(2) {
                    *bound = self.chance.between((now - 10).max(-1), now + 6);
                }
            }
        }
        request
    }

    fn txn_request(&mut self, depth: usize) -> pb::TxnRequest {
        let compares = self.chance.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: usize) -> Vec<pb::RequestOp> {
        let ops = self.chance.below(5);
        let op = |run: &mut Self| match run.chance.below(10) {
            0..=2 => op(Request::RequestRange(run.range_request(false))),
            3..=5 => op(Request::RequestPut(run.put_request())),
            6 => op(Request::RequestDeleteRange(run.delete_request())),
            // An open-ended delete may stand beside puts of the same keys.
            7 => op(Request::RequestDeleteRange(pb::DeleteRangeRequest {
                range_end: Bytes::from_static(b"\0"),
                ..run.delete_request()
            })),
            _ if depth > 0 => op(Request::RequestTxn(run.txn_request(depth - 1))),
            _ => op(Request::RequestPut(run.put_request())),
        };
        (0..ops).map(|_| op(self)).collect()
    }

    fn compare(&mut self) -> pb::Compare {
        let now = self.store.head.revision;
        let union = match self.chance.below(6) {
            0 => Some(TargetUnion::Version(self.chance.between(0, 3))),
            1 => Some(TargetUnion::CreateRevision(self.chance.between(0, now))),
            2 => Some(TargetUnion::ModRevision(self.chance.between(0, now))),
            3 => Some(TargetUnion::Value(Bytes::from_static(self.chance.pick(&VALUES)))),
            4 => Some(TargetUnion::Lease(self.chance.pick(&LEASES))),
            _ => None,
        };
        let target = match union {
            Some(TargetUnion::Version(_)) => 0,
            Some(TargetUnion::CreateRevision(_)) => 1,
            Some(TargetUnion::ModRevision(_)) => 2,
            Some(TargetUnion::Value(_)) => 3,
            Some(TargetUnion::Lease(_)) => 4,
            None => self.chance.between(0, 4) as i32,
        };
        pb::Compare {
            key: self.key(),
            range_end: if self.chance.one_in(3) { self.range_end() } else { Bytes::new() },
            result: self.chance.between(0, 3) as i32,
            target: if self.chance.one_in(20) { 0 } else { target },
            target_union: union,
        }
    }
}

/// Applies the writes above `from` up to `to` in batches of any size.
fn replay_log(view: &mut MemoryView, from: i64, to: i64, log: &[Vec<Effect>], chance: &mut Chance) {
    let mut revision = from;
    while revision < to {
        let mut batch = Batch::default();
        let frozen = view.clone();
        let mut applier = Applier::new(&frozen);
        for _ in 0..=chance.below(6) {
            if revision < to {
                revision += 1;
                let effects = &log[(revision - 2) as usize];
                let mut events = Vec::new();
                applier.apply(revision, effects, false, &mut batch, &mut events).unwrap();
            }
        }
        view.apply(&batch);
    }
}

/// Whether two requests must not be in flight together.
fn conflict(a: &Footprint, b: &Footprint) -> bool {
    let spans = |footprint: &Footprint| -> Vec<(Span, Mode)> {
        let keys = footprint.keys.iter().map(|(key, mode)| (Span::key(key.clone()), *mode));
        keys.chain(footprint.spans.iter().cloned()).collect()
    };
    spans(a).iter().any(|(a, a_mode)| {
        spans(b).iter().any(|(b, b_mode)| {
            let is_shared = a_mode == b_mode && *a_mode != Mode::Write;
            !is_shared && a.overlaps(b)
        })
    })
}

/// A view whose rows compaction removes while a read is under way: the read must notice.
#[test]
fn a_read_overtaken_by_compaction_is_not_wrong() {
    use std::cell::{Cell, RefCell};
    use std::ops::Bound;

    use crate::view::{ViewError, Visit};

    /// Compacts away everything when it has been read from a number of times.
    struct Moving {
        view: RefCell<MemoryView>,
        reads_left: Cell<usize>,
        compact_to: i64,
    }

    impl Moving {
        fn tick(&self) -> MemoryView {
            if self.reads_left.get() == 0 {
                let slice =
                    compact_slice(&*self.view.borrow(), self.compact_to, usize::MAX).unwrap();
                self.view.borrow_mut().apply(&slice.batch);
            }
            self.reads_left.set(self.reads_left.get().wrapping_sub(1));
            self.view.borrow().clone()
        }
    }

    impl View for Moving {
        fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
            self.tick().get(column, key)
        }
        fn scan(
            &self,
            column: Column,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
            visit: Visit<'_>,
        ) -> Result<(), ViewError> {
            self.tick().scan(column, from, to, visit)
        }
        fn scan_back(
            &self,
            column: Column,
            from: Bound<&[u8]>,
            to: Bound<&[u8]>,
            visit: Visit<'_>,
        ) -> Result<(), ViewError> {
            self.tick().scan_back(column, from, to, visit)
        }
    }

    let mut store = Store::new();
    for value in ["1", "2", "3"] {
        for key in ["a", "b", "c"] {
            store.put(put(key, value)).unwrap();
        }
    }
    store.delete(delete("b", "")).unwrap();
    store.put(put("z", "z")).unwrap();
    let old = Head { revision: 7, compact_revision: -1 };
    let want = client(read(&store.view, old, &range("a", "\0"))).unwrap();
    let want_hash = client(hash_kv(&store.view, old, 0)).unwrap();
    let (mut exact, mut overtaken) = (0, 0);
    for reads in 0..20 {
        let moving = || Moving {
            view: RefCell::new(store.view.clone()),
            reads_left: Cell::new(reads),
            compact_to: store.head.revision,
        };
        match read(&moving(), old, &range("a", "\0")) {
            Ok(got) => {
                assert_eq!(got, want);
                exact += 1;
            }
            Err(failure) => {
                assert_eq!(failure, Failure::Overtaken);
                overtaken += 1;
            }
        }
        for key in ["a", "b", "c", "none"] {
            match read(&moving(), old, &range(key, "")) {
                Ok(got) => {
                    assert_eq!(got, client(read(&store.view, old, &range(key, ""))).unwrap())
                }
                Err(failure) => assert_eq!(failure, Failure::Overtaken),
            }
        }
        match read(&moving(), old, &pb::RangeRequest { count_only: true, ..range("a", "\0") }) {
            Ok(got) => assert_eq!(got.count, want.count),
            Err(failure) => assert_eq!(failure, Failure::Overtaken),
        }
        match hash_kv(&moving(), old, 0) {
            Ok(got) => assert_eq!(got, want_hash),
            Err(failure) => assert_eq!(failure, Failure::Overtaken),
        }
        let limits = ReplayLimits { events_max: 100, bytes_max: 1000, rows_max: 100 };
        match events_from(&moving(), &Span::all(), 2, 12, true, limits) {
            Ok(got) => assert_eq!(got.events, store.events),
            Err(failure) => assert_eq!(failure, Failure::Client(Error::Compacted)),
        }
    }
    assert!(exact > 0 && overtaken > 0, "{exact} {overtaken}");
}

fn sent(answer: EncodedRange) -> pb::RangeResponse {
    let [before, after] = answer.around().map(|part| part.encode_to_vec());
    let sent = [before, answer.kvs.concat(), after].concat();
    assert_eq!(sent.len(), answer.encoded_len());
    pb::RangeResponse::decode(&sent[..]).expect("a message is sent")
}
