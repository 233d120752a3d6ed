//! `flotilla-bench`: loads any store that speaks etcd's v3 API, checks its answers, and compares
//! stores in one run.
//!
//! From the inside out: `wire` speaks gRPC; `operation`, `perform` and `check` do one request and
//! judge its answer; `workload` says which; `load` issues them; `scenario` and `rows` are the
//! experiments; `interleave` compares; `report` writes down.

pub mod arrivals;
pub mod bootstrap;
pub mod check;
pub mod command;
pub mod comparison;
pub mod connect;
pub mod decode;
pub mod etcd_benchmark;
pub mod fill;
pub mod flags;
pub mod gates;
pub mod histogram;
pub mod interleave;
pub mod keys;
pub mod load;
pub mod machine;
pub mod operation;
pub mod pacer;
pub mod perform;
pub mod process;
pub mod progress;
pub mod random;
pub mod rate_search;
pub mod recorder;
pub mod report;
pub mod rows;
pub mod scenario;
pub mod session;
pub mod target;
pub mod trace;
pub mod verdict;
pub mod warmup;
pub mod watcher;
pub mod wire;
pub mod workload;
pub mod zipf;
