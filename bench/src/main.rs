//! `flotilla-bench compare A B`: two server binaries, by turns on the same machine in one run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_bench::cluster::Cluster;
use flotilla_bench::load::{self, Measured, Work};

/// Turns of each side; odd, so that there is a middle one.
const REPETITIONS: usize = 5;
const CONNECTIONS: usize = 8;

struct Row {
    label: &'static str,
    nodes: usize,
    work: Work,
    outstanding: usize,
}

const ROWS: [Row; 8] = [
    Row { label: "put", nodes: 1, work: Work::Put, outstanding: 1000 },
    Row { label: "put", nodes: 1, work: Work::Put, outstanding: 1 },
    Row { label: "get", nodes: 1, work: Work::Get, outstanding: 1000 },
    Row { label: "get", nodes: 1, work: Work::Get, outstanding: 1 },
    Row { label: "put", nodes: 3, work: Work::Put, outstanding: 1000 },
    Row { label: "put", nodes: 3, work: Work::Put, outstanding: 1 },
    Row { label: "get", nodes: 3, work: Work::Get, outstanding: 1000 },
    Row { label: "get", nodes: 3, work: Work::Get, outstanding: 1 },
];

struct Turn {
    measured: Measured,
    cpu_us_per_op: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, endpoints, work, outstanding, secs] = &args[..]
        && command == "load"
    {
        return load(endpoints, work, outstanding.parse()?, secs.parse()?).await;
    }
    let (binaries, secs) = match &args[..] {
        [command, a, b] if command == "compare" => ([PathBuf::from(a), PathBuf::from(b)], 5),
        [command, a, b, secs] if command == "compare" => {
            ([PathBuf::from(a), PathBuf::from(b)], secs.parse().context("seconds of a turn")?)
        }
        _ => anyhow::bail!(
            "usage: flotilla-bench compare BINARY_A BINARY_B [SECONDS_PER_TURN]\n       \
             flotilla-bench load URL[,URL...] put|get OUTSTANDING SECONDS"
        ),
    };
    let mut out = std::io::stdout();
    writeln!(out, "A = {}, B = {}", binaries[0].display(), binaries[1].display())?;
    writeln!(
        out,
        "{REPETITIONS} turns each of {secs} s, interleaved; 256-byte values, 10 000 keys, \
         {CONNECTIONS} connections; medians; the generator shares the machine"
    )?;
    writeln!(
        out,
        "{:>5} {:>5} {:>5} | {:>9} {:>9} {:>7} | {:>8} {:>8} {:>7} | {:>15} {:>15}",
        "work",
        "nodes",
        "under",
        "A ops/s",
        "B ops/s",
        "A/B",
        "A µs/op",
        "B µs/op",
        "A/B",
        "A p50/p99 ms",
        "B p50/p99 ms"
    )?;
    for nodes in [1, 3] {
        compare(&binaries, nodes, Duration::from_secs(secs), &mut out).await?;
    }
    Ok(())
}

/// Loads a cluster that runs already.
async fn load(endpoints: &str, work: &str, outstanding: usize, secs: u64) -> anyhow::Result<()> {
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let work = match work {
        "put" => Work::Put,
        "get" => Work::Get,
        _ => anyhow::bail!("put or get"),
    };
    let channels = load::connect(&endpoints, CONNECTIONS.max(endpoints.len())).await?;
    load::fill(&channels).await?;
    let measured = load::run(&channels, work, outstanding, Duration::from_secs(secs)).await?;
    anyhow::ensure!(measured.is_sound, "answers are not sound");
    let ms = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    writeln!(
        std::io::stdout(),
        "{:.0} ops/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        measured.rate(),
        ms(0.5),
        ms(0.99),
        measured.latency.max() as f64 / 1e3
    )?;
    Ok(())
}

async fn compare(
    binaries: &[PathBuf; 2],
    nodes: usize,
    length: Duration,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut sides = Vec::new();
    for (n, binary) in binaries.iter().enumerate() {
        let cluster = Cluster::start(binary, nodes, 23_000 + 100 * u16::try_from(n)?)?;
        let channels = load::connect(&cluster.endpoints, CONNECTIONS).await?;
        // A new cluster needs a leader first.
        let mut attempts = 0;
        while let Err(error) = load::fill(&channels).await {
            attempts += 1;
            anyhow::ensure!(attempts < 20, "{}: {error}", binary.display());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        sides.push((cluster, channels));
    }
    for row in ROWS.iter().filter(|row| row.nodes == nodes) {
        let mut turns: [Vec<Turn>; 2] = [Vec::new(), Vec::new()];
        for repetition in 0..REPETITIONS {
            // A B, B A, A B, ...: drift of the machine falls on both alike.
            let order = if repetition % 2 == 0 { [0, 1] } else { [1, 0] };
            for side in order {
                let (cluster, channels) = &sides[side];
                let before = cluster.cpu_secs()?;
                let measured = load::run(channels, row.work, row.outstanding, length).await?;
                let cpu = cluster.cpu_secs()? - before;
                anyhow::ensure!(measured.is_sound, "answers of side {side} are not sound");
                let cpu_us_per_op = cpu * 1e6 / measured.count as f64;
                turns[side].push(Turn { measured, cpu_us_per_op });
            }
        }
        print(row, &turns, out)?;
    }
    for (n, (cluster, _)) in sides.iter().enumerate() {
        let mib = cluster.resident_bytes()? >> 20;
        writeln!(out, "{} with {nodes} nodes: {mib} MiB resident", ["A", "B"][n])?;
    }
    Ok(())
}

fn print(row: &Row, turns: &[Vec<Turn>; 2], out: &mut impl Write) -> anyhow::Result<()> {
    let rate = [0, 1].map(|side| median(&turns[side], |turn| turn.measured.rate()));
    let cpu = [0, 1].map(|side| median(&turns[side], |turn| turn.cpu_us_per_op));
    let ms = |side: usize, quantile: f64| {
        median(&turns[side], |turn| turn.measured.latency.value_at_quantile(quantile) as f64 / 1e3)
    };
    writeln!(
        out,
        "{:>5} {:>5} {:>5} | {:>9.0} {:>9.0} {:>6.2}x | {:>8.1} {:>8.1} {:>6.2}x | {:>7.2}/{:<7.2} {:>7.2}/{:<7.2}",
        row.label,
        row.nodes,
        row.outstanding,
        rate[0],
        rate[1],
        rate[0] / rate[1],
        cpu[0],
        cpu[1],
        cpu[0] / cpu[1],
        ms(0, 0.5),
        ms(0, 0.99),
        ms(1, 0.5),
        ms(1, 0.99)
    )?;
    Ok(())
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<f64> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
