//! Partitions. Effect: packets between the sides were lost; a leader on the smaller side for long
//! has a successor on the other.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::process::net::Link;
use crate::sim::chance::Chance;

/// A leader that is cut off for this long must have a successor.
const LONG: Duration = Duration::from_millis(3_000);

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let switch = ground.run.network.switch().context("there is no switch")?;
    let hold = ground.hold(planned.class == Class::IsolateLeader, chance).await;
    let others: Vec<usize> =
        ground.run.members().into_iter().filter(|node| *node != hold.node).collect();
    let (small, large) = match planned.class {
        // The node and as many more as leave a majority on the other side.
        Class::Halves => {
            let more = ground.run.members().len().saturating_sub(1) / 2;
            let more = more.saturating_sub(1).min(others.len());
            let small = [&[hold.node], &others[..more]].concat();
            (small, others[more..].to_vec())
        }
        _ => (vec![hold.node], others),
    };
    let pairs: Vec<(usize, usize)> = small
        .iter()
        .flat_map(|a| large.iter().map(move |b| (*a, *b)))
        .flat_map(|(a, b)| match planned.class {
            Class::OneWay => vec![(a, b)],
            _ => vec![(a, b), (b, a)],
        })
        .collect();
    let term = ground.run.monitor.term();
    let is_long = planned.lasts >= LONG;
    let was_leader = is_long && ground.note_death(hold.node, planned.class);
    who.is(format!("{small:?} from {large:?}{}", if was_leader { ", the leader" } else { "" }));
    let before = switch.counts_of(&pairs);
    let number = switch.disturb(pairs.clone(), Link { is_cut: true, ..Link::default() });
    sleep(planned.lasts).await;
    let successor = if was_leader { Some(ground.wait_leader(term).await) } else { None };
    switch.end(number);
    let lost = switch.counts_of(&pairs).since(before).lost;
    Ok(match (lost, successor) {
        (0, _) => Err("no packet was lost".to_owned()),
        (lost, Some(Ok(successor))) => Ok(format!("{lost} packets lost; {successor}")),
        (_, Some(Err(reason))) => Err(reason),
        (lost, None) => Ok(format!("{lost} packets lost")),
    })
}
