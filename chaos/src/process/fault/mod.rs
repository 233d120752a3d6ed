//! Faults: what can be done to a cluster, one a file, each with a criterion that tells whether it
//! had an effect. A run with a fault that had none proves nothing about it.

mod admin;
mod class;
mod disk;
mod failpoint;
mod ground;
mod kill;
mod life;
mod links;
mod load;
mod membership;
mod partition;
mod pause;
mod power_cut;
mod rolling;
mod schedule;
mod squeeze;
mod stuck;
mod whom;

pub use class::{Class, Needs};
pub use ground::{Done, Ground};
pub use schedule::{Planned, draw};
pub use squeeze::missing_control_groups;
pub use whom::Whom;

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use crate::sim::chance::Chance;

/// What a fault did: what was seen of it, or why there was nothing to see.
pub type Effect = Result<String, String>;

/// Carries out the faults of one lane, one after the other, until the load ends.
pub async fn carry_out_lane(
    ground: Arc<Ground>,
    began: Instant,
    planned: Vec<Planned>,
    mut chance: Chance,
) {
    for planned in planned {
        sleep_until(began + planned.at).await;
        if !ground.run.is_under_load() {
            return;
        }
        let mut who = Whom::new(ground.run.recorder.clock);
        let effect = carry_out(&ground, &planned, &mut who, &mut chance).await;
        let until = ground.run.recorder.clock.now();
        let effect = effect.unwrap_or_else(|error| Err(format!("{error:#}")));
        let since = who.since.unwrap_or(until);
        ground.note(Done { class: planned.class, who: who.text, since, until, effect });
    }
}

async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    match planned.class {
        Class::Kill | Class::KillLeader => kill::one(ground, planned, who, chance).await,
        Class::KillAll => kill::all(ground, planned, who).await,
        Class::Pause | Class::PauseLeader => pause::carry_out(ground, planned, who, chance).await,
        Class::Rolling => rolling::restart(ground, who).await,
        Class::Upgrade => rolling::upgrade(ground, planned, who).await,
        Class::Failpoint => failpoint::carry_out(ground, planned, who, chance).await,
        Class::Replace => membership::replace(ground, planned, who, chance).await,
        Class::Grow => membership::grow(ground, planned, who).await,
        Class::Life => life::carry_out(ground, who, chance).await,
        Class::PowerCut => power_cut::one(ground, planned, who, chance).await,
        Class::PowerCutAll => power_cut::all(ground, planned, who, chance).await,
        Class::SlowDisk | Class::StuckDisk | Class::SyncFails | Class::DiskFull => {
            disk::carry_out(ground, planned, who, chance).await
        }
        Class::StuckLeader => stuck::carry_out(ground, who, chance).await,
        Class::IsolateLeader | Class::Isolate | Class::Halves | Class::OneWay => {
            partition::carry_out(ground, planned, who, chance).await
        }
        Class::Loss | Class::Delay => links::carry_out(ground, planned, who).await,
        Class::CpuSqueeze | Class::MemorySqueeze => {
            squeeze::carry_out(ground, planned, who, chance).await
        }
        Class::Overload => load::carry_out(ground, planned, who, chance).await,
        Class::Split | Class::Merge | Class::Transfer | Class::Move => {
            admin::carry_out(ground, planned, who, chance).await
        }
    }
}
