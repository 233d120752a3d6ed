//! Runs one property over many inputs: a few hundred in every test run, always the same ones, or as
//! many as fit into the time that is asked for, never the same ones. Owns the limits of a case.

use std::env;
use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use rustix::time::{ClockId, clock_gettime};

/// CPU seconds that each target runs for, in place of its number of cases.
const SECONDS: &str = "FLOTILLA_FUZZ_SECONDS";
/// Where the inputs begin.
const SEED: &str = "FLOTILLA_FUZZ_SEED";
/// Inputs that follow from one seed, when a seed or a time is asked for.
const ROUND_CASES: u32 = 1024;
/// Time of the wall after which a case that has not come back never will.
const HANG: Duration = Duration::from_secs(120);
const SHRINK_MS_MAX: u32 = 60_000;

/// A property and what each of its cases may take.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    name: &'static str,
    cases: u32,
    bytes_max: u64,
    cpu_max: Duration,
}

impl Target {
    /// 256 cases in an ordinary run; 16 MiB and two CPU seconds for each.
    pub const fn new(name: &'static str) -> Self {
        Self { name, cases: 256, bytes_max: 16 << 20, cpu_max: Duration::from_secs(2) }
    }

    /// How many cases an ordinary run has.
    #[must_use]
    pub const fn cases(self, cases: u32) -> Self {
        Self { cases, ..self }
    }

    /// Bytes that a case may have allocated at any moment.
    #[must_use]
    pub const fn bytes_max(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Calls `check` with inputs until the cases or the time are used up.
    ///
    /// # Panics
    /// `check` does, or it takes too much: with the smallest input found that does it, and the seed.
    pub fn run<S>(self, inputs: S, check: impl Fn(S::Value))
    where
        S: Strategy,
        S::Value: Debug,
    {
        let seconds: Option<u64> = asked(SECONDS);
        let seed: Option<u64> = asked(SEED);
        let cases = if seconds.or(seed).is_some() { ROUND_CASES } else { self.cases };
        let mut seed = seed.unwrap_or(if seconds.is_some() { fresh_seed() } else { 1 });
        let watchdog = Watchdog::new(self.name);
        let began = cpu();
        let (mut cases_done, mut worst) = (0_u64, Worst::default());
        loop {
            let runner = TestRunner::new(Config {
                cases,
                failure_persistence: None,
                max_shrink_time: SHRINK_MS_MAX,
                rng_seed: RngSeed::Fixed(seed),
                ..Config::default()
            });
            self.round(runner, &inputs, &check, seed, &watchdog, &mut worst);
            cases_done += u64::from(cases);
            let spent = cpu() - began;
            if spent.as_secs() >= seconds.unwrap_or(0) {
                eprintln!(
                    "fuzzed {}: {cases_done} cases in {} CPU ms, up to seed {seed}; a case took up \
                     to {} bytes and {} CPU ms",
                    self.name,
                    spent.as_millis(),
                    worst.bytes,
                    worst.cpu.as_millis()
                );
                return;
            }
            seed = seed.wrapping_add(1);
        }
    }

    fn round<S>(
        &self,
        mut runner: TestRunner,
        inputs: &S,
        check: &impl Fn(S::Value),
        seed: u64,
        watchdog: &Watchdog,
        worst: &mut Worst,
    ) where
        S: Strategy,
        S::Value: Debug,
    {
        let worst = std::cell::RefCell::new(worst);
        let outcome = runner.run(inputs, |input| {
            watchdog.begin(seed);
            let began = cpu();
            let mut outcome = Ok(());
            // A panic must not leave the measurement half done.
            let taken = allocation_counter::measure(|| {
                outcome = panic::catch_unwind(AssertUnwindSafe(|| check(input)));
            });
            let spent = cpu() - began;
            watchdog.end();
            if let Err(panic) = outcome {
                panic::resume_unwind(panic);
            }
            let mut worst = worst.borrow_mut();
            worst.bytes = worst.bytes.max(taken.bytes_max);
            worst.cpu = worst.cpu.max(spent);
            if taken.bytes_max > self.bytes_max {
                return Err(TestCaseError::fail(format!(
                    "{} bytes were allocated, more than {}",
                    taken.bytes_max, self.bytes_max
                )));
            }
            if spent > self.cpu_max {
                return Err(TestCaseError::fail(format!("it took {spent:?} of the CPU")));
            }
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, input)) => {
                panic!("{}: {reason}; run again with {SEED}={seed}; input: {input:#?}", self.name)
            }
            Err(TestError::Abort(reason)) => panic!("{}: {reason}", self.name),
        }
    }
}

/// What the most expensive cases took.
#[derive(Default)]
struct Worst {
    bytes: u64,
    cpu: Duration,
}

/// Ends the process when a case does not come back: there is no other way to stop a loop.
struct Watchdog {
    started: Instant,
    /// Milliseconds since `started` at which the present case began; 0 between cases.
    began_ms: Arc<AtomicU64>,
    seed: Arc<AtomicU64>,
}

impl Watchdog {
    fn new(name: &'static str) -> Self {
        let watchdog =
            Self { started: Instant::now(), began_ms: Arc::default(), seed: Arc::default() };
        let (began_ms, seed) = (Arc::downgrade(&watchdog.began_ms), watchdog.seed.clone());
        let started = watchdog.started;
        thread::spawn(move || {
            while let Some(began_ms) = began_ms.upgrade() {
                let began = Duration::from_millis(began_ms.load(Ordering::Relaxed));
                if !began.is_zero() && started.elapsed() > began + HANG {
                    let seed = seed.load(Ordering::Relaxed);
                    eprintln!("{name}: a case does not come back; run again with {SEED}={seed}");
                    std::process::abort();
                }
                drop(began_ms);
                thread::sleep(Duration::from_millis(200));
            }
        });
        watchdog
    }

    fn begin(&self, seed: u64) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seed.store(seed, Ordering::Relaxed);
        self.began_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    fn end(&self) {
        self.began_ms.store(0, Ordering::Relaxed);
    }
}

/// What this thread has used so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn fresh_seed() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec.unsigned_abs().wrapping_mul(1_000_000_007) ^ time.tv_nsec.unsigned_abs()
}

fn asked(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}
