//! What an actor hands to the log's thread and the apply thread, in order. What they have no room for
//! stays here until they report.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam::channel::TrySendError;
use flotilla_core::GroupId;
use flotilla_core::group::{self, Position};

use super::{ApplyMessage, NO_TOKEN, to_wal};
use crate::store::Store;
use crate::supervise::fatal;
use crate::wal;

/// When the log had no room for the end of a group, it is asked again after this.
const FORGET_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Of one group.
pub struct Outbox {
    group: GroupId,
    wal: wal::Handle,
    applier: crossbeam::channel::Sender<ApplyMessage>,
    appends: VecDeque<wal::Append>,
    tasks: VecDeque<ApplyMessage>,
}

impl Outbox {
    /// Nothing waits.
    pub fn new(
        group: GroupId,
        wal: wal::Handle,
        applier: crossbeam::channel::Sender<ApplyMessage>,
    ) -> Self {
        Self { group, wal, applier, appends: VecDeque::new(), tasks: VecDeque::new() }
    }

    /// Writes to the log.
    pub fn append(&mut self, append: group::Append) {
        self.appends.push_back(to_wal(self.group, append));
        self.send_appends();
    }

    /// Lets the log forget everything up to here.
    pub fn truncate(&mut self, position: Position) {
        let Position { index, term } = position;
        self.appends.push_back(wal::Append {
            group: self.group,
            token: NO_TOKEN,
            is_flush_needed: false,
            operations: vec![wal::Operation::Truncate { index, term }],
        });
        self.send_appends();
    }

    /// Whether something waits for room in the log.
    pub fn has_appends(&self) -> bool {
        !self.appends.is_empty()
    }

    /// Has the log forget all of the group, once the store is durable: until then the store may come
    /// back to it. What a crash leaves of the log is forgotten at the next start. If the log's last
    /// position is given, that and the votes are kept.
    pub fn forget(&self, store: Store, kept: Option<Position>) {
        assert!(self.appends.is_empty(), "what comes before is in the log");
        let (group, wal) = (self.group, self.wal.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = store.flush() {
                fatal(&format!("the store cannot be made durable: {error}"));
            }
            let mut remove = wal::Append {
                group,
                token: NO_TOKEN,
                is_flush_needed: false,
                operations: vec![match kept {
                    Some(Position { index, term }) => wal::Operation::Truncate { index, term },
                    None => wal::Operation::Remove,
                }],
            };
            loop {
                match wal.try_append(remove) {
                    Ok(()) => return,
                    Err(wal::Refused { append, reason: wal::RefusedReason::Full }) => {
                        std::thread::sleep(FORGET_AGAIN_AFTER);
                        remove = append;
                    }
                    Err(wal::Refused { reason: wal::RefusedReason::Closed, .. }) => return,
                    Err(refused) => {
                        fatal(&format!("the log refused an append: {}", refused.reason))
                    }
                }
            }
        });
    }

    /// Has the apply thread do something.
    pub fn apply(&mut self, message: ApplyMessage) {
        self.tasks.push_back(message);
        self.send_tasks();
    }

    /// There may be room again.
    pub fn send_appends(&mut self) {
        while let Some(append) = self.appends.pop_front() {
            match self.wal.try_append(append) {
                Ok(()) => {}
                Err(wal::Refused { append, reason: wal::RefusedReason::Full }) => {
                    self.appends.push_front(append);
                    return;
                }
                Err(wal::Refused { reason: wal::RefusedReason::Closed, .. }) => return,
                Err(refused) => fatal(&format!("the log refused an append: {}", refused.reason)),
            }
        }
    }

    /// There may be room again.
    pub fn send_tasks(&mut self) {
        while let Some(message) = self.tasks.pop_front() {
            match self.applier.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.tasks.push_front(message);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => fatal("the apply thread has ended"),
            }
        }
    }
}
