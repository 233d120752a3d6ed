//! Where the time of a call went, for the log of slow ones. A call that is not slow costs five looks
//! at the clock and one comparison; nothing is allocated, and nothing is formatted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use super::Method;

/// The moments of one call, in microseconds since it began; 0 while it has not come so far.
pub(super) struct Phases {
    began: Instant,
    received: AtomicU64,
    admitted: AtomicU64,
    answered: AtomicU64,
}

impl Phases {
    /// A call begins: its request is yet to be received.
    pub(super) fn begin() -> Self {
        let none = || AtomicU64::new(0);
        Self { began: Instant::now(), received: none(), admitted: none(), answered: none() }
    }

    /// The whole request is here.
    pub(super) fn received(&self) {
        self.mark(&self.received);
    }

    /// Its client may make it.
    pub(super) fn admitted(&self) {
        self.mark(&self.admitted);
    }

    /// It was carried out; the answer is yet to be encoded.
    pub(super) fn answered(&self) {
        self.mark(&self.answered);
    }

    fn mark(&self, moment: &AtomicU64) {
        moment.store(micros(self.began.elapsed()), Ordering::Relaxed);
    }

    /// The call ended. One that took longer than `limit` is logged.
    pub(super) fn end(&self, method: Method, code: Code, limit: Duration) {
        let took = self.began.elapsed();
        if took > limit {
            let [receive_us, admit_us, carry_out_us, encode_us] = self.split(micros(took));
            tracing::warn!(
                method = method.name(),
                service = method.service(),
                code = ?code,
                took_us = micros(took),
                limit_us = micros(limit),
                receive_us,
                admit_us,
                carry_out_us,
                encode_us,
                "a request took long"
            );
        }
    }

    /// Until it was received, until its client was let in, until it was carried out, until its answer
    /// was encoded. What the call did not come to took no time.
    fn split(&self, took: u64) -> [u64; 4] {
        let mut last = 0;
        let moments = [&self.received, &self.admitted, &self.answered];
        let ends = moments.map(|moment| moment.load(Ordering::Relaxed));
        let reached = ends.iter().filter(|end| **end > 0).count();
        let mut phases = [0; 4];
        for (at, phase) in phases.iter_mut().enumerate().take(reached + 1) {
            let end = if at < reached { ends[at] } else { took };
            *phase = end.saturating_sub(last);
            last = end;
        }
        phases
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(received: u64, admitted: u64, answered: u64) -> Phases {
        let at = AtomicU64::new;
        Phases {
            began: Instant::now(),
            received: at(received),
            admitted: at(admitted),
            answered: at(answered),
        }
    }

    #[test]
    fn the_phases_of_a_call_are_its_whole_time() {
        assert_eq!(phases(5, 7, 97).split(100), [5, 2, 90, 3]);
        // Nobody was let in; nothing was received.
        assert_eq!(phases(5, 0, 0).split(100), [5, 95, 0, 0]);
        assert_eq!(phases(0, 0, 0).split(100), [100, 0, 0, 0]);
    }
}
