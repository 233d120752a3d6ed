//! The leader's disk does not answer, for so long that others must lead what it led. Effect:
//! operations hung. A node that still leads a range in use ten seconds later breaks a promise.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_proto::internal::RangeListRequest;
use flotilla_proto::internal::admin_client::AdminClient;
use tokio::time::{Instant, sleep, timeout};

use crate::process::disk::{Action, Operation};
use crate::process::fault::{Class, Effect, Ground, Whom, disk};
use crate::process::traffic::connect;
use crate::sim::chance::Chance;

/// How long the disk is stuck.
const LASTS: Duration = Duration::from_secs(14);
/// How long the node may lead anything.
const LEADS_FOR_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

pub(super) async fn carry_out(
    ground: &Ground,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    // Nobody could take over while others are down.
    let _seats = ground.hold_all().await;
    let run = &ground.run;
    let Some(node) = run.monitor.leader().filter(|leader| run.members().contains(leader)) else {
        return Ok(Err("nobody is known to lead".to_owned()));
    };
    let others: Vec<usize> = run.members().into_iter().filter(|other| *other != node).collect();
    if others.is_empty() {
        return Ok(Err("there is nobody to take over".to_owned()));
    }
    let asked = *chance.pick(&others);
    let number = {
        let mut held = run.node(node).await;
        held.may_leave = true;
        let rule = disk::rule(vec![Operation::Write, Operation::Sync], Action::Hang);
        held.disk.mounted().context("it has an ordinary disk")?.rules().add(rule)
    };
    ground.note_death(node, Class::StuckLeader);
    who.is(format!("n{node}, the leader"));
    let began = Instant::now();
    let mut led_until = None;
    let mut leads: Option<BTreeSet<u64>> = None;
    while began.elapsed() < LASTS {
        if let Some(led) = led_by(ground, asked, node).await {
            if led.is_empty() {
                led_until.get_or_insert(began.elapsed());
            } else {
                led_until = None;
            }
            leads = Some(led);
        }
        sleep(LOOK_EVERY).await;
    }
    let hits = {
        let held = run.node(node).await;
        let hits = held.disk.mounted().context("it has an ordinary disk")?.rules().remove(number);
        held.disk.heal();
        hits
    };
    ground.revive(node).await?;
    run.node(node).await.may_leave = false;
    let what = match (led_until, leads) {
        (Some(after), _) if after <= LEADS_FOR_MAX => {
            format!("{hits} operations hung; after {:.1} s it led nothing", after.as_secs_f64())
        }
        (_, None) => format!("{hits} operations hung; nobody said who leads"),
        (after, Some(led)) => {
            let text = format!(
                "n{node} leads {led:?} (0 is the spine) after its disk was stuck for \
                 {LEADS_FOR_MAX:?}; free of them after {after:?}"
            );
            // Others never promised it.
            if run.target.is_flotilla {
                run.find(text.clone());
            } else {
                run.remark(text.clone());
            }
            text
        }
    };
    Ok(if hits > 0 { Ok(what) } else { Err(what) })
}

/// What a node leads, as another one says; `None` if that does not answer. Of a target without ranges,
/// whether it leads at all.
async fn led_by(ground: &Ground, asked: usize, node: usize) -> Option<BTreeSet<u64>> {
    let run = &ground.run;
    if !run.target.is_flotilla {
        let leads = run.monitor.leader() == Some(node);
        return Some(leads.then_some(0).into_iter().collect());
    }
    let id = run.monitor.member_id(node)?;
    let channel = connect(run, asked).await?;
    let list = async move { AdminClient::new(channel).range_list(RangeListRequest {}).await };
    let answer = timeout(ANSWER_WITHIN, list).await.ok()?.ok()?.into_inner();
    let led = answer.ranges.iter().filter(|range| range.leader == id);
    Some(led.map(|range| range.range).collect())
}
