//! The log as its callers see it: queue, reports, failures, closing, locking.

use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::io::fake_disk::Fault;

/// What the callbacks heard.
#[derive(Clone, Default)]
struct Heard {
    reports: Arc<Mutex<Vec<Report>>>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Heard {
    fn on_done(&self) -> Box<dyn Fn(Report) + Send> {
        let reports = Arc::clone(&self.reports);
        Box::new(move |report| reports.lock().expect("not poisoned").push(report))
    }

    fn on_failure(&self) -> Box<dyn Fn(Error) + Send> {
        let failures = Arc::clone(&self.failures);
        Box::new(move |error| failures.lock().expect("not poisoned").push(error.to_string()))
    }

    fn tokens(&self) -> Vec<u64> {
        let reports = self.reports.lock().expect("not poisoned");
        reports.iter().flat_map(|report| &report.done).map(|done| done.token).collect()
    }

    fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("not poisoned").clone()
    }
}

fn open_thread(disk: &FakeDisk, options: Options) -> (Handle, Recovered, Heard) {
    let heard = Heard::default();
    let disk = Box::new(disk.clone());
    let (handle, recovered) =
        open_on(disk, options, LOG_ID, heard.on_done(), heard.on_failure()).expect("opens");
    (handle, recovered, heard)
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn one_entry(group: u64, index: u64, token: u64) -> Append {
    Append { token, ..append(group, vec![entries(group, index, index, 1, 40)]) }
}

#[test]
fn appends_of_many_threads_are_reported_in_order_and_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        segment_bytes: 1 << 20,
        batch_bytes_max: 64 << 10,
        ..Options::new(dir.path().join("a/b"))
    };
    let heard = Heard::default();
    let (handle, recovered) =
        open(options.clone(), heard.on_done(), heard.on_failure()).expect("a new log");
    assert!(recovered.is_clean && recovered.groups.is_empty());
    std::thread::scope(|scope| {
        for group in 0..4 {
            let handle = handle.clone();
            scope.spawn(move || {
                for index in 1..=2000 {
                    let mut append = one_entry(group, index, group << 32 | index);
                    while let Err(refused) = handle.try_append(append) {
                        assert_eq!(refused.reason, RefusedReason::Full);
                        append = refused.append;
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    wait_until("all is done", || heard.tokens().len() == 8000);
    for group in 0..4 {
        let of_group = heard.tokens().into_iter().filter(|token| token >> 32 == group);
        assert!(of_group.eq((1..=2000).map(|index| group << 32 | index)));
    }
    let stats = handle.stats();
    assert_eq!((stats.groups, stats.queue_appends, stats.queue_bytes), (4, 0, 0));
    assert!(stats.flushes > 0 && stats.last_flush.bytes >= 4096);
    handle.close();
    assert_eq!(heard.failures(), Vec::<String>::new());

    let (handle, recovered) = open(options, heard.on_done(), heard.on_failure()).expect("reopens");
    assert!(recovered.is_clean);
    for group in 0..4 {
        assert_eq!(recovered.groups[&GroupId(group)].entries.len(), 2000);
    }
    handle.close();
}

#[test]
fn one_flush_serves_all_groups_that_wait() {
    let disk = FakeDisk::new();
    let options = Options { flush_delay: Duration::from_millis(200), ..options() };
    let (handle, _, heard) = open_thread(&disk, options);
    let flushes = disk.flushes();
    for group in 0..20 {
        handle.try_append(one_entry(group, 1, group)).expect("queued");
    }
    wait_until("all is done", || heard.tokens().len() == 20);
    // The first one, and one for all that came meanwhile; a slow machine may need one more.
    assert!(disk.flushes() - flushes <= 3);
    handle.close();
}

#[test]
fn a_log_cannot_be_opened_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options::new(dir.path().to_owned());
    let heard = Heard::default();
    let open = || open(options.clone(), heard.on_done(), heard.on_failure());
    let (handle, _) = open().expect("a new log");
    match open() {
        Err(error @ Error::Locked { .. }) => {
            assert!(error.to_string().contains(&*dir.path().to_string_lossy()));
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    handle.close();
    open().expect("free again").0.close();
}

#[test]
fn a_failed_flush_is_reported_once_and_nothing_is_done_after_it() {
    for after in 0..12 {
        let disk = FakeDisk::new();
        let (handle, _, heard) = open_thread(&disk, options());
        disk.set_fault(after, Fault::Failure);
        let mut accepted = 0;
        while heard.failures().is_empty() {
            for _ in 0..3 {
                match handle.try_append(one_entry(1, accepted + 1, accepted + 1)) {
                    Ok(()) => accepted += 1,
                    Err(refused) => assert_eq!(refused.reason, RefusedReason::Closed),
                }
            }
            wait_until("they are done or the log fails", || {
                heard.tokens().len() == accepted as usize || !heard.failures().is_empty()
            });
        }
        // From here on the disk works again, and still nothing may be written or reported.
        disk.clear_fault();
        let done = heard.tokens();
        let refused = handle.try_append(one_entry(1, accepted + 1, 0)).expect_err("closed");
        assert_eq!(refused.reason, RefusedReason::Closed);
        handle.close();
        assert_eq!(heard.failures().len(), 1);
        assert_eq!(heard.tokens(), done);
        assert!(done.len() < accepted as usize);

        let (_, recovered) =
            open_fake(&disk.after_worst_power_loss(), options()).expect("a sound log");
        let kept = recovered.groups.get(&GroupId(1)).map_or(0, |log| log.entries.len());
        assert_eq!(kept, done.len(), "only what was flushed survives this disk");
    }
}

#[test]
fn what_needs_no_flush_is_reported_at_once_and_written_with_the_next_one() {
    let disk = FakeDisk::new();
    let (handle, _, heard) = open_thread(&disk, options());
    handle.try_append(one_entry(1, 1, 1)).expect("queued");
    wait_until("it is done", || heard.tokens() == [1]);
    let operations = disk.operations();
    for commit in 1..=5 {
        let operations = vec![hard_state(1, 1, commit)];
        let append =
            Append { group: GroupId(1), token: 10 + commit, is_flush_needed: false, operations };
        handle.try_append(append).expect("queued");
    }
    wait_until("they are done", || heard.tokens().len() == 6);
    assert_eq!(disk.operations(), operations, "nothing was written for them");
    handle.try_append(one_entry(1, 2, 2)).expect("queued");
    wait_until("it is done", || heard.tokens() == [1, 11, 12, 13, 14, 15, 2]);
    let (_, recovered) = open_fake(&disk.after_worst_power_loss(), options()).expect("a sound log");
    assert_eq!(recovered.groups[&GroupId(1)].hard_state.commit, 5);
    assert_eq!(recovered.groups[&GroupId(1)].entries.len(), 2);
    handle.close();
    let reports = heard.reports.lock().expect("not poisoned");
    assert!(reports.iter().all(|report| {
        report.flush.is_some() == report.done.iter().any(|done| done.token < 10)
            || report.done.is_empty()
    }));
}

#[test]
fn an_idle_log_confirms_its_last_flush_once() {
    let disk = FakeDisk::new();
    let options = Options { confirm_delay: Duration::from_millis(300), ..options() };
    let (handle, _, heard) = open_thread(&disk, options.clone());
    handle.try_append(one_entry(1, 1, 1)).expect("queued");
    let state = Append { is_flush_needed: false, ..append(1, vec![hard_state(1, 1, 1)]) };
    wait_until("it is done", || heard.tokens() == [1]);
    handle.try_append(state).expect("queued");
    wait_until("it is confirmed", || handle.stats().flushes == 2);
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(handle.stats().flushes, 2, "a confirmation is not confirmed");
    let copy = disk.copy();
    let mut file = copy.read(&segment_path(1));
    file[4096 + 70] ^= 1;
    copy.tamper(&segment_path(1), file);
    assert!(matches!(open_fake(&copy, options.clone()), Err(Error::Corrupt { offset: 4096, .. })));
    let (_, recovered) = open_fake(&disk.copy(), options).expect("a sound log");
    assert_eq!(recovered.groups[&GroupId(1)].hard_state.commit, 1);
    handle.close();
}

#[test]
fn the_queue_is_limited_in_appends_and_bytes() {
    let slow = Options { flush_delay: Duration::from_millis(700), ..options() };
    let few = Options { queue_appends_max: 3, ..slow.clone() };
    let small = Options { queue_bytes_max: 300, ..slow };
    for options in [few, small] {
        let (handle, _, heard) = open_thread(&FakeDisk::new(), options);
        handle.try_append(one_entry(1, 1, 1)).expect("queued");
        wait_until("it is being flushed", || handle.stats().queue_appends == 0);
        let accepted =
            (2..=9).take_while(|index| match handle.try_append(one_entry(1, *index, *index)) {
                Ok(()) => true,
                Err(refused) => {
                    assert_eq!(refused.reason, RefusedReason::Full);
                    assert_eq!(refused.append, one_entry(1, *index, *index));
                    false
                }
            });
        assert_eq!(accepted.count(), 3);
        handle.close();
        assert_eq!(heard.tokens(), [1, 2, 3, 4]);
    }
}

#[test]
fn what_can_never_be_written_is_refused_at_the_door() {
    let (handle, _, heard) = open_thread(&FakeDisk::new(), options());
    let limit = options().append_bytes_max();
    let large = append(1, vec![entries(1, 1, 1, 1, limit as usize)]);
    let refused = handle.try_append(large).expect_err("too large");
    assert_eq!(refused.reason, RefusedReason::TooLarge { bytes: limit + 38, limit });
    for indexes in [[1, 3], [2, 1], [0, 1], [u64::MAX, 0]] {
        let entries = indexes.map(|index| entry(index, 1, "")).to_vec();
        let refused = handle.try_append(append(1, vec![Operation::Entries(entries)]));
        assert_eq!(refused.expect_err("not in order").reason, RefusedReason::NotConsecutive);
    }
    handle.close();
    assert!(heard.tokens().is_empty() && heard.failures().is_empty());
}

#[test]
fn closing_finishes_what_is_queued_and_refuses_the_rest() {
    let disk = FakeDisk::new();
    let slow = Options { flush_delay: Duration::from_millis(50), ..options() };
    let (handle, _, heard) = open_thread(&disk, slow);
    for index in 1..=10 {
        handle.try_append(one_entry(1, index, index)).expect("queued");
    }
    let other = handle.clone();
    handle.close();
    assert_eq!(heard.tokens().len(), 10);
    let refused = other.try_append(one_entry(1, 11, 11)).expect_err("closed");
    assert_eq!(refused.reason, RefusedReason::Closed);
    other.close();
    let (_, recovered) = open_fake(&disk, options()).expect("a sound log");
    assert!(recovered.is_clean);
    assert_eq!(recovered.groups[&GroupId(1)].entries.len(), 10);
}

#[test]
fn misuse_and_panics_end_the_log_with_a_report() {
    let (handle, _, heard) = open_thread(&FakeDisk::new(), options());
    handle.try_append(one_entry(1, 5, 5)).expect("queued");
    wait_until("it fails", || !heard.failures().is_empty());
    assert!(heard.failures()[0].contains("group 1 asked the log for something impossible"));
    assert!(heard.tokens().is_empty());
    handle.close();

    let failures = Heard::default();
    let on_done = Box::new(|_| panic!("a callback that panics"));
    let disk = Box::new(FakeDisk::new());
    let (handle, _) =
        open_on(disk, options(), LOG_ID, on_done, failures.on_failure()).expect("opens");
    handle.try_append(one_entry(1, 1, 1)).expect("queued");
    wait_until("it fails", || failures.failures() == ["the log's thread panicked"]);
    handle.close();
}
