//! Where one worker finds the answers to its calls. Answers come from other threads, many at a time:
//! to wake each call by itself would be a system call each, and the calls would trickle back one by
//! one, each with a write to its connection. So they are put here, the worker is woken once for all that
//! come while it is busy, and hands them to its calls itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::SegQueue;
use flotilla_core::Error;
use flotilla_core::command::Outcome;
use flotilla_core::proto::internal::Told;
use tokio::sync::{Notify, oneshot};

/// Answers that wait for their worker: no more than requests under way, which the machine bounds.
#[derive(Debug, Default)]
pub struct Inbox {
    letters: SegQueue<Letter>,
    /// The worker was woken, and has not begun to look.
    is_woken: AtomicBool,
    wake: Notify,
}

/// An answer, and who waits for it.
#[derive(Debug)]
pub(super) enum Letter {
    Outcome(oneshot::Sender<Outcome>, Outcome),
    Ticket(oneshot::Sender<Result<(), Error>>, Result<(), Error>),
    Told(oneshot::Sender<Told>, Told),
}

impl Inbox {
    /// One that is emptied on the present thread, until the thread's runtime ends.
    pub fn start() -> Arc<Self> {
        let inbox = Arc::new(Self::default());
        let emptied = inbox.clone();
        tokio::spawn(async move {
            loop {
                emptied.wake.notified().await;
                emptied.empty();
            }
        });
        inbox
    }

    /// Leaves an answer.
    pub(super) fn put(&self, letter: Letter) {
        self.letters.push(letter);
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    fn empty(&self) {
        // Before it is looked: who comes later wakes again, and what came earlier is seen.
        self.is_woken.swap(false, Ordering::AcqRel);
        while let Some(letter) = self.letters.pop() {
            letter.deliver();
        }
    }
}

impl Letter {
    /// Nothing happens if the client went away.
    pub(super) fn deliver(self) {
        match self {
            Self::Outcome(waiting, outcome) => drop(waiting.send(outcome)),
            Self::Ticket(waiting, result) => drop(waiting.send(result)),
            Self::Told(waiting, told) => drop(waiting.send(told)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_from_another_thread_arrives_whenever_it_is_put() {
        const ANSWERS: u64 = 20_000;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let inbox = Inbox::start();
            let mut waiting = Vec::new();
            let mut letters = Vec::new();
            for n in 0..ANSWERS {
                let (sender, receiver) = oneshot::channel();
                let told = Told { n, ..Told::default() };
                letters.push(Letter::Told(sender, told));
                waiting.push(receiver);
            }
            let others = std::thread::spawn(move || {
                for (at, letter) in letters.into_iter().enumerate() {
                    inbox.put(letter);
                    if at % 100 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
            for (n, receiver) in (0..).zip(waiting) {
                assert_eq!(receiver.await.unwrap().n, n);
            }
            others.join().unwrap();
        });
    }
}
