//! How one group is set up: its limits, the source of chance, and what can be wrong with what a
//! node recovered. Decides nothing while the group runs.

use crate::{GroupId, NodeId};

/// Limits and timing of one group. Time is counted in ticks, whose length the driver chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node; not zero.
    pub id: NodeId,
    /// This group; messages of any other are ignored.
    pub group: GroupId,
    /// Ticks without a leader after which a follower campaigns at the earliest; the draw is from
    /// `[election_ticks, 2 * election_ticks)`. Above `heartbeat_ticks`.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats; not zero.
    pub heartbeat_ticks: usize,
    /// Ticks without anything to do after which a leader and its followers sleep; 0 for never.
    pub sleep_after_ticks: usize,
    /// Ask for votes without raising the term first, so that a node that was cut off does not
    /// depose a healthy leader.
    pub is_pre_vote: bool,
    /// Append messages on their way to one peer; beyond it the leader waits for an answer.
    pub inflight_messages_max: usize,
    /// Bytes of entries in one append message; one entry may exceed it.
    pub message_bytes_max: u64,
    /// Bytes of data proposed and not yet committed; beyond it proposals are refused, though one
    /// is always taken. Not below `message_bytes_max`.
    pub uncommitted_bytes_max: u64,
    /// Bytes of entries in one `Effect::Commit`; one entry may exceed it.
    pub commit_bytes_max: u64,
    /// Tickets that wait for a leader or for an answer, of this node and, on a leader, held for
    /// other nodes; beyond it they are dropped at once.
    pub tickets_max: usize,
}

impl Config {
    /// The usual limits, for ticks of a tenth of an election timeout.
    pub fn new(id: NodeId, group: GroupId) -> Self {
        Self {
            id,
            group,
            election_ticks: 10,
            heartbeat_ticks: 1,
            sleep_after_ticks: 0,
            is_pre_vote: true,
            inflight_messages_max: 256,
            message_bytes_max: 1 << 20,
            uncommitted_bytes_max: 64 << 20,
            commit_bytes_max: 8 << 20,
            tickets_max: 4096,
        }
    }
}

/// Where chance comes from: the operating system in production, a seed under test.
pub trait Chance {
    /// A number in `0..bound`; `bound` is not zero.
    fn below(&mut self, bound: u64) -> u64;
}

/// Why a group cannot start. Each means that a file is damaged, mixed up or lost, or that the
/// configuration is wrong; none of them goes away by trying again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A limit of the configuration makes no sense.
    #[error("invalid group configuration: {0}")]
    Config(String),
    /// The stored membership contradicts itself.
    #[error("the stored membership is invalid: {0}")]
    Conf(&'static str),
    /// A membership is stored for a state that was never initialised.
    #[error("a membership is stored, but nothing was ever applied")]
    ConfWithoutState,
    /// Two neighbours in the log do not follow each other.
    #[error("the log continues after index {after} with index {index} of term {term}")]
    Gap {
        /// Last index that is in order.
        after: u64,
        /// Index found next.
        index: u64,
        /// Term found next.
        term: u64,
    },
    /// The log starts after the state: entries that were never applied are gone.
    #[error("the state stands at index {applied}, but the log starts after {truncated}")]
    StateBehindLog {
        /// Index of the state.
        applied: u64,
        /// Index before the first entry.
        truncated: u64,
    },
    /// The state and the committed log disagree about the entry at the state's index.
    #[error("the state stands at index {applied}, where the committed log has another entry")]
    StateDisagrees {
        /// Index of the state.
        applied: u64,
    },
    /// The log ends before an index known to be committed: entries this node vouched for are gone.
    #[error("the log ends at index {last}, but {commit} was committed")]
    LogLost {
        /// Last index of the log.
        last: u64,
        /// Committed index as stored.
        commit: u64,
    },
    /// The stored term is below a term in the log: a vote may be gone.
    #[error("the stored term {stored} is below term {found} of the log")]
    TermLost {
        /// Stored term.
        stored: u64,
        /// Highest term of the log.
        found: u64,
    },
    /// The consensus library refused.
    #[error("consensus cannot start: {0}")]
    Raft(String),
}
