//! `flotilla ctl`: what an operator asks a running node beside etcd's API.

use std::process::ExitCode;
use std::time::Duration;

use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{MergeRequest, RangeInfo, RangeListRequest, SplitRequest};
use tonic::transport::{Channel, Endpoint};

const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:2379";
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const USAGE: &str = "\
usage: flotilla ctl [--endpoint URL] COMMAND
  ranges        all ranges: keys, replicas, leader, writes
  split KEY     cut the range that owns KEY there
  merge KEY     merge the range that begins at KEY into the one before it; or give its number
  explain KEY   which range owns KEY, who leads it, and where it came from";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Ranges,
    Split(String),
    Merge(String),
    Explain(String),
}

/// Carries out the arguments after `ctl`.
pub fn run(arguments: &[String]) -> ExitCode {
    let Some((endpoint, command)) = parse(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(carry_out(&endpoint, command)),
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

fn parse(arguments: &[String]) -> Option<(String, Command)> {
    let mut endpoint = ENDPOINT_DEFAULT.to_owned();
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.strip_prefix("--endpoint") {
            Some("") => endpoint.clone_from(rest.next()?),
            Some(value) => endpoint = value.strip_prefix('=')?.to_owned(),
            None => words.push(word.as_str()),
        }
    }
    if !endpoint.contains("://") {
        endpoint.insert_str(0, "http://");
    }
    let command = match words[..] {
        ["ranges"] => Command::Ranges,
        ["split", key] => Command::Split(key.to_owned()),
        ["merge", key] => Command::Merge(key.to_owned()),
        ["explain", key] => Command::Explain(key.to_owned()),
        _ => return None,
    };
    Some((endpoint, command))
}

async fn carry_out(endpoint: &str, command: Command) -> anyhow::Result<String> {
    let channel = Endpoint::from_shared(endpoint.to_owned())?;
    let channel = channel.connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).connect().await?;
    let mut client = AdminClient::new(channel);
    Ok(match command {
        Command::Ranges => table(&ranges(&mut client).await?),
        Command::Split(key) => {
            let answer = client.split(SplitRequest { key: key.clone().into() }).await;
            let range = answer.map_err(describe)?.into_inner().range;
            format!("range {range} begins at {key}\n")
        }
        Command::Merge(which) => {
            let request = neighbours(&ranges(&mut client).await?, &which)?;
            let range = client.merge(request).await.map_err(describe)?.into_inner().range;
            format!("range {range} has the keys of range {}\n", request.right)
        }
        Command::Explain(key) => explain(&ranges(&mut client).await?, &key),
    })
}

async fn ranges(client: &mut AdminClient<Channel>) -> anyhow::Result<Vec<RangeInfo>> {
    let answer = client.range_list(RangeListRequest {}).await.map_err(describe)?;
    Ok(answer.into_inner().ranges)
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

fn describe(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}

fn table(ranges: &[RangeInfo]) -> String {
    let head = ["RANGE", "FROM", "TO", "LEADER", "REPLICAS", "WRITES"].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(ranges.iter().map(row));
    let widths: Vec<usize> = (0..6)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max())
        .map(|width| width.unwrap_or_default())
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(range: &RangeInfo) -> [String; 6] {
    let (from, to) = match range.range {
        0 => ("what no other has".to_owned(), String::new()),
        _ => (shown(&range.start), end_of(range)),
    };
    let leader = match range.leader {
        0 => "unknown".to_owned(),
        leader => format!("{leader:x}"),
    };
    let replicas: Vec<String> = range.replicas.iter().map(|node| format!("{node:x}")).collect();
    let writes = if range.range == 0 { String::new() } else { range.writes.to_string() };
    [range.range.to_string(), from, to, leader, replicas.join(","), writes]
}

fn explain(ranges: &[RangeInfo], key: &str) -> String {
    let key = key.as_bytes();
    let owns = |range: &&RangeInfo| {
        range.range != 0
            && range.start[..] <= *key
            && (range.end.is_empty() || *key < range.end[..])
    };
    let Some(range) = ranges.iter().find(owns) else {
        let leader = ranges.iter().find(|range| range.range == 0).map_or(0, |it| it.leader);
        return format!(
            "range 0, which the spine carries: no other range has the key\nled by {leader:x}\n"
        );
    };
    let origin = match (range.parent, range.generation) {
        (0, _) => "split off range 0, or made when the cluster was founded".to_owned(),
        (parent, _) => format!("split off range {parent}"),
    };
    let [id, from, to, leader, replicas, writes] = row(range);
    format!(
        "range {id}: keys from {from} to {to}\nled by {leader}\nreplicas on {replicas}\n\
         {writes} writes so far\n{origin}\n"
    )
}

fn end_of(range: &RangeInfo) -> String {
    if range.end.is_empty() { "the end".to_owned() } else { shown(&range.end) }
}

/// Keys are bytes; what is not printable is escaped.
fn shown(key: &[u8]) -> String {
    key.escape_ascii().to_string()
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
        let expected = ("http://127.0.0.1:1".to_owned(), Command::Split("a/b".to_owned()));
        assert_eq!(parsed, Some(expected));
        let parsed = parse(&words("ranges --endpoint=https://x:1")).map(|it| it.0);
        assert_eq!(parsed.as_deref(), Some("https://x:1"));
        let parsed = parse(&words("merge a/b")).map(|it| it.1);
        assert_eq!(parsed, Some(Command::Merge("a/b".to_owned())));
        for wrong in ["", "split", "merge", "ranges now", "--endpoint", "--endpoints x ranges"] {
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

    #[test]
    fn a_key_is_explained_by_the_range_that_owns_it() {
        let range = RangeInfo {
            range: 7,
            start: "b".into(),
            end: "m".into(),
            replicas: vec![0x1f, 2],
            leader: 0x1f,
            parent: 3,
            generation: 1,
            writes: 12,
        };
        let root = RangeInfo { leader: 2, replicas: vec![2], ..RangeInfo::default() };
        let ranges = [range, root];
        let text = explain(&ranges, "cc");
        let expected = "range 7: keys from b to m\nled by 1f\nreplicas on 1f,2\n12 writes so far\n\
                        split off range 3\n";
        assert_eq!(text, expected);
        assert!(explain(&ranges, "m").starts_with("range 0"));
        let lines = table(&ranges);
        assert_eq!(
            lines.lines().nth(1),
            Some("7      b                  m   1f      1f,2      12")
        );
    }
}
