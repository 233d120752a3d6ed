//! `flotilla top`: a cluster at a glance, again each second: members with their rates and latencies
//! from `/metrics`, ranges by load from the leader, and what is asked for most.

mod frame;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb::Member;
use flotilla_proto::internal::RangeListResponse;
use futures::future::join_all;

use super::dial::{Dialer, Target};
use super::hot::{self, Hot};
use crate::metrics::sample::Sample;

const USAGE: &str = "\
usage: flotilla top [--endpoint URL] [--user NAME:PASSWORD] [--cacert FILE] [--cert FILE --key FILE]
                    [--once]
  A cluster at a glance, again each second until Ctrl-C.
  --once   one frame, after a second, and no control characters: for scripts";

/// Between two frames; rates are of this time.
const INTERVAL: Duration = Duration::from_secs(1);
/// Moves to the upper left corner and clears what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What was asked and answered at one moment.
struct Look {
    at: Instant,
    members: Vec<Member>,
    /// By the member's id. Nothing of a member that is not reached.
    samples: BTreeMap<u64, Sample>,
    ranges: Option<RangeListResponse>,
    hot: Option<Hot>,
}

/// Carries out the arguments after `top`.
pub fn run(arguments: &[String]) -> ExitCode {
    let Some((target, is_once)) = parse(arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(show(&target, is_once)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Option<(Target, bool)> {
    let (mut target, mut is_once) = (Target::default(), false);
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.split_once('=') {
            _ if word == "--once" => is_once = true,
            Some((flag, value)) => target.set(flag, value)?,
            None => target.set(word, rest.next()?)?,
        }
    }
    Some((target, is_once))
}

async fn show(target: &Target, is_once: bool) -> anyhow::Result<()> {
    let dialer = target.dialer().await?;
    let mut before = look(&dialer, target).await?;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = match look(&dialer, target).await {
            Ok(now) => now,
            Err(error) if is_once => return Err(error),
            // A node that restarts comes back.
            Err(error) => {
                eprintln!("{error:#}");
                continue;
            }
        };
        let text = frame::frame(&before, &now);
        if is_once {
            print!("{text}");
            return Ok(());
        }
        let mut out = std::io::stdout();
        if write!(out, "{CLEAR}{text}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        before = now;
    }
}

async fn look(dialer: &Dialer, target: &Target) -> anyhow::Result<Look> {
    let members = dialer.members(&target.endpoint).await?;
    let samples = join_all(members.iter().map(|member| sample(dialer, member))).await;
    let samples = samples.into_iter().flatten().collect();
    let mut client = dialer.connect(&target.endpoint).await?;
    let ranges = super::ranges(dialer, &mut client).await.ok();
    let hot = hot::ask(dialer, &target.endpoint).await.ok();
    Ok(Look { at: Instant::now(), members, samples, ranges, hot })
}

async fn sample(dialer: &Dialer, member: &Member) -> Option<(u64, Sample)> {
    for url in &member.client_ur_ls {
        if let Ok(page) = dialer.page(url, "/metrics").await {
            return Some((member.id, Sample::read(&page)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_understood_or_not() {
        let parsed = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            parse(&words)
        };
        assert_eq!(parsed(""), Some((Target::default(), false)));
        let endpoint = "http://a:1".to_owned();
        let target = Target { endpoint, ..Target::default() };
        assert_eq!(parsed("--once --endpoint a:1"), Some((target, true)));
        for wrong in ["once", "--endpoint", "--twice", "--endpoints=a:1"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
