//! Deciding a write before it is proposed, so that what is logged is its effects and nothing can
//! be decided differently elsewhere. What has no effect is never logged but answered at a ticket.

use super::draft::{Draft, REVISION_BEFORE};
use super::txn::{self, Execution};
use super::{Failure, Head};
use super::{delete, put};
use crate::LeaseId;
use crate::command::{Answer, Command};
use crate::proto::internal::Effect;
use crate::view::{View, ViewError};

/// A delete of more keys than this is logged as its span: the log is not the place for a list of
/// a million keys.
pub const NAMED_KEYS_MAX: usize = 1_024;

/// Which leases exist in the state being read.
pub trait LeaseTable {
    /// True if the lease was granted and not revoked.
    fn exists(&self, lease: LeaseId) -> bool;
}

/// For requests that name no lease.
pub(super) struct NoLeases;

impl LeaseTable for NoLeases {
    fn exists(&self, _: LeaseId) -> bool {
        false
    }
}

/// Whether a lease exists is decided when the write that names it is numbered (I12), so a leader
/// takes it for granted.
pub struct FoldDecides;

impl LeaseTable for FoldDecides {
    fn exists(&self, _: LeaseId) -> bool {
        true
    }
}

/// For requests that read nothing of the past.
pub const NO_HEAD: Head = Head { revision: 0, compact_revision: -1 };

/// What becomes of a write.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made once for a request and taken apart at once")]
pub enum Evaluated {
    /// It changes keys.
    Effects {
        /// The changes in the order of their sub-revisions; at least one.
        effects: Vec<Effect>,
        /// The answer once the write has its revision.
        draft: Draft,
        /// The lowest revision that was read by its number; no compaction above it may come before
        /// the write. 0 when none was.
        reads_at: i64,
    },
    /// It changes nothing on this state: a refused request, a condition that does not hold, a
    /// delete of nothing. Ask `outcome_without_effect` at a ticket.
    NoEffect,
}

/// The leases to which puts attach their keys, in order, each once. They must exist when the write
/// is numbered.
pub fn attached_leases<'e>(effects: impl IntoIterator<Item = &'e Effect>) -> Vec<i64> {
    let attaches = effects.into_iter().filter(|effect| !effect.is_delete && effect.lease != 0);
    let mut leases: Vec<i64> = attaches.map(|effect| effect.lease).collect();
    leases.sort_unstable();
    leases.dedup();
    leases
}

/// Decides a checked change of keys on the leader's state at `head`. The latches of its `footprint`
/// must be held, so that no write that it could see is still in flight.
///
/// # Errors
/// The store cannot be read.
///
/// # Panics
/// The command is not a Put, DeleteRange or Txn.
pub fn evaluate(
    view: &dyn View,
    head: Head,
    leases: &dyn LeaseTable,
    command: &Command,
) -> Result<Evaluated, ViewError> {
    decide(run(view, head.revision, head, leases, command, REVISION_BEFORE))
}

/// As `evaluate`, on the keys as the view has them, however new they are: the head is only that of
/// reads of the past. For a range, whose leader has all of its keys but does not know how far the
/// others are.
///
/// # Errors
/// The store cannot be read.
///
/// # Panics
/// The command is not a Put, DeleteRange or Txn.
pub fn evaluate_newest(
    view: &dyn View,
    head: Head,
    leases: &dyn LeaseTable,
    command: &Command,
) -> Result<Evaluated, ViewError> {
    decide(run(view, REVISION_BEFORE, head, leases, command, REVISION_BEFORE))
}

fn decide(result: Result<Ran, Failure>) -> Result<Evaluated, ViewError> {
    match result {
        Ok(Ran { effects, draft, reads_at }) if !effects.is_empty() => {
            Ok(Evaluated::Effects { effects, draft, reads_at })
        }
        Ok(_) | Err(Failure::Client(_) | Failure::Overtaken) => Ok(Evaluated::NoEffect),
        Err(Failure::View(error)) => Err(error),
    }
}

/// The answer to a checked change of keys that has no effect at the head of a ticket, or `None` if
/// it does have one there and must take the way of a write again.
///
/// # Errors
/// The error for the client, or see `Failure`.
///
/// # Panics
/// The command is not a Put, DeleteRange or Txn.
pub fn outcome_without_effect(
    view: &dyn View,
    head: Head,
    leases: &dyn LeaseTable,
    command: &Command,
) -> Result<Option<Answer>, Failure> {
    let ran = run(view, head.revision, head, leases, command, head.revision)?;
    Ok(ran.effects.is_empty().then(|| ran.draft.into_unchanged()))
}

/// What was executed.
struct Ran {
    effects: Vec<Effect>,
    draft: Draft,
    reads_at: i64,
}

fn run(
    view: &dyn View,
    keys_at: i64,
    head: Head,
    leases: &dyn LeaseTable,
    command: &Command,
    revision_before: i64,
) -> Result<Ran, Failure> {
    let mut execution = Execution::new(view, keys_at, head, leases, revision_before);
    let answer = match command {
        Command::Put(request) => {
            put::check_lease(leases, request)?;
            if put::is_blind(request) {
                let draft = Draft::of_blind_put(request.prev_kv);
                let effects = vec![put::blind_effect(request)];
                return Ok(Ran { effects, draft, reads_at: 0 });
            }
            Answer::Put(put::execute(&mut execution, request)?)
        }
        Command::DeleteRange(request) => {
            let answer = delete::execute(&mut execution, request)?;
            if execution.effects.len() > NAMED_KEYS_MAX {
                execution.effects = vec![Effect {
                    key: request.key.clone(),
                    range_end: request.range_end.clone(),
                    is_delete: true,
                    ..Default::default()
                }];
            }
            Answer::DeleteRange(answer)
        }
        Command::Txn(request) => Answer::Txn(txn::run(&mut execution, request)?),
        _ => panic!("only changes of keys are evaluated here"),
    };
    let Execution { effects, late_reads, reads_at, .. } = execution;
    Ok(Ran { effects, draft: Draft::new(answer, late_reads), reads_at: reads_at.unwrap_or(0) })
}
