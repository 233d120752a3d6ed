//! `flotilla ctl`: what an operator asks a running node beside etcd's API.

mod show;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use flotilla_proto::etcdserverpb::AuthenticateRequest;
use flotilla_proto::etcdserverpb::auth_client::AuthClient;
use flotilla_proto::internal::admin_client::AdminClient;
use flotilla_proto::internal::{
    DecisionsRequest, DecisionsResponse, DrainRequest, MergeRequest, RangeInfo, RangeListRequest,
    RangeListResponse, SplitRequest, TransferRequest,
};
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:2379";
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

const USAGE: &str = "\
usage: flotilla ctl [--endpoint URL] [--user NAME:PASSWORD] COMMAND
  ranges               all ranges: keys, replicas, leader, size, load
  nodes                all members: zone, disk, load, how many ranges they lead
  split KEY            cut the range that owns KEY there
  merge KEY            merge the range that begins at KEY into the one before it; or give its number
  transfer RANGE NODE  have a range led by another member, named or by its id in hex
  drain NODE           have nothing led by a member any more
  undrain NODE         end that
  decisions            what placement has done of late, and what it cannot help
  explain KEY          which range owns KEY, who leads it, where it came from, and why";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Ranges,
    Nodes,
    Split(String),
    Merge(String),
    Transfer(u64, String),
    Drain(String, bool),
    Decisions,
    Explain(String),
}

type Client = AdminClient<InterceptedService<Channel, Token>>;

/// Shown with every call, if authentication is on.
#[derive(Clone, Default)]
struct Token(Option<AsciiMetadataValue>);

impl Interceptor for Token {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// Where to ask, and as whom.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    endpoint: String,
    /// Name and password with a colon between them.
    user: Option<String>,
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
    let mut user = None;
    let mut endpoint = ENDPOINT_DEFAULT.to_owned();
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        if let Some(value) = word.strip_prefix("--user") {
            user = Some(match value {
                "" => rest.next()?.clone(),
                value => value.strip_prefix('=')?.to_owned(),
            });
            continue;
        }
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
        ["nodes"] => Command::Nodes,
        ["split", key] => Command::Split(key.to_owned()),
        ["merge", key] => Command::Merge(key.to_owned()),
        ["transfer", range, node] => Command::Transfer(range.parse().ok()?, node.to_owned()),
        ["drain", node] => Command::Drain(node.to_owned(), true),
        ["undrain", node] => Command::Drain(node.to_owned(), false),
        ["decisions"] => Command::Decisions,
        ["explain", key] => Command::Explain(key.to_owned()),
        _ => return None,
    };
    Some((Target { endpoint, user }, command))
}

async fn carry_out(target: &Target, command: Command) -> anyhow::Result<String> {
    let token = &authenticate(target).await?;
    let mut client = connect(&target.endpoint, token).await?;
    Ok(match command {
        Command::Ranges => {
            let list = ranges(&mut client, token).await?;
            show::ranges(&list) + show::missing(list.is_surveyed)
        }
        Command::Nodes => {
            let list = ranges(&mut client, token).await?;
            show::nodes(&list) + show::missing(list.is_surveyed)
        }
        Command::Split(key) => {
            let answer = client.split(SplitRequest { key: key.clone().into() }).await;
            let range = answer.map_err(describe)?.into_inner().range;
            format!("range {range} begins at {key}\n")
        }
        Command::Merge(which) => {
            let request = neighbours(&ranges(&mut client, token).await?.ranges, &which)?;
            let range = client.merge(request).await.map_err(describe)?.into_inner().range;
            format!("range {range} has the keys of range {}\n", request.right)
        }
        Command::Transfer(range, node) => {
            let request = TransferRequest { range, node: node.clone() };
            client.transfer(request).await.map_err(describe)?;
            format!("range {range} is led by {node}\n")
        }
        Command::Drain(node, is_draining) => {
            let request = DrainRequest { node: node.clone(), is_draining };
            client.drain(request).await.map_err(describe)?;
            let what = if is_draining { "is to lead nothing" } else { "may lead again" };
            format!("{node} {what}\n")
        }
        Command::Decisions => {
            let known = decisions(&mut client, token).await?;
            show::decisions(&known) + show::unasked(known.is_surveyed)
        }
        Command::Explain(key) => {
            let list = ranges(&mut client, token).await?;
            let known = decisions(&mut client, token).await?;
            show::explain(&list, &known.decisions, &key) + show::missing(list.is_surveyed)
        }
    })
}

/// A token of the target's user, which every node of the cluster knows.
async fn authenticate(target: &Target) -> anyhow::Result<Token> {
    let Some(user) = &target.user else { return Ok(Token::default()) };
    let (name, password) = user.split_once(':').context("--user is NAME:PASSWORD")?;
    let (name, password) = (name.to_owned(), password.to_owned());
    let mut client = AuthClient::new(channel(&target.endpoint).await?);
    let answer = client.authenticate(AuthenticateRequest { name, password }).await;
    Ok(Token(Some(answer.map_err(describe)?.into_inner().token.parse()?)))
}

async fn connect(endpoint: &str, token: &Token) -> anyhow::Result<Client> {
    Ok(AdminClient::with_interceptor(channel(endpoint).await?, token.clone()))
}

async fn channel(endpoint: &str) -> anyhow::Result<Channel> {
    let channel = Endpoint::from_shared(endpoint.to_owned())?;
    Ok(channel.connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).connect().await?)
}

/// Sizes and loads are known to the spine's leader: it is asked if it can be reached from here.
async fn ranges(client: &mut Client, token: &Token) -> anyhow::Result<RangeListResponse> {
    let answer = client.range_list(RangeListRequest {}).await.map_err(describe)?.into_inner();
    if !answer.is_surveyed
        && let Some(mut leader) = connect_any(&answer.leader_urls, token).await
        && let Ok(better) = leader.range_list(RangeListRequest {}).await
    {
        return Ok(better.into_inner());
    }
    Ok(answer)
}

async fn decisions(client: &mut Client, token: &Token) -> anyhow::Result<DecisionsResponse> {
    let answer = client.decisions(DecisionsRequest {}).await.map_err(describe)?.into_inner();
    if !answer.is_surveyed
        && let Some(mut leader) = connect_any(&answer.leader_urls, token).await
        && let Ok(better) = leader.decisions(DecisionsRequest {}).await
    {
        return Ok(better.into_inner());
    }
    Ok(answer)
}

async fn connect_any(urls: &[String], token: &Token) -> Option<Client> {
    for url in urls {
        if let Ok(client) = connect(url, token).await {
            return Some(client);
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_understood_or_not() {
        let parsed = parse(&words("--endpoint 127.0.0.1:1 split a/b"));
        let target = Target { endpoint: "http://127.0.0.1:1".to_owned(), user: None };
        assert_eq!(parsed, Some((target, Command::Split("a/b".to_owned()))));
        for text in
            ["--user=a:b ranges --endpoint=https://x:1", "ranges --endpoint https://x:1 --user a:b"]
        {
            let target =
                Target { endpoint: "https://x:1".to_owned(), user: Some("a:b".to_owned()) };
            assert_eq!(parse(&words(text)), Some((target, Command::Ranges)));
        }
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
