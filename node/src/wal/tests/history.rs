//! Random histories: appends of every kind over several lives of the log, each life ended by a
//! loss of power, a kill or a failed flush at a random operation, recovery included. After each,
//! the log must be exactly as it was after some frame that is not older than the last one
//! acknowledged. A failing seed can be run alone with the environment variable `WAL_SEED`.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::io::fake_disk::Fault;
use book::Essence;

const SEEDS: u64 = 3000;
const LIVES: usize = 6;
const FRAMES_PER_LIFE_MAX: u64 = 40;

#[test]
fn what_was_acknowledged_survives_and_nothing_else_appears() {
    let seeds = match std::env::var("WAL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("WAL_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        History::new(seed, &mut seen).run();
    }
    // A run that never met these would prove little.
    let Seen { torn, cut_in_open, recycled, copied, failed_flush, unfinished } = seen;
    if seeds.end - seeds.start > 1 {
        for count in [torn, cut_in_open, recycled, copied, failed_flush, unfinished] {
            assert!(count > 10, "too rare: {seen:?}");
        }
    }
}

/// How often something worth testing happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    torn: u64,
    cut_in_open: u64,
    recycled: u64,
    copied: u64,
    failed_flush: u64,
    unfinished: u64,
}

struct History<'a> {
    seed: u64,
    rng: StdRng,
    options: Options,
    disk: FakeDisk,
    /// The state after the frame of each number since the last restart.
    states: BTreeMap<u64, (Model, Essence)>,
    /// What the frame in flight would have made of it, if it was in flight.
    attempted: Option<(Model, Essence)>,
    /// The last frame that was acknowledged.
    durable: u64,
    data: u64,
    seen: &'a mut Seen,
}

impl<'a> History<'a> {
    fn new(seed: u64, seen: &'a mut Seen) -> History<'a> {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = Options {
            recycled_segments_max: rng.random_range(0..3),
            retained_bytes_max: rng.random_range(1..5) * (64 << 10),
            ..options()
        };
        let disk = FakeDisk::new();
        if rng.random_bool(0.3) {
            disk.set_short_writes(5000);
        }
        let states = BTreeMap::from([(0, (Model::new(), Essence::new()))]);
        History { seed, rng, options, disk, states, attempted: None, durable: 0, data: 0, seen }
    }

    fn run(mut self) {
        for _ in 0..LIVES {
            self.live();
            self.end_life();
        }
        let _ = self.reopen();
    }

    fn live(&mut self) {
        let fault = if self.rng.random_bool(0.8) { Fault::PowerLoss } else { Fault::Failure };
        let after = self.rng.random_range(0..FRAMES_PER_LIFE_MAX * 2);
        self.disk.set_fault(after, fault);
        let Some(mut writer) = self.reopen() else {
            return;
        };
        let frames = self.rng.random_range(0..FRAMES_PER_LIFE_MAX);
        for _ in 0..frames {
            if !self.write_frame(&mut writer) {
                self.seen.failed_flush += u64::from(fault == Fault::Failure);
                return;
            }
        }
        if self.rng.random_bool(0.3) && write_kind(&mut writer, FrameKind::Close, &[]).is_ok() {
            let state = self.states.last_key_value().expect("a state").1.clone();
            self.durable = writer.number - 1;
            self.states.insert(self.durable, state);
        }
    }

    fn end_life(&mut self) {
        self.disk = if self.rng.random_bool(0.7) {
            self.disk.after_power_loss(&mut self.rng)
        } else {
            self.disk.after_kill()
        };
    }

    /// Restarts the log and compares it. `None` if the fault struck meanwhile.
    fn reopen(&mut self) -> Option<Writer> {
        let files = self.disk.file_names().len();
        let (writer, recovered) = match open_fake(&self.disk, self.options.clone()) {
            Ok(opened) => opened,
            Err(Error::Io { .. }) if self.disk.is_broken() => {
                self.seen.cut_in_open += 1;
                return None;
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        };
        let segments = writer.segments.len() + writer.spares.len();
        self.seen.unfinished += u64::from(files > segments);
        self.seen.torn += u64::from(recovered.torn_tail.is_some());
        // An unclean start has written one frame of its own.
        let last = writer.number - 1 - u64::from(!recovered.is_clean);
        self.compare(&writer, recovered.groups, last);
        Some(writer)
    }

    fn compare(&mut self, writer: &Writer, groups: Model, last: u64) {
        let seed = self.seed;
        assert!(last >= self.durable, "seed {seed}: frame {} lost, {last} found", self.durable);
        let oldest = writer.segments[0].sequence;
        let found = (groups, writer.book.essence(oldest));
        let (_, known) = self.states.range(..=last).next_back().expect("a state");
        let known = (known.0.clone(), forget_old(&known.1, oldest));
        let attempted =
            self.attempted.take().map(|(model, essence)| (model, forget_old(&essence, oldest)));
        let is_attempt_possible = !self.states.contains_key(&last);
        let is_attempted = is_attempt_possible && attempted.as_ref() == Some(&found);
        if !is_attempted {
            let difference = difference(&found, &known);
            assert_eq!(difference, None, "seed {seed}, frame {last}, found and expected");
        }
        self.durable = writer.number - 1;
        self.states = BTreeMap::from([(self.durable, found)]);
    }

    /// Writes a frame of random appends; false if the fault struck.
    fn write_frame(&mut self, writer: &mut Writer) -> bool {
        let (model, _) = self.states.last_key_value().expect("a state").1;
        let mut model = model.clone();
        let appends = self.appends(&mut model);
        let kind = if appends.is_empty() { FrameKind::Confirm } else { FrameKind::Data };
        let spares = writer.spares.len();
        let sequence = writer.active.header.sequence;
        let copied_bytes = writer.copied_bytes;
        let outcome = write_kind(writer, kind, &appends);
        let is_rotated = writer.active.header.sequence > sequence;
        self.seen.recycled += u64::from(is_rotated && spares > writer.spares.len());
        self.seen.copied += u64::from(writer.copied_bytes > copied_bytes);
        let state = (model, writer.book.essence(0));
        match outcome {
            Ok(()) => {
                self.durable = writer.number - 1;
                self.states.insert(self.durable, state);
                true
            }
            Err(Error::Io { .. }) => {
                self.attempted = Some(state);
                false
            }
            Err(error) => panic!("seed {}: {error}", self.seed),
        }
    }

    fn appends(&mut self, model: &mut Model) -> Vec<Append> {
        let count = self.rng.random_range(0..6);
        let mut appends = Vec::new();
        let mut bytes = 0;
        for _ in 0..count {
            // Low groups are busy, high ones are idle.
            let group = self.rng.random_range(1..=8).min(self.rng.random_range(1..=8));
            let mut operations = Vec::new();
            for _ in 0..self.rng.random_range(1..4) {
                let operation = self.operation(model, GroupId(group));
                apply(model, GroupId(group), &operation);
                operations.push(operation);
            }
            let append = append(group, operations);
            bytes += record::append_bytes(&append).expect("a sound append");
            appends.push(append);
            if bytes > self.options.batch_bytes_max {
                break;
            }
        }
        appends
    }

    fn operation(&mut self, model: &Model, group: GroupId) -> Operation {
        let log = model.get(&group).cloned().unwrap_or_default();
        let (first, last) = (log.truncated.0 + 1, last_index(&log));
        let last_term = log.entries.last().map_or(log.truncated.1, |entry| entry.term);
        match self.rng.random_range(0..40) {
            0 => Operation::Remove,
            1 => {
                let index = last + self.rng.random_range(0..5);
                Operation::Reset { index, term: last_term + 1 }
            }
            2..10 if last >= first => {
                let index =
                    self.rng.random_range(first..=last).max(self.rng.random_range(first..=last));
                let position = (index - first) as usize;
                Operation::Truncate { index, term: log.entries[position].term }
            }
            10..16 if last >= first => {
                let index = self.rng.random_range(first..=last);
                self.entries(index, last_term + 1)
            }
            16..24 => {
                let (term, vote) = (last_term, self.rng.random_range(0..4));
                hard_state(term, vote, last)
            }
            _ => {
                let term = last_term.max(1) + u64::from(self.rng.random_bool(0.1));
                self.entries(last + 1, term)
            }
        }
    }

    fn entries(&mut self, first: u64, term: u64) -> Operation {
        let count = self.rng.random_range(1..4);
        let bytes_max = if self.rng.random_bool(0.1) { 2000 } else { 300 };
        let make = |index| {
            self.data += 1;
            let text = format!("{index}/{} ", self.data);
            let bytes = self.rng.random_range(0..bytes_max);
            let data = text.bytes().cycle().take(bytes).collect();
            Entry { index, term, kind: self.rng.random(), data }
        };
        Operation::Entries((first..first + count).map(make).collect())
    }
}

/// The first thing that differs, in few words.
fn difference(found: &(Model, Essence), known: &(Model, Essence)) -> Option<String> {
    for group in found.0.keys().chain(known.0.keys()) {
        let (found, known) = (found.0.get(group), known.0.get(group));
        if found != known {
            let tell = |log: Option<&GroupLog>| {
                log.map(|log| (log.hard_state, log.truncated, last_index(log)))
            };
            return Some(format!("group {group}: {:?}, {:?}", tell(found), tell(known)));
        }
    }
    let mut pairs = found.1.iter().zip(&known.1);
    let pair = pairs.find(|(found, known)| found != known);
    pair.map(|(found, known)| format!("book: {found:?}, {known:?}"))
}

/// What a restart cannot know, because the segments that told it are gone.
fn forget_old(essence: &Essence, oldest: u64) -> Essence {
    let mut essence = essence.clone();
    for (_, _, born, _) in &mut essence {
        if born.segment < oldest {
            *born = book::Place::default();
        }
    }
    essence
}
