//! The life of a cluster that grows: many keys are written, ranges are cut by size and led by all, a
//! node dies for good and its replicas are made anew, a node joins and gets its share, a node is
//! drained and leaves. Effect: every one of these was seen in what the cluster itself lists.
//!
//! The writes are part of the history like all others. Nodes that left join again as new members, so
//! that whoever watches there goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::etcdserverpb::request_op::Request as Op;
use flotilla_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{DrainRequest, RangeInfo, RangeListRequest};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::history::{ClientId, Outcome, Request};
use crate::process::fault::{Effect, Ground, Whom, membership};
use crate::process::run::Run;
use crate::process::traffic::{call_once, connect};
use crate::sim::chance::Chance;

/// Keys of one transaction: etcd takes 128 operations.
const KEYS_PER_WRITE: u64 = 100;
/// Writers of the many keys; they are numbered from `FIRST_WRITER`.
const WRITERS: u32 = 4;
const FIRST_WRITER: u32 = 8_000;
/// How long any of the steps may take before it counts as not seen.
const STEP_WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Goes through all steps, and then ends the load.
pub(super) async fn carry_out(
    ground: &Ground,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    let run = &ground.run;
    who.is("a cluster's life".to_owned());
    let mut steps = Steps { run, began: Instant::now(), seen: Vec::new() };
    let effect = live(ground, &mut steps, chance).await?;
    let seen = steps.seen.join("; ");
    run.end_load();
    Ok(match effect {
        Ok(()) => Ok(seen),
        Err(reason) => Err(format!("{reason}; before that: {seen}")),
    })
}

async fn live(
    ground: &Ground,
    steps: &mut Steps<'_>,
    chance: &mut Chance,
) -> anyhow::Result<Result<(), String>> {
    let run = &ground.run;
    let founders = run.members();
    if founders.len() < 4 {
        return Ok(Err("it needs a member more than replicas".to_owned()));
    }
    let before = ranges(run).await.len();
    let filled = fill(run).await;
    steps.saw(format!("{filled} keys written"));
    let outcome = async {
        steps.until("ranges cut by size", |all| all.len() > before).await?;
        let enough = founders.len().min(before + 1);
        steps.until("leaders on as many nodes", |all| leaders(all).len() >= enough).await
    };
    if let Err(reason) = outcome.await {
        return Ok(Err(reason));
    }

    let dead = *chance.pick(&founders);
    let Some(old) = run.monitor.member_id(dead) else {
        return Ok(Err(format!("the id of n{dead} is not known")));
    };
    {
        let mut held = run.node(dead).await;
        held.kill();
        held.disk.wipe()?;
    }
    steps.saw(format!("n{dead} dead for good"));
    let restored = |all: &[RangeInfo]| {
        all.iter()
            .filter(|it| it.range != 0)
            .all(|it| !it.replicas.contains(&old) && it.leader != 0 && it.leader != old)
    };
    if let Err(reason) = steps.until("its replicas made anew", restored).await {
        return Ok(Err(reason));
    }
    let others: Vec<usize> = founders.iter().copied().filter(|node| *node != dead).collect();
    membership::remove(ground, &others, old).await?;
    run.monitor.forget(dead);
    membership::join(ground, &others, dead).await?;
    if let Err(reason) = membership::serve(ground, dead).await {
        return Ok(Err(reason));
    }
    run.monitor.ask(run, dead).await;
    let Some(new) = run.monitor.member_id(dead) else {
        return Ok(Err(format!("the id of n{dead} is not known")));
    };
    steps.saw(format!("n{dead} joined as a new member"));
    let share =
        |all: &[RangeInfo]| all.iter().any(|it| it.range != 0 && it.replicas.contains(&new));
    if let Err(reason) = steps.until("it holds ranges", share).await {
        return Ok(Err(reason));
    }

    let leaving = *chance.pick(&others);
    let Some(id) = run.monitor.member_id(leaving) else {
        return Ok(Err(format!("the id of n{leaving} is not known")));
    };
    let staying: Vec<usize> = founders.iter().copied().filter(|node| *node != leaving).collect();
    if let Err(reason) = drain(run, &staying, leaving).await {
        return Ok(Err(reason));
    }
    let empty = |all: &[RangeInfo]| {
        all.iter().all(|it| it.leader != id && (it.range == 0 || !it.replicas.contains(&id)))
    };
    if let Err(reason) = steps.until(&format!("n{leaving} drained"), empty).await {
        return Ok(Err(reason));
    }
    run.node(leaving).await.may_leave = true;
    membership::remove(ground, &staying, id).await?;
    run.monitor.forget(leaving);
    {
        let mut held = run.node(leaving).await;
        held.kill();
        held.disk.wipe()?;
        held.may_leave = false;
    }
    steps.saw(format!("n{leaving} removed"));
    membership::join(ground, &staying, leaving).await?;
    if let Err(reason) = membership::serve(ground, leaving).await {
        return Ok(Err(reason));
    }
    run.monitor.ask(run, leaving).await;
    steps.saw(format!("n{leaving} joined as a new member"));
    Ok(Ok(()))
}

/// What was seen, and when.
struct Steps<'a> {
    run: &'a Arc<Run>,
    began: Instant,
    seen: Vec<String>,
}

impl Steps<'_> {
    fn saw(&mut self, what: String) {
        let seconds = self.began.elapsed().as_secs();
        self.run.remark(format!("life, after {seconds} s: {what}"));
        self.seen.push(format!("{what} ({seconds} s)"));
    }

    async fn until(
        &mut self,
        what: &str,
        is_so: impl Fn(&[RangeInfo]) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + STEP_WITHIN;
        let mut last = Vec::new();
        while Instant::now() < deadline && self.run.is_under_load() {
            let all = ranges(self.run).await;
            if !all.is_empty() {
                if is_so(&all) {
                    let (count, led) = (all.len(), leaders(&all).len());
                    self.saw(format!("{what}, {count} ranges led by {led} nodes"));
                    return Ok(());
                }
                last = all;
            }
            sleep(LOOK_EVERY).await;
        }
        let last: Vec<String> = last
            .iter()
            .map(|it| format!("{} on {:x?} led by {:x}", it.range, it.replicas, it.leader))
            .collect();
        Err(format!("not seen: {what}; ranges: {}", last.join(", ")))
    }
}

fn leaders(all: &[RangeInfo]) -> BTreeSet<u64> {
    all.iter().map(|range| range.leader).filter(|leader| *leader != 0).collect()
}

async fn ranges(run: &Run) -> Vec<RangeInfo> {
    for node in run.members() {
        let Some(channel) = connect(run, node).await else { continue };
        let asked = async move { AdminClient::new(channel).range_list(RangeListRequest {}).await };
        if let Ok(Ok(answer)) = timeout(ANSWER_WITHIN, asked).await {
            return answer.into_inner().ranges;
        }
    }
    Vec::new()
}

async fn drain(run: &Run, via: &[usize], node: usize) -> Result<(), String> {
    let deadline = Instant::now() + STEP_WITHIN;
    let mut last = "nobody was reached".to_owned();
    while Instant::now() < deadline {
        for asked in via {
            let Some(channel) = connect(run, *asked).await else { continue };
            let request = DrainRequest { node: format!("n{node}"), is_draining: true };
            let done = async move { AdminClient::new(channel).drain(request).await };
            match timeout(ANSWER_WITHIN, done).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => last = status.message().to_owned(),
                Err(_) => last = format!("no answer within {ANSWER_WITHIN:?}"),
            }
        }
        sleep(AGAIN_AFTER).await;
    }
    Err(format!("n{node} cannot be drained: {last}"))
}

/// Writes all keys, each at least once. Answers how many.
async fn fill(run: &Arc<Run>) -> u64 {
    let next = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write_some(Arc::clone(run), writer, Arc::clone(&next))))
        .collect();
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap_or(0);
    }
    written
}

async fn write_some(run: Arc<Run>, writer: u32, next: Arc<AtomicU64>) -> u64 {
    let mut written = 0;
    let mut attempt = 0_u64;
    let mut connection: Option<(usize, Channel)> = None;
    loop {
        let first = next.fetch_add(KEYS_PER_WRITE, Ordering::Relaxed);
        let count = run.traffic.fill_keys.saturating_sub(first).min(KEYS_PER_WRITE);
        if count == 0 {
            return written;
        }
        // What was refused or is not known is written again, as another write.
        loop {
            if !run.is_under_load() {
                return written;
            }
            attempt += 1;
            let members = run.members();
            let home = members[(writer as usize + attempt as usize / 64) % members.len()];
            let (node, channel) = match connection.take().filter(|(node, _)| *node == home) {
                Some(connection) => connection,
                None => match connect(&run, home).await {
                    Some(channel) => (home, channel),
                    None => {
                        sleep(AGAIN_AFTER).await;
                        continue;
                    }
                },
            };
            let request = Request::Txn(block(writer, attempt, first, count));
            let client = ClientId(FIRST_WRITER + writer);
            let outcome = call_once(&run.recorder, client, node, channel.clone(), request).await;
            if matches!(outcome, Outcome::Answered(_)) {
                connection = Some((node, channel));
                break;
            }
            sleep(AGAIN_AFTER).await;
        }
        written += count;
    }
}

/// A write of many keys, whose values name it.
fn block(writer: u32, attempt: u64, first: u64, count: u64) -> TxnRequest {
    let put = |key: u64| PutRequest {
        key: format!("z/{key:010}").into(),
        value: format!("f{writer}.{attempt}").into(),
        ..PutRequest::default()
    };
    let puts =
        (first..first + count).map(|key| RequestOp { request: Some(Op::RequestPut(put(key))) });
    TxnRequest { success: puts.collect(), ..TxnRequest::default() }
}
