//! Ranges that are cut, merged, handed over and moved, through Flotilla's own calls. Effect: the node
//! that was asked says that it is done, for a hand-over that somebody else leads, and for a move that
//! it is decided.

use std::time::Duration;

use anyhow::Context as _;
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{
    MergeRequest, MoveReplicaRequest, RangeInfo, RangeListRequest, SplitRequest, TransferRequest,
};
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::process::fault::{Class, Effect, Ground, Planned, Whom};
use crate::process::traffic::connect;
use crate::sim::chance::Chance;

/// How long it may take.
const DONE_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn carry_out(
    ground: &Ground,
    planned: &Planned,
    who: &mut Whom,
    chance: &mut Chance,
) -> anyhow::Result<Effect> {
    let members = ground.run.members();
    let asked = *chance.pick(&members);
    let channel = connect(&ground.run, asked).await.context("the asked node is down")?;
    let mut admin = AdminClient::new(channel);
    let ranges = async {
        match planned.class {
            Class::Split => split(ground, &mut admin, who, chance).await,
            Class::Merge => merge(&mut admin, who, chance).await,
            Class::Move => move_replica(ground, &mut admin, who, chance).await,
            _ => transfer(ground, &mut admin, who, chance).await,
        }
    };
    Ok(match timeout(DONE_WITHIN, ranges).await {
        Ok(Ok(effect)) => effect,
        Ok(Err(status)) => Err(format!("n{asked}: {}", status.message())),
        Err(_) => Err(format!("n{asked} does not answer within {DONE_WITHIN:?}")),
    })
}

type Admin = AdminClient<Channel>;

async fn list(admin: &mut Admin) -> Result<Vec<RangeInfo>, Status> {
    Ok(admin.range_list(RangeListRequest {}).await?.into_inner().ranges)
}

async fn split(
    ground: &Ground,
    admin: &mut Admin,
    who: &mut Whom,
    chance: &mut Chance,
) -> Result<Effect, Status> {
    let ranges = list(admin).await?;
    let borders: Vec<Vec<u8>> = ranges.iter().map(|range| range.start.to_vec()).collect();
    let keys = ground.run.traffic.keys_count;
    let all: Vec<String> = (0..keys).map(|key| format!("k{key}")).collect();
    let free: Vec<&String> =
        all.iter().filter(|key| !borders.contains(&key.as_bytes().to_vec())).collect();
    if free.is_empty() {
        return Ok(Err("every key is a border".to_owned()));
    }
    let key = (*chance.pick(&free)).clone();
    who.is(format!("at {key}"));
    let answer = admin.split(SplitRequest { key: key.into() }).await?.into_inner();
    Ok(Ok(format!("range {} begins there", answer.range)))
}

async fn merge(admin: &mut Admin, who: &mut Whom, chance: &mut Chance) -> Result<Effect, Status> {
    let ranges = list(admin).await?;
    let neighbours: Vec<(u64, u64)> = ranges
        .windows(2)
        .filter(|pair| pair[0].range != 0 && pair[1].range != 0 && pair[0].end == pair[1].start)
        .map(|pair| (pair[0].range, pair[1].range))
        .collect();
    if neighbours.is_empty() {
        return Ok(Err("there are no neighbours".to_owned()));
    }
    let (left, right) = *chance.pick(&neighbours);
    who.is(format!("ranges {left} and {right}"));
    let answer = admin.merge(MergeRequest { left, right }).await?.into_inner();
    Ok(Ok(format!("range {} has the keys of both", answer.range)))
}

async fn transfer(
    ground: &Ground,
    admin: &mut Admin,
    who: &mut Whom,
    chance: &mut Chance,
) -> Result<Effect, Status> {
    let ranges = list(admin).await?;
    let range = chance.pick(&ranges).clone();
    let members = ground.run.members();
    let others: Vec<usize> = members
        .into_iter()
        .filter(|node| ground.run.monitor.member_id(*node).is_some_and(|id| id != range.leader))
        .collect();
    if others.is_empty() {
        return Ok(Err("there is nobody to hand over to".to_owned()));
    }
    let node = format!("n{}", chance.pick(&others));
    who.is(format!("range {} to {node}", range.range));
    let answer = admin.transfer(TransferRequest { range: range.range, node }).await?.into_inner();
    Ok(if answer.node == range.leader {
        Err("the leader is the same".to_owned())
    } else {
        Ok(format!("member {:x} leads", answer.node))
    })
}

async fn move_replica(
    ground: &Ground,
    admin: &mut Admin,
    who: &mut Whom,
    chance: &mut Chance,
) -> Result<Effect, Status> {
    let ranges = list(admin).await?;
    let members = ground.run.members();
    let id_of = |node: usize| ground.run.monitor.member_id(node);
    let holds =
        |range: &RangeInfo, node| id_of(node).is_some_and(|id| range.replicas.contains(&id));
    let can_move =
        |range: &&RangeInfo| range.range != 0 && members.iter().any(|node| !holds(range, *node));
    let ranges: Vec<&RangeInfo> = ranges.iter().filter(can_move).collect();
    if ranges.is_empty() {
        return Ok(Err("every member holds every range".to_owned()));
    }
    let range = *chance.pick(&ranges);
    let (from, to): (Vec<usize>, Vec<usize>) =
        members.iter().partition(|node| holds(range, **node));
    if from.is_empty() {
        return Ok(Err(format!("nobody is known to hold range {}", range.range)));
    }
    let (from, to) = (format!("n{}", chance.pick(&from)), format!("n{}", chance.pick(&to)));
    who.is(format!("range {} from {from} to {to}", range.range));
    let request = MoveReplicaRequest { range: range.range, add: to.clone(), remove: from };
    admin.move_replica(request).await?;
    Ok(Ok(format!("{to} is to hold it")))
}
