//! `flotilla ctl`: what an operator asks a running node beside etcd's API.

mod dial;
mod hot;
mod show;
mod top;

use std::process::ExitCode;

use flotilla_proto::internal::{
    DecisionsRequest, DecisionsResponse, DrainRequest, MergeRequest, MoveReplicaRequest, RangeInfo,
    RangeListRequest, RangeListResponse, ReplicasWanted, SplitRequest, TransferRequest,
};

use dial::{Client, Dialer};

pub(crate) use dial::{Target, Token};
pub use top::run as top;

const USAGE: &str = "\
usage: flotilla ctl [--endpoint URL] [--user NAME:PASSWORD] [--cacert FILE] [--cert FILE --key FILE]
                    COMMAND
  ranges               all ranges: keys, replicas, leader, size, load
  top                  the keys, prefixes and clients with most calls of late, estimated
  nodes                all members: zone, disk, load, how many ranges they lead
  split KEY            cut the range that owns KEY there
  merge KEY            merge the range that begins at KEY into the one before it; or give its number
  transfer RANGE NODE  have a range led by another member, named or by its id in hex
  replica RANGE NODE   have a member hold a range, too
  unreplica RANGE NODE have it hold the range no more
  move RANGE FROM TO   have one member hold a range in the place of another
  replicas COUNT       how many members are to hold each range
  drain NODE           have nothing led by a member any more
  undrain NODE         end that
  decisions            what placement has done of late, and what it cannot help
  explain KEY          which range owns KEY, who leads it, where it came from, and why";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Ranges,
    Top,
    Nodes,
    Split(String),
    Merge(String),
    Transfer(u64, String),
    Move { range: u64, add: String, remove: String },
    Replicas(u32),
    Drain(String, bool),
    Decisions,
    Explain(String),
}

/// Carries out the arguments after `ctl`.
pub fn run(arguments: &[String]) -> ExitCode {
    let Some((target, command)) = parse(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(&target, command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<(Target, Command)> {
    let mut target = Target::default();
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => target.set(flag, value)?,
            _ if word.starts_with("--") => target.set(word, rest.next()?)?,
            _ => words.push(word.as_str()),
        }
    }
    let command = match words[..] {
        ["ranges"] => Command::Ranges,
        ["top"] => Command::Top,
        ["nodes"] => Command::Nodes,
        ["split", key] => Command::Split(key.to_owned()),
        ["merge", key] => Command::Merge(key.to_owned()),
        ["transfer", range, node] => Command::Transfer(range.parse().ok()?, node.to_owned()),
        ["replica", range, node] => moved(range, node, "")?,
        ["unreplica", range, node] => moved(range, "", node)?,
        ["move", range, from, to] => moved(range, to, from)?,
        ["replicas", count] => Command::Replicas(count.parse().ok()?),
        ["drain", node] => Command::Drain(node.to_owned(), true),
        ["undrain", node] => Command::Drain(node.to_owned(), false),
        ["decisions"] => Command::Decisions,
        ["explain", key] => Command::Explain(key.to_owned()),
        _ => return None,
    };
    Some((target, command))
}

fn moved(range: &str, add: &str, remove: &str) -> Option<Command> {
    let (add, remove) = (add.to_owned(), remove.to_owned());
    Some(Command::Move { range: range.parse().ok()?, add, remove })
}

async fn carry_out(target: &Target, command: Command) -> anyhow::Result<String> {
    let dialer = target.dialer().await?;
    let mut client = dialer.connect(&target.endpoint).await?;
    Ok(match command {
        Command::Ranges => {
            let list = ranges(&dialer, &mut client).await?;
            show::ranges(&list) + show::missing(list.is_surveyed)
        }
        Command::Top => hot::text(&hot::ask(&dialer, &target.endpoint).await?),
        Command::Nodes => {
            let list = ranges(&dialer, &mut client).await?;
            show::nodes(&list) + show::missing(list.is_surveyed)
        }
        Command::Split(key) => {
            let answer = client.split(SplitRequest { key: key.clone().into() }).await;
            let range = answer.map_err(describe)?.into_inner().range;
            format!("range {range} begins at {key}\n")
        }
        Command::Merge(which) => {
            let request = neighbours(&ranges(&dialer, &mut client).await?.ranges, &which)?;
            let range = client.merge(request).await.map_err(describe)?.into_inner().range;
            format!("range {range} has the keys of range {}\n", request.right)
        }
        Command::Transfer(range, node) => {
            let request = TransferRequest { range, node: node.clone() };
            client.transfer(request).await.map_err(describe)?;
            format!("range {range} is led by {node}\n")
        }
        Command::Move { range, add, remove } => {
            let request = MoveReplicaRequest { range, add, remove };
            let answer = client.move_replica(request).await.map_err(describe)?.into_inner();
            let nodes: Vec<String> = answer.nodes.iter().map(|id| format!("{id:x}")).collect();
            format!("range {range} is to be held by {}\n", nodes.join(", "))
        }
        Command::Replicas(count) => {
            client.want_replicas(ReplicasWanted { count }).await.map_err(describe)?;
            format!("each range is to be held by {count} members\n")
        }
        Command::Drain(node, is_draining) => {
            let request = DrainRequest { node: node.clone(), is_draining };
            client.drain(request).await.map_err(describe)?;
            let what = if is_draining { "is to lead nothing" } else { "may lead again" };
            format!("{node} {what}\n")
        }
        Command::Decisions => {
            let known = decisions(&dialer, &mut client).await?;
            show::decisions(&known) + show::unasked(known.is_surveyed)
        }
        Command::Explain(key) => {
            let list = ranges(&dialer, &mut client).await?;
            let known = decisions(&dialer, &mut client).await?;
            show::explain(&list, &known.decisions, &key) + show::missing(list.is_surveyed)
        }
    })
}

/// Sizes and loads are known to the spine's leader: it is asked if it can be reached from here.
async fn ranges(dialer: &Dialer, client: &mut Client) -> anyhow::Result<RangeListResponse> {
    let answer = client.range_list(RangeListRequest {}).await.map_err(describe)?.into_inner();
    if !answer.is_surveyed
        && let Some(mut leader) = dialer.connect_any(&answer.leader_urls).await
        && let Ok(better) = leader.range_list(RangeListRequest {}).await
    {
        return Ok(better.into_inner());
    }
    Ok(answer)
}

async fn decisions(dialer: &Dialer, client: &mut Client) -> anyhow::Result<DecisionsResponse> {
    let answer = client.decisions(DecisionsRequest {}).await.map_err(describe)?.into_inner();
    if !answer.is_surveyed
        && let Some(mut leader) = dialer.connect_any(&answer.leader_urls).await
        && let Ok(better) = leader.decisions(DecisionsRequest {}).await
    {
        return Ok(better.into_inner());
    }
    Ok(answer)
}

/// The range that begins at a key, or has this number, is to be merged into the one before it.
fn neighbours(ranges: &[RangeInfo], which: &str) -> anyhow::Result<MergeRequest> {
    let others = || ranges.iter().filter(|range| range.range != 0);
    let begins = others().find(|range| range.start == which.as_bytes());
    let right = begins.or_else(|| others().find(|range| which.parse() == Ok(range.range)));
    let right = right.ok_or_else(|| anyhow::anyhow!("no range begins at {which}"))?;
    let left = others().find(|range| !range.end.is_empty() && range.end == right.start);
    let left = left.ok_or_else(|| {
        anyhow::anyhow!("range {} cannot be merged: range 0 has the keys before it", right.range)
    })?;
    Ok(MergeRequest { left: left.range, right: right.range })
}

/// As operators are told.
pub(crate) fn describe(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_understood_or_not() {
        let parsed = parse(&words("--endpoint 127.0.0.1:1 split a/b"));
        let endpoint = "http://127.0.0.1:1".to_owned();
        let target = Target { endpoint, ..Target::default() };
        let expected = (target, Command::Split("a/b".to_owned()));
        assert_eq!(parsed, Some(expected));
        let parsed =
            parse(&words("ranges --endpoint=https://x:1 --user a:b --cacert a --cert=b --key c"));
        let target = Target {
            endpoint: "https://x:1".to_owned(),
            user: Some("a:b".to_owned()),
            cacert: Some("a".into()),
            cert: Some("b".into()),
            key: Some("c".into()),
        };
        assert_eq!(parsed, Some((target, Command::Ranges)));
        let command = |text| parse(&words(text)).map(|it| it.1);
        assert_eq!(command("merge a/b"), Some(Command::Merge("a/b".to_owned())));
        assert_eq!(command("transfer 7 n1"), Some(Command::Transfer(7, "n1".to_owned())));
        assert_eq!(command("drain n1"), Some(Command::Drain("n1".to_owned(), true)));
        assert_eq!(command("undrain 1f"), Some(Command::Drain("1f".to_owned(), false)));
        for wrong in [
            "",
            "split",
            "merge",
            "ranges now",
            "--endpoint",
            "--user",
            "--username=a ranges",
            "--endpoints x ranges",
            "drain",
            "transfer 7",
            "transfer x n1",
        ] {
            assert_eq!(parse(&words(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_range_is_merged_into_the_one_before_it() {
        let range = |range, start: &'static str, end: &'static str| RangeInfo {
            range,
            start: start.into(),
            end: end.into(),
            ..RangeInfo::default()
        };
        let ranges = [range(3, "2", "b"), range(2, "b", "m"), range(5, "x", ""), range(0, "", "")];
        let pair = |which| neighbours(&ranges, which).ok().map(|it| (it.left, it.right));
        assert_eq!(pair("b"), Some((3, 2)));
        // A key that is a border comes before a number.
        assert_eq!(pair("2"), None, "range 0 is before range 3");
        assert_eq!((pair("x"), pair("5")), (None, None), "range 0 is between");
        assert_eq!(pair("c"), None, "no border");
        let ranges = [range(3, "a", "b"), range(2, "b", "")];
        assert_eq!(neighbours(&ranges, "2").ok(), Some(MergeRequest { left: 3, right: 2 }));
    }
}
