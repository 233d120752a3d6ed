//! Tests of the hub, on one stage: a store in memory, clients that take or leave what they are
//! sent, and a log of every response as one line of text.

mod pieces;
mod stage;

mod blocks;
mod bookkeeping;
mod catching_up;
mod creating;
mod encoding;
mod leaderless;
mod live;
mod progress;
mod random;
