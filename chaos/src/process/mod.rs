//! Real binaries as real nodes under real faults, judged by the same checks as the simulator.
//!
//! One run goes like this: [`prepare`] makes the network, the disks and the nodes; clients
//! ([`traffic`]) and watchers ([`watcher`]) write down what they see ([`record`]) while lanes of
//! faults ([`fault`]) are carried out; at the end everything heals and every member must serve
//! ([`finish`]) and leave sound disks ([`verify`]); the history goes to [`crate::check`], and [`verdict`] adds what was found
//! besides and whether every fault had an effect.

pub mod availability;
pub mod calibrate;
pub mod call;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod finish;
pub mod gigabyte;
pub mod monitor;
pub mod net;
pub mod node;
pub mod options;
pub mod outcome;
pub mod prepare;
pub mod record;
pub mod report;
pub mod run;
pub mod scenario;
pub mod target;
pub mod traffic;
pub mod verdict;
pub mod verify;
pub mod watcher;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::check::{self, LeaseTime, Rules};
use crate::history::{ClientId, EMPTY_STORE_REVISION, History, Outcome, Request, WatchRecord};
use crate::model::Limits;
use crate::sim::chance::Chance;

use clock::{Clock, STAMPS_PER_SECOND, stamps};
use fault::Ground;
use finish::Finish;
pub use options::Options;
use record::Recorder;
use report::Report;
use run::Run;
use traffic::{Home, Traffic};
pub use verdict::{Judgement, Verdict};
use verify::Disk;
use watcher::Watcher;

/// How long the nodes may take to serve for the first time.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long after the load a fault may still be under way.
const LANES_WITHIN: Duration = Duration::from_secs(90);
/// How long the watchers of a healed cluster may take to get everything.
const WATCHERS_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether the load is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Room that a run needs at least where its folder is: nodes that find none leave.
const FREE_BYTES_MIN: u64 = 3 << 30;
/// Watchers of everything on each node.
const WITNESSES_PER_NODE: u32 = 2;
/// Watching clients are numbered from here.
const FIRST_WATCHER: u32 = 1_000;
/// How much faster than the stamps a node's clock may run: they are the same clock.
const DRIFT_PPM: u64 = 1_000;
/// How long after its time a lease of a healed cluster may still be there: an election, the
/// expiry loop, the commit, and a machine that has other work.
const LEASE_GRACE: Duration = Duration::from_secs(10);
/// etcd's default, of which the shortest lease depends.
const ELECTION_MS: u64 = 1_000;

/// Somebody wants the run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("interrupted")]
pub struct Interrupted;

/// What a run came to, and where it is written.
#[derive(Debug)]
pub struct Ended {
    /// The verdict and its reasons.
    pub judgement: Judgement,
    /// The folder with everything in it.
    pub folder: PathBuf,
    /// Calls that were made.
    pub operations: usize,
    /// What is on the disks of the nodes.
    pub disks: Vec<Disk>,
    /// Faults that were asked for and are not possible here.
    pub impossible: Vec<(fault::Class, String)>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let judgement = &self.judgement;
        writeln!(f, "{}: {}", judgement.verdict, self.folder.join("report.html").display())?;
        for line in judgement.violations.iter().chain(&judgement.doubts) {
            writeln!(f, "  {line}")?;
        }
        for (class, reason) in &self.impossible {
            writeln!(f, "  not possible here: {class}: {reason}")?;
        }
        if !judgement.summary.is_empty() {
            writeln!(f, "  {}", judgement.summary)?;
        }
        for disk in &self.disks {
            writeln!(f, "  {disk}")?;
        }
        Ok(())
    }
}

/// Makes one run on a runtime of its own.
///
/// # Errors
/// It could not be made: nothing is known of the target.
pub fn run(options: &Options) -> anyhow::Result<Ended> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = run_async(options) => ended,
            // What was started ends with the values that hold it.
            _ = tokio::signal::ctrl_c() => Err(Interrupted.into()),
        }
    });
    // A task that waits for a process must not keep the command from ending.
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
}

async fn run_async(options: &Options) -> anyhow::Result<Ended> {
    let folder = make_folder(options)?;
    let prepared = prepare::prepare(options, &folder)?;
    let traffic =
        Traffic::new(options.keys_count, options.fill_keys, options.mix.weights(), options.think);
    let run = Arc::new(Run::new(
        options.target.clone(),
        folder.clone(),
        Recorder::new(Clock::start()),
        traffic,
        prepared.network,
        prepared.nodes,
        options.nodes_count,
    ));
    start(&run).await?;
    let mut chance = Chance::new(options.seed);
    let looking = tokio::spawn(monitor::look(Arc::clone(&run)));
    let watching = start_watchers(&run, options, &mut chance);
    let calling = start_clients(&run, options, &mut chance);

    let began = Instant::now();
    let load_from = run.recorder.clock.now();
    let ground = Arc::new(Ground::new(Arc::clone(&run), options));
    let lanes = fault::draw(&prepared.classes, options.lanes, options.length, &mut chance.fork(1));
    write_schedule(&folder, &lanes)?;
    let troubling: Vec<JoinHandle<()>> = lanes
        .into_iter()
        .map(|planned| {
            let lane = fault::carry_out_lane(Arc::clone(&ground), began, planned, chance.fork(2));
            tokio::spawn(lane)
        })
        .collect();
    while run.is_under_load() && Instant::now() < began + options.length {
        sleep(LOOK_EVERY).await;
    }
    run.end_load();
    let lasted = began.elapsed();
    let load_to = run.recorder.clock.now();
    for client in calling {
        client.await?;
    }
    let give_up_at = Instant::now() + LANES_WITHIN;
    for lane in troubling {
        if tokio::time::timeout_at(give_up_at, lane).await.is_err() {
            run.remark(format!("a fault is not over {LANES_WITHIN:?} after the load"));
        }
    }
    let finish = finish::finish(&run).await;
    run.set_final_head(finish.head);
    let watches = gather_watches(&run, watching).await;
    run.end();
    looking.await?;
    let disks = verify::verify(&run).await;

    let history = take_history(&run, watches, &finish);
    let rules = rules(options, lasted, &finish);
    let judged = check::judge(&history, &rules);
    let mut judgement = verdict::judge(&judged, run.findings(), &ground.done(), &prepared.classes);
    judgement.doubt(verify::doubts(&disks).into_iter());
    if !options.is_lenient {
        let missing = prepared.impossible.iter();
        judgement
            .doubt(missing.map(|(class, reason)| format!("{class} is not possible: {reason}")));
    }
    let report = Report {
        options,
        run: &run,
        ground: &ground,
        history: &history,
        judgement: &judgement,
        disks: &disks,
        impossible: &prepared.impossible,
        notes: &prepared.notes,
        load: (load_from, load_to),
    };
    report.write(&folder)?;
    run.network.write_packets(&folder.join("packets.pcap"))?;
    for node in 0..run.nodes_count() {
        let held = run.node(node).await;
        if judgement.verdict == Verdict::Fail {
            held.disk.keep(&folder.join(&held.name))?;
        }
    }
    let operations = history.operations.len();
    Ok(Ended { judgement, folder, operations, disks, impossible: prepared.impossible })
}

fn make_folder(options: &Options) -> anyhow::Result<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let name = format!("run-{}-{}-{}", options.target.name, options.seed, since.as_millis());
    let folder = options.out.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let room = rustix::fs::statvfs(&folder)?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    ensure!(free >= FREE_BYTES_MIN, "only {free} bytes are free in {}", folder.display());
    std::fs::canonicalize(&folder).context("the folder is there")
}

fn write_schedule(folder: &Path, lanes: &[Vec<fault::Planned>]) -> anyhow::Result<()> {
    let mut text = String::new();
    for (lane, planned) in lanes.iter().enumerate() {
        for fault in planned {
            let at = fault.at.as_secs_f64();
            let lasts = fault.lasts.as_secs_f64();
            text += &format!("lane {lane} at {at:.3} s for {lasts:.3} s: {}\n", fault.class);
        }
    }
    std::fs::write(folder.join("schedule.txt"), text).context("write the schedule")
}

/// Starts the founding members, and makes sure that they begin with nothing.
async fn start(run: &Run) -> anyhow::Result<()> {
    for node in run.members() {
        run.node(node).await.start(&run.target)?;
    }
    for node in run.members() {
        if !run.wait_ready(node, START_WITHIN).await {
            let words = run.node(node).await.last_words(10);
            bail!("n{node} does not serve within {START_WITHIN:?}; it wrote:\n{words}");
        }
        run.monitor.ask(run, node).await;
    }
    let first = run.members()[0];
    let channel = traffic::connect(run, first).await.context("n0 has just served")?;
    let answer = call::call(channel, Request::Read(traffic::everything())).await;
    let Outcome::Answered(answer) = answer else { bail!("n0 does not answer: {answer:?}") };
    ensure!(answer.revision() == EMPTY_STORE_REVISION, "the store is not empty at the start");
    Ok(())
}

type Watching = JoinHandle<Vec<WatchRecord>>;

fn start_watchers(run: &Arc<Run>, options: &Options, chance: &mut Chance) -> Vec<(bool, Watching)> {
    let mut watchers = Vec::new();
    let mut client = FIRST_WATCHER;
    let mut next_client = || {
        client += 1;
        ClientId(client)
    };
    for node in run.members() {
        // What they were told stays in memory, several times over.
        let witnesses = if options.fill_keys > 0 { 1 } else { WITNESSES_PER_NODE };
        for _ in 0..witnesses {
            watchers.push(Watcher::of_everything(next_client(), node));
        }
    }
    for _ in 0..options.watchers_count {
        watchers.push(Watcher::draw(next_client(), options.keys_count, chance));
    }
    watchers
        .into_iter()
        .map(|watcher| {
            let is_witness = watcher.is_evidence;
            let task = watcher::watch(Arc::clone(run), watcher, chance.fork(3));
            (is_witness, tokio::spawn(task))
        })
        .collect()
}

fn start_clients(run: &Arc<Run>, options: &Options, chance: &mut Chance) -> Vec<JoinHandle<()>> {
    let forever = Instant::now() + Duration::from_secs(1 << 30);
    let members = u32::try_from(options.nodes_count).expect("few nodes");
    (0..options.clients_count)
        .map(|client| {
            // One in four goes wherever it is served.
            let home = if client % 4 == 3 {
                Home::Anywhere
            } else {
                Home::Node((client % members) as usize)
            };
            let id = ClientId(client);
            tokio::spawn(traffic::client(Arc::clone(run), id, home, chance.fork(4), forever))
        })
        .collect()
}

/// Waits for the watchers to get everything. Those that do not are judged by what they got.
async fn gather_watches(run: &Run, watching: Vec<(bool, Watching)>) -> Vec<WatchRecord> {
    let deadline = Instant::now() + WATCHERS_WITHIN;
    while Instant::now() < deadline && watching.iter().any(|(_, task)| !task.is_finished()) {
        sleep(Duration::from_millis(50)).await;
    }
    run.end();
    let mut records = Vec::new();
    for (is_witness, task) in watching {
        let Ok(of_one) = task.await else {
            run.find("a watching client of the harness failed".to_owned());
            continue;
        };
        let last = of_one.last();
        if is_witness && !last.is_some_and(|record| record.open_at_end) {
            let who =
                last.map_or_else(|| "a watcher".to_owned(), |record| record.client.to_string());
            run.find(format!(
                "liveness: {who} has no stream of everything {WATCHERS_WITHIN:?} after everything \
                 healed"
            ));
        }
        records.extend(of_one);
    }
    records
}

fn take_history(run: &Run, watches: Vec<WatchRecord>, finish: &Finish) -> History {
    let mut notes = run.recorder.notes();
    let mut evidence = std::mem::take(&mut notes.evidence);
    let headers = watches
        .iter()
        .flat_map(|watch| &watch.received)
        .filter_map(|received| received.response.header.as_ref())
        .map(|header| header.revision);
    let hashed = finish.hashes.iter().map(|hash| hash.revision);
    // A write of unknown outcome may have come after the last answer.
    let head = headers.chain(hashed).fold(notes.revision_seen, i64::max).max(evidence.highest());
    if notes.whole_through < head {
        run.find(format!(
            "evidence: no watcher of everything was told of revision {}; the head is {head}",
            notes.whole_through + 1
        ));
    }
    evidence.close(head);
    History {
        operations: std::mem::take(&mut notes.operations),
        evidence,
        watches,
        hashes: finish.hashes.clone(),
    }
}

/// How the history is to be judged. The smallest numbers that mean something grow with the run.
fn rules(options: &Options, lasted: Duration, finish: &Finish) -> Rules {
    let seconds = usize::try_from(lasted.as_secs()).unwrap_or(usize::MAX);
    let election = options.target.words.iter().find_map(|word| {
        word.trim_start_matches('-').strip_prefix("election-timeout=")?.parse::<u64>().ok()
    });
    let ttl_min = (election.unwrap_or(ELECTION_MS) * 3 / 2).div_ceil(1_000);
    Rules {
        operations_min: seconds.saturating_mul(10),
        revisions_min: seconds.saturating_mul(2),
        reads_min: seconds,
        watch_events_min: seconds.saturating_mul(5),
        limits: Limits {
            lease_ttl_min_seconds: i64::try_from(ttl_min).unwrap_or(i64::MAX),
            ..Limits::default()
        },
        compacts_itself: false,
        watchers_catch_up: true,
        lease_keys_are_placed: options.target.is_flotilla,
        lease_time: Some(LeaseTime {
            stamps_per_second: STAMPS_PER_SECOND,
            drift_ppm: DRIFT_PPM,
            healthy_from: finish.healthy_from,
            grace: stamps(LEASE_GRACE),
        }),
    }
}
