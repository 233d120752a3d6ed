//! The packet switch: one thread that reads frames from every port, asks the matrix of links what
//! becomes of each, and writes them to the port of their destination when it is time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::{Link, Pipe};
use super::pcap::Ring;
use super::tap::{Tap, mac};
use crate::sim::chance::Chance;

/// Largest frame of a device with an MTU of 1500, with room to spare.
const FRAME_MAX: usize = 2_048;
/// Frames read from one port before the others have their turn.
const FRAMES_AT_ONCE: usize = 64;
/// Most frames that wait; beyond that the oldest disturbance is that of a full queue.
const WAITING_MAX: usize = 50_000;
/// How often the thread looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A running switch.
#[derive(Debug)]
pub struct Switch {
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    ports_count: usize,
}

/// Packets between two ports, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that arrived, or will.
    pub passed: u64,
    /// Packets that never will.
    pub lost: u64,
    /// Packets that arrived later than they would have.
    pub delayed: u64,
}

/// A disturbance of some directions.
#[derive(Clone, Debug)]
struct Disturbance {
    pairs: Vec<(usize, usize)>,
    link: Link,
}

#[derive(Debug)]
struct State {
    disturbances: BTreeMap<u64, Disturbance>,
    next: u64,
    /// `[from][to]`, all disturbances together.
    matrix: Vec<Vec<Direction>>,
    ring: Ring,
}

#[derive(Clone, Debug, Default)]
struct Direction {
    link: Link,
    pipe: Pipe,
    counts: Counts,
}

impl Switch {
    pub(super) fn start(taps: Vec<Tap>, seed: u64) -> anyhow::Result<Self> {
        let ports_count = taps.len();
        let state = Arc::new(Mutex::new(State {
            disturbances: BTreeMap::new(),
            next: 0,
            matrix: vec![vec![Direction::default(); ports_count]; ports_count],
            ring: Ring::default(),
        }));
        let is_over = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            taps,
            state: Arc::clone(&state),
            is_over: Arc::clone(&is_over),
            waiting: BinaryHeap::new(),
            count: 0,
            chance: Chance::new(seed),
        };
        let builder = std::thread::Builder::new().name("switch".to_owned());
        let thread = builder.spawn(move || worker.run())?;
        Ok(Self { state, is_over, thread: Some(thread), ports_count })
    }

    /// The port of the clients.
    pub fn client_port(&self) -> usize {
        self.ports_count - 1
    }

    /// Disturbs some directions `(from, to)` until it is ended. Returns its number.
    pub fn disturb(&self, pairs: Vec<(usize, usize)>, link: Link) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.disturbances.insert(number, Disturbance { pairs, link });
        state.apply();
        number
    }

    /// Ends a disturbance.
    pub fn end(&self, disturbance: u64) {
        let mut state = self.state();
        state.disturbances.remove(&disturbance);
        state.apply();
    }

    /// Ends all disturbances.
    pub fn heal(&self) {
        let mut state = self.state();
        state.disturbances.clear();
        state.apply();
    }

    /// Packets of all directions.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        state.matrix.iter().flatten().fold(Counts::default(), |sum, it| sum.plus(it.counts))
    }

    /// Packets of some directions.
    pub fn counts_of(&self, pairs: &[(usize, usize)]) -> Counts {
        let state = self.state();
        let counts = pairs.iter().map(|(from, to)| state.matrix[*from][*to].counts);
        counts.fold(Counts::default(), Counts::plus)
    }

    pub(super) fn write_packets(&self, file: &Path) -> std::io::Result<()> {
        self.state().ring.write(file)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the switch")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends at its next look.
            let _ = thread.join();
        }
    }
}

impl Counts {
    fn plus(self, other: Counts) -> Counts {
        Counts {
            passed: self.passed + other.passed,
            lost: self.lost + other.lost,
            delayed: self.delayed + other.delayed,
        }
    }

    /// What was counted since an earlier look.
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            passed: self.passed - earlier.passed,
            lost: self.lost - earlier.lost,
            delayed: self.delayed - earlier.delayed,
        }
    }
}

impl State {
    fn apply(&mut self) {
        for (from, row) in self.matrix.iter_mut().enumerate() {
            for (to, direction) in row.iter_mut().enumerate() {
                let mine = self.disturbances.values().filter(|it| it.pairs.contains(&(from, to)));
                direction.link = mine.fold(Link::default(), |link, it| link.and(&it.link));
            }
        }
    }
}

/// A frame on its way, ordered by when it arrives, then by when it came.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Worker {
    taps: Vec<Tap>,
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    waiting: BinaryHeap<Waiting>,
    count: u64,
    chance: Chance,
}

impl Worker {
    fn run(mut self) {
        let mut buffer = [0; FRAME_MAX];
        while !self.is_over.load(Ordering::Relaxed) {
            let ready = self.wait();
            for port in ready {
                for _ in 0..FRAMES_AT_ONCE {
                    // An error says that there is none left.
                    let Ok(length) = self.taps[port].device.recv(&mut buffer) else { break };
                    self.take(port, &buffer[..length]);
                }
            }
            self.deliver();
        }
    }

    /// Waits for frames, for the time of one that waits, or for a little while.
    fn wait(&self) -> Vec<usize> {
        let due = self.waiting.peek().map(|Reverse((at, ..))| *at);
        let wait = due.map_or(LOOK_EVERY, |at| at.saturating_duration_since(Instant::now()));
        let wait = wait.min(LOOK_EVERY);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut ports: Vec<PollFd<'_>> = self
            .taps
            .iter()
            .map(|tap| PollFd::from_borrowed_fd(tap.device.as_fd(), PollFlags::IN))
            .collect();
        // A signal is as good as a time-out.
        let _ = poll(&mut ports, Some(&timeout));
        let is_ready = |(_, port): &(usize, &PollFd<'_>)| port.revents().contains(PollFlags::IN);
        ports.iter().enumerate().filter(is_ready).map(|(port, _)| port).collect()
    }

    fn take(&mut self, from: usize, frame: &[u8]) {
        let to = (0..self.taps.len()).find(|port| frame.starts_with(&mac(*port)));
        // Multicast is chatter of the kernel: all neighbours are known.
        let Some(to) = to.filter(|to| *to != from) else { return };
        let now = Instant::now();
        let mut state = self.state.lock().expect("nobody panics with the switch");
        state.ring.push(frame);
        let direction = &mut state.matrix[from][to];
        let mut arrivals =
            direction.link.pass(&mut direction.pipe, now, frame.len(), &mut self.chance);
        if self.waiting.len() + arrivals.len() > WAITING_MAX {
            arrivals.clear();
        }
        match arrivals.first() {
            None => direction.counts.lost += 1,
            Some(at) => {
                direction.counts.passed += 1;
                direction.counts.delayed += u64::from(*at > now);
            }
        }
        drop(state);
        for at in arrivals {
            self.count += 1;
            self.waiting.push(Reverse((at, self.count, to, frame.to_vec())));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, ..))) = self.waiting.peek()
            && *at <= now
        {
            let Some(Reverse((_, _, to, frame))) = self.waiting.pop() else { return };
            // A device whose queue is full loses the frame, as any would.
            let _ = self.taps[to].device.send(&frame);
        }
    }
}
