//! Links between all nodes that lose, double and reorder packets, or take long. The links to the
//! clients stay as they are. Effect: packets were lost, or delayed.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::process::net::Link;

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
) -> anyhow::Result<Effect> {
    let switch = ground.run.network.switch().context("there is no switch")?;
    let members = ground.run.members();
    let pairs: Vec<(usize, usize)> = members
        .iter()
        .flat_map(|a| members.iter().map(move |b| (*a, *b)))
        .filter(|(a, b)| a != b)
        .collect();
    let link = match planned.class {
        Class::Loss => Link {
            lost_ppm: 150_000,
            doubled_ppm: 50_000,
            overtaken_ppm: 100_000,
            ..Link::default()
        },
        _ => Link {
            delay: Duration::from_millis(40),
            jitter: Duration::from_millis(80),
            ..Link::default()
        },
    };
    who.is("all links between nodes".to_owned());
    let before = switch.counts_of(&pairs);
    let number = switch.disturb(pairs.clone(), link);
    sleep(planned.lasts).await;
    switch.end(number);
    let counts = switch.counts_of(&pairs).since(before);
    let (hit, what) = match planned.class {
        Class::Loss => (counts.lost, "lost"),
        _ => (counts.delayed, "delayed"),
    };
    let text = format!("{hit} of {} packets {what}", counts.passed + counts.lost);
    Ok(if hit > 0 { Ok(text) } else { Err(text) })
}
