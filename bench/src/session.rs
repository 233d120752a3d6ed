//! One store ready to be loaded: connections, checks, keys written, watches open.

use std::sync::Arc;
use std::time::Duration;

use crate::check::Check;
use crate::connect::Pool;
use crate::fill;
use crate::load::{self, Outcome, Scene, Shape};
use crate::operation::end_of;
use crate::progress::Progress;
use crate::trace::TraceWriter;
use crate::watcher::{WatchGroup, WatchSpan};
use crate::wire::Options;
use crate::workload::{Fill, Plan};

/// Watches on one stream of a workload that holds some.
const WATCHES_PER_STREAM: usize = 10;

/// How long a load warms up and runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Longest warm-up.
    pub warmup_max: Duration,
    /// The measurement.
    pub length: Duration,
}

/// A store under load.
pub struct Session {
    /// Its connections.
    pub pool: Pool,
    /// Judges its answers.
    pub check: Arc<Check>,
    /// Its processes, if they run here.
    pub pids: Vec<u32>,
    /// Seed of all draws.
    pub seed: u64,
    /// Where progress is shown.
    pub progress: Progress,
    /// Where operations are recorded, if they are.
    pub trace: Option<Arc<TraceWriter>>,
    filled: Vec<(String, u64)>,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// An endpoint cannot be reached.
    pub async fn open(
        endpoints: &[String],
        connections: usize,
        options: &Options,
        pids: Vec<u32>,
        seed: u64,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let pool = Pool::open(endpoints, connections, options).await?;
        let check = Arc::new(Check::default());
        Ok(Self { pool, check, pids, seed, progress, trace: None, filled: Vec::new() })
    }

    /// Writes the keys a plan wants to find, once a session.
    ///
    /// # Errors
    /// A key cannot be written.
    pub async fn prepare(&mut self, wanted: &[Fill]) -> anyhow::Result<()> {
        for fill in wanted {
            let filled = (fill.keyspace.prefix.clone(), fill.keyspace.count);
            if self.filled.contains(&filled) {
                continue;
            }
            self.progress.say(&format!("writing {} keys below {}", filled.1, filled.0));
            fill::fill(&self.pool, &self.check, fill, self.seed).await?;
            self.filled.push(filled);
        }
        Ok(())
    }

    /// Loads the store with `plan`, holding the plan's watches meanwhile.
    ///
    /// # Errors
    /// A watch cannot be opened or a server has died. Failed requests are counted.
    pub async fn load(
        &self,
        plan: &Plan,
        shape: &Shape,
        timing: Timing,
    ) -> anyhow::Result<Outcome> {
        let spans: Vec<WatchSpan> = plan
            .watchers
            .iter()
            .flat_map(|watchers| {
                let key = bytes::Bytes::from(watchers.prefix.clone());
                let span = WatchSpan { key, end: end_of(&watchers.prefix) };
                std::iter::repeat_n(span, watchers.count)
            })
            .collect();
        let _watches = match spans.is_empty() {
            true => None,
            false => {
                Some(WatchGroup::open(&self.pool, &self.check, &spans, WATCHES_PER_STREAM).await?)
            }
        };
        let scene = Scene {
            pool: &self.pool,
            check: &self.check,
            pids: &self.pids,
            seed: self.seed,
            progress: &self.progress,
            trace: self.trace.clone(),
        };
        load::run(&scene, plan, shape, timing.warmup_max, timing.length).await
    }
}
