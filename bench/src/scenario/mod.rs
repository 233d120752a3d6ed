//! Experiments: one turn of a row on one store. Each returns figures by name; the gates know
//! which of them matter.

mod compaction;
mod fanout;
mod leader_kill;
mod lease_expiry;
mod list_all;
mod neighbour;
mod restart;
mod throughput;
mod watches;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;

use crate::arrivals::{Profile, Spacing};
use crate::load::{Outcome, Schedule, Shape};
use crate::report::json::Load;
use crate::rows::{Experiment, Row, Scale, parameters};
use crate::session::{Session, Timing};
use crate::target::Cluster;
use crate::workload::{self, Plan};

/// Rate of the puts that feel what else goes on, a second.
const PROBE_RATE: f64 = 500.0;
/// Probes under way at most.
const PROBE_OUTSTANDING: usize = 256;

/// A store in its turn.
pub struct Side {
    /// The store.
    pub cluster: Cluster,
    /// A session on it.
    pub session: Session,
}

/// What all turns share.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Warm-up and length of each load.
    pub timing: Timing,
    /// Factor on the goals' sizes.
    pub scale: Scale,
}

/// The figures of a turn.
#[derive(Default)]
pub struct Turn {
    /// Figures by name; the unit is part of the name.
    pub metrics: BTreeMap<String, f64>,
    /// The loads they come from.
    pub loads: Vec<Load>,
    /// Failures are part of the experiment, and do not speak against the run.
    pub expects_failures: bool,
}

impl Turn {
    fn set(&mut self, name: &str, value: f64) {
        // What cannot be computed is not a figure.
        if value.is_finite() {
            self.metrics.insert(name.into(), value);
        }
    }

    fn keep(&mut self, plan: &Plan, shape: &Shape, outcome: &Outcome) -> Load {
        let is_open = matches!(shape, Shape::Open { .. });
        let load = Load::new(&plan.name, is_open, shape.slots(), outcome);
        self.loads.push(load.clone());
        load
    }
}

/// Carries out one turn.
///
/// # Errors
/// The experiment could not be done. Failed requests and slow answers are figures, not errors.
pub async fn turn(row: &Row, side: &mut Side, settings: Settings) -> anyhow::Result<Turn> {
    match row.experiment {
        Experiment::Throughput { workload, outstanding } => {
            throughput::one(row.id, workload, outstanding, side, settings).await
        }
        Experiment::ListAll => list_all::turn(side, settings).await,
        Experiment::Leases => throughput::leases(row.id, side, settings).await,
        Experiment::Streams => throughput::streams(row.id, side, settings).await,
        Experiment::LeaseExpiry => lease_expiry::turn(side, settings).await,
        Experiment::Fanout => fanout::turn(side, settings).await,
        Experiment::Watches => watches::turn(side, settings).await,
        Experiment::Resident => restart::resident(row.id, side, settings).await,
        Experiment::Compaction => compaction::turn(side, settings).await,
        Experiment::Noisy => neighbour::turn(row.id, side, settings).await,
        Experiment::LeaderKill => leader_kill::turn(side, settings).await,
        Experiment::Restart => restart::turn(row.id, side, settings).await,
        Experiment::Refused(why) => bail!("{why}"),
    }
}

/// Puts at a rate, so that their latency tells what else goes on.
fn probe(rate: f64, length: Duration) -> Shape {
    let schedule =
        Schedule::Profile { profile: Profile::constant(rate, length), spacing: Spacing::Poisson };
    Shape::Open { schedule, outstanding_max: PROBE_OUTSTANDING }
}

/// The plan of a row's workload.
fn plan_of(id: &str, workload: &str, slots: usize, scale: Scale) -> anyhow::Result<Plan> {
    workload::plan(workload, &parameters(id, slots, scale))
}
