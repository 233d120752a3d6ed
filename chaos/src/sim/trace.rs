//! What happened in a run: a rolling hash of everything, and the last lines in words for a person.
//! Lines are made only when asked for, since a run can be repeated exactly.

use std::collections::VecDeque;
use std::fmt;

/// Lines kept for a person who does not say how many.
pub const LINES_USUAL: usize = 400;

/// The trace of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    lines_max: usize,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace that keeps so many of the last lines.
    pub fn new(lines_max: usize) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines_max, lines: VecDeque::new() }
    }

    /// Everything so far, as a number.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Takes bytes into the hash.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Takes a number into the hash.
    pub fn number(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    }

    /// Says what happens, in words that are only put together if someone listens.
    pub fn say(&mut self, at: u64, line: impl FnOnce() -> String) {
        if self.lines_max == 0 {
            return;
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>10}.{:03} ms  {}", at / 1_000, at % 1_000, line()));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
