//! Changes of the membership, as an operator makes them: a dead member with a wiped disk is
//! replaced; the cluster grows by two and shrinks again. Effect: the members that the cluster
//! lists are others than before, and the new ones serve.

use std::time::Duration;

use anyhow::{Context as _, bail};
use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberRemoveRequest,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

use crate::process::fault::{Effect, Ground, Planned, Whom};
use crate::process::traffic::connect;
use crate::sim::chance::Chance;

/// How long one change may take, with all attempts: a cluster refuses it for a while after a
/// member was lost.
const CHANGE_WITHIN: Duration = Duration::from_secs(40);
/// How long one attempt may take.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(8);
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How long a new member may take to serve.
const SERVE_WITHIN: Duration = Duration::from_secs(30);

/// Replaces one member.
pub(super) async fn replace(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    let run = &ground.run;
    let members = run.members();
    let node = *chance.pick(&members);
    who.is(format!("n{node}"));
    let via: Vec<usize> = members.into_iter().filter(|other| *other != node).collect();
    let old = run.monitor.member_id(node).context("its id is not known")?;
    {
        let mut held = run.node(node).await;
        held.kill();
        held.disk.wipe()?;
    }
    sleep(planned.lasts / 4).await;
    remove(ground, &via, old).await?;
    run.monitor.forget(node);
    join(ground, &via, node).await?;
    Ok(serve(ground, node).await)
}

/// Grows by all spare nodes, and shrinks again.
pub(super) async fn grow(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
) -> anyhow::Result<Effect> {
    let _hold = ground.hold_all().await;
    let run = &ground.run;
    let founders = run.members();
    let spare: Vec<usize> =
        (0..run.nodes_count()).filter(|node| !founders.contains(node)).collect();
    who.is(format!("{spare:?}"));
    let mut effect = Ok(format!("{spare:?} joined, served and were removed"));
    for node in &spare {
        run.node(*node).await.disk.wipe()?;
        join(ground, &founders, *node).await?;
        if let Err(reason) = serve(ground, *node).await {
            effect = Err(reason);
        }
        run.monitor.ask(run, *node).await;
    }
    run.set_members([founders.clone(), spare.clone()].concat());
    sleep(planned.lasts).await;
    run.set_members(founders.clone());
    for node in &spare {
        let id = run.monitor.member_id(*node).context("its id is not known")?;
        run.node(*node).await.may_leave = true;
        remove(ground, &founders, id).await?;
        run.monitor.forget(*node);
        let mut held = run.node(*node).await;
        held.kill();
        held.may_leave = false;
    }
    Ok(effect)
}

pub(super) async fn serve(ground: &Ground, node: usize) -> Effect {
    if ground.run.wait_ready(node, SERVE_WITHIN).await {
        Ok("the new member serves".to_owned())
    } else {
        Err(format!("the new member does not serve within {SERVE_WITHIN:?}"))
    }
}

/// Has a node that has nothing join as a new member.
pub(super) async fn join(ground: &Ground, via: &[usize], node: usize) -> anyhow::Result<()> {
    let (name, url) = {
        let held = ground.run.node(node).await;
        (held.name.clone(), held.peer_url.clone())
    };
    let members = change(ground, via, &Change::Add(url.clone())).await.context("add a member")?;
    let entries: Vec<String> = members
        .iter()
        .flat_map(|member| {
            let is_new = member.peer_ur_ls.contains(&url);
            let name = if is_new { name.as_str() } else { member.name.as_str() };
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        })
        .collect();
    let mut held = ground.run.node(node).await;
    held.initial_cluster = entries.join(",");
    held.joins = true;
    held.start(&ground.run.target)
}

pub(super) async fn remove(ground: &Ground, via: &[usize], id: u64) -> anyhow::Result<()> {
    change(ground, via, &Change::Remove(id)).await.context("remove a member")?;
    Ok(())
}

/// A change of the membership.
enum Change {
    /// A member with this URL for peers joins.
    Add(String),
    /// The member with this id leaves.
    Remove(u64),
}

/// Asks one node after the other until one of them has done it. Returns the members.
async fn change(ground: &Ground, via: &[usize], change: &Change) -> anyhow::Result<Vec<Member>> {
    let deadline = Instant::now() + CHANGE_WITHIN;
    let mut last = "nobody was reached".to_owned();
    while Instant::now() < deadline {
        for node in via {
            let Some(channel) = connect(&ground.run, *node).await else { continue };
            match timeout(ATTEMPT_WITHIN, attempt(channel, change)).await {
                Ok(Ok(members)) => return Ok(members),
                Ok(Err(status)) => last = status.message().to_owned(),
                Err(_) => last = format!("no answer within {ATTEMPT_WITHIN:?}"),
            }
        }
        sleep(AGAIN_AFTER).await;
    }
    bail!("not within {CHANGE_WITHIN:?}: {last}")
}

async fn attempt(channel: Channel, change: &Change) -> Result<Vec<Member>, Status> {
    let mut cluster = ClusterClient::new(channel);
    let list = MemberListRequest { linearizable: true };
    let members = cluster.member_list(list).await?.into_inner().members;
    // An attempt before this one may have come through.
    match change {
        Change::Add(url) if members.iter().any(|it| it.peer_ur_ls.contains(url)) => Ok(members),
        Change::Remove(id) if members.iter().all(|it| it.id != *id) => Ok(members),
        Change::Add(url) => {
            let add = MemberAddRequest { peer_ur_ls: vec![url.clone()], ..Default::default() };
            Ok(cluster.member_add(add).await?.into_inner().members)
        }
        Change::Remove(id) => {
            let remove = MemberRemoveRequest { id: *id };
            Ok(cluster.member_remove(remove).await?.into_inner().members)
        }
    }
}
