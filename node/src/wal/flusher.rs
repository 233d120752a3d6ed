//! The log's own thread: takes what is queued, has it written as one frame, reports it. Owns the
//! far end of the queue and the order of reports. Never retries anything: the first error ends the
//! thread, and no append is reported done after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::error::Error;
use super::format::FrameKind;
use super::gauges::Gauges;
use super::operation::{Append, Done, Flush, Operation, Report};
use super::writer::Writer;
use crate::failpoint::{Failpoint, IS_COMPILED_IN};

pub(super) enum Message {
    /// With its size as recorded, in bytes.
    Append(Append, u64),
    Close,
}

/// Why the thread woke up.
enum Wake {
    Message(Message),
    ConfirmDue,
    /// Nobody holds a handle any more.
    Abandoned,
}

pub(super) struct Flusher {
    writer: Writer,
    receiver: Receiver<Message>,
    gauges: Arc<Gauges>,
    on_done: Box<dyn Fn(Report) + Send>,
    /// What the next frame will hold. It outlives its frame for the sake of its memory.
    batch: Vec<Append>,
    /// As recorded.
    batch_bytes: u64,
    /// These first appends of the batch needed no flush and are reported already.
    reported: usize,
    is_flush_needed: bool,
    /// When to write a frame that nobody waits for.
    confirm_at: Option<Instant>,
}

impl Flusher {
    pub(super) fn new(
        writer: Writer,
        receiver: Receiver<Message>,
        gauges: Arc<Gauges>,
        on_done: Box<dyn Fn(Report) + Send>,
    ) -> Flusher {
        gauges.note_extent(&writer);
        Flusher {
            writer,
            receiver,
            gauges,
            on_done,
            batch: Vec::new(),
            batch_bytes: 0,
            reported: 0,
            is_flush_needed: false,
            confirm_at: None,
        }
    }

    /// Runs until the log is closed or fails, or all handles are gone.
    pub(super) fn run(mut self, on_failure: &dyn Fn(Error)) {
        // A panic here must not leave the node waiting for reports that never come.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        // From here on appends are refused, so whoever hears of the failure can rely on it.
        drop(self);
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => on_failure(error),
            Err(_) => on_failure(Error::Panicked),
        }
    }

    fn serve(&mut self) -> Result<(), Error> {
        loop {
            let is_closing = match self.wait() {
                Wake::Message(message) => self.gather(message),
                Wake::ConfirmDue => {
                    self.flush(FrameKind::Confirm)?;
                    continue;
                }
                Wake::Abandoned => return Ok(()),
            };
            if is_closing {
                return self.flush(FrameKind::Close);
            }
            if self.is_flush_needed || self.is_batch_full() {
                self.flush(FrameKind::Data)?;
            } else {
                self.report_ordered();
            }
        }
    }

    fn wait(&self) -> Wake {
        let message = match self.confirm_at {
            Some(deadline) => self.receiver.recv_deadline(deadline),
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match message {
            Ok(message) => Wake::Message(message),
            Err(RecvTimeoutError::Timeout) => Wake::ConfirmDue,
            Err(RecvTimeoutError::Disconnected) => Wake::Abandoned,
        }
    }

    /// Takes what is queued, as far as the batch may grow. True if the log is to be closed.
    fn gather(&mut self, first: Message) -> bool {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Append(append, bytes) => {
                    self.gauges.queued_bytes.fetch_sub(bytes, Relaxed);
                    self.is_flush_needed |= append.is_flush_needed;
                    self.batch_bytes += bytes;
                    self.batch.push(append);
                }
                Message::Close => return true,
            }
            next = if self.is_batch_full() { None } else { self.receiver.try_recv().ok() };
        }
        false
    }

    fn is_batch_full(&self) -> bool {
        self.batch_bytes >= self.writer.options.batch_bytes_max
    }

    fn flush(&mut self, kind: FrameKind) -> Result<(), Error> {
        let has_vote = IS_COMPILED_IN && self.batch.iter().any(is_vote);
        if has_vote {
            Failpoint::VoteBeforeWrite.reached();
        } else if kind == FrameKind::Data {
            Failpoint::WalBeforeWrite.reached();
        }
        let flush = self.writer.write(kind, &self.batch, self.batch_bytes)?;
        if has_vote {
            Failpoint::VoteAfterFlush.reached();
        } else if kind == FrameKind::Data {
            Failpoint::WalAfterFlush.reached();
        }
        self.report(Some(flush));
        self.batch.clear();
        self.batch_bytes = 0;
        self.reported = 0;
        self.is_flush_needed = false;
        // Confirming a confirmation would go on forever.
        let is_confirm_wanted = kind == FrameKind::Data;
        self.confirm_at = is_confirm_wanted.then(|| self.confirm_time());
        // Freeing takes time. When appends wait for the next flush, one segment must do.
        while self.writer.free_oldest()? && kind == FrameKind::Confirm {}
        self.gauges.note_flush(&flush);
        self.gauges.note_extent(&self.writer);
        Ok(())
    }

    /// Reports appends that need no flush; they stay in the batch for the next frame.
    fn report_ordered(&mut self) {
        self.report(None);
        if self.confirm_at.is_none() {
            self.confirm_at = Some(self.confirm_time());
        }
    }

    fn confirm_time(&self) -> Instant {
        Instant::now() + self.writer.options.confirm_delay
    }

    fn report(&mut self, flush: Option<Flush>) {
        let news = self.batch[self.reported..].iter();
        let done = news.map(|append| Done { group: append.group, token: append.token }).collect();
        self.reported = self.batch.len();
        (self.on_done)(Report { done, flush });
    }
}

/// A term or a vote that must be durable, without entries.
fn is_vote(append: &Append) -> bool {
    append.is_flush_needed && matches!(append.operations[..], [Operation::HardState(_)])
}
