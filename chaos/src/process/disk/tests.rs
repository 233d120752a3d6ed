//! The disk of the harness is a test instrument, so it is tested first: what each policy leaves,
//! that random scripts of system calls see no difference to an ordinary directory, that mapped
//! files can be read, and that rules do what they say.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use super::volume::{Body, Content, Names};
use super::{Action, Mounted, Operation, Policy, ROOT, Rule, Volume};
use crate::sim::chance::Chance;

const CAPACITY: u64 = 64 << 20;
const SCRIPTS: u64 = 200;
const STEPS: u64 = 60;

fn file(volume: &mut Volume, name: &str) -> u64 {
    let body = Body::File(Content::default());
    volume.make(ROOT, OsStr::new(name), (0o644, (0, 0)), body).unwrap()
}

/// Names and contents of the root, as text.
fn shown(volume: &Volume) -> String {
    let mut text = String::new();
    for (name, inode) in volume.names_of(ROOT).unwrap() {
        let size = usize::try_from(volume.get(*inode).unwrap().size()).unwrap();
        let bytes = volume.read(*inode, 0, size).unwrap();
        let _ = write!(text, "{}={} ", name.to_string_lossy(), bytes.escape_ascii());
    }
    text.trim_end().to_owned()
}

/// A disk on which `a` was synced with `one`; then `two` was written behind it, `b` was made and
/// written, and nothing was synced any more.
fn half_synced(has_strict_names: bool) -> Volume {
    let mut volume = Volume::new(CAPACITY, has_strict_names);
    let a = file(&mut volume, "a");
    volume.write(a, 0, b"one").unwrap();
    volume.sync_file(a, false).unwrap();
    volume.sync_directory(ROOT).unwrap();
    volume.write(a, 3, b"two").unwrap();
    let b = file(&mut volume, "b");
    volume.write(b, 0, b"new").unwrap();
    volume
}

/// All that a policy leaves, over many seeds.
fn left_by(policy: Policy, volume: &Volume) -> Vec<String> {
    let mut left: Vec<String> = (0..200)
        .map(|seed| {
            let mut volume = volume.clone();
            volume.cut(policy, &mut Chance::new(seed));
            assert!(volume.names_of(ROOT).is_err(), "the power is off");
            volume.power_on();
            shown(&volume)
        })
        .collect();
    left.sort();
    left.dedup();
    left
}

#[test]
fn drop_all_leaves_what_was_synced() {
    assert_eq!(left_by(Policy::DropAll, &half_synced(false)), ["a=one"]);
}

#[test]
fn drop_suffix_leaves_any_prefix() {
    let left = left_by(Policy::DropSuffix, &half_synced(false));
    assert_eq!(left, ["a=one", "a=onetwo", "a=onetwo b=", "a=onetwo b=new"]);
}

#[test]
fn a_random_subset_leaves_later_writes_without_earlier_ones() {
    let left = left_by(Policy::RandomSubset, &half_synced(false));
    assert_eq!(
        left,
        ["a=one", "a=one b=", "a=one b=new", "a=onetwo", "a=onetwo b=", "a=onetwo b=new"]
    );
}

#[test]
fn metadata_without_data_leaves_zeros() {
    let left = left_by(Policy::MetadataWithoutData, &half_synced(false));
    assert_eq!(left, ["a=one\\x00\\x00\\x00 b=\\x00\\x00\\x00"]);
}

#[test]
fn a_torn_write_is_there_in_sectors() {
    let mut volume = Volume::new(CAPACITY, false);
    let a = file(&mut volume, "a");
    volume.sync_file(a, false).unwrap();
    volume.write(a, 256, &[7; 1_536]).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let mut volume = volume.clone();
        volume.cut(Policy::Tear(512), &mut Chance::new(seed));
        volume.power_on();
        let inode = volume.find(ROOT, OsStr::new("a")).unwrap();
        let bytes = volume.read(inode, 0, 4_096).unwrap();
        // Sectors lie at multiples of their size: a part, two whole ones, a part.
        let sectors: Vec<bool> = [256..512, 512..1_024, 1_024..1_536, 1_536..1_792]
            .into_iter()
            .map(|range| bytes.get(range).is_some_and(|it| it.iter().all(|byte| *byte == 7)))
            .collect();
        let written: usize = bytes.iter().filter(|byte| **byte == 7).count();
        let whole = [256, 512, 512, 256].iter().zip(&sectors);
        let expected: usize = whole.filter(|(_, is_there)| **is_there).map(|(n, _)| *n).sum();
        assert_eq!(written, expected, "a sector is there or not");
        kinds.insert(sectors);
    }
    assert_eq!(kinds.len(), 16, "every combination comes up");
}

#[test]
fn a_name_is_durable_with_its_directory_or_in_the_journal_with_its_file() {
    for (has_strict_names, expected) in [(true, "a=one"), (false, "a=one b=new")] {
        let mut volume = half_synced(has_strict_names);
        let b = volume.find(ROOT, OsStr::new("b")).unwrap();
        volume.sync_file(b, true).unwrap();
        assert_eq!(left_by(Policy::DropAll, &volume), [expected]);
        volume.sync_directory(ROOT).unwrap();
        assert_eq!(left_by(Policy::DropAll, &volume), ["a=one b=new"]);
    }
}

#[test]
fn a_rename_is_whole_or_not_at_all_and_a_removed_file_comes_back() {
    let mut volume = half_synced(false);
    let directory = Body::Directory { live: Names::new(), durable: Names::new() };
    let to = volume.make(ROOT, OsStr::new("d"), (0o755, (0, 0)), directory).unwrap();
    volume.sync_directory(ROOT).unwrap();
    volume.rename((ROOT, OsStr::new("a")), (to, OsStr::new("a"))).unwrap();
    assert!(volume.find(ROOT, OsStr::new("a")).is_err());
    for seed in 0..50 {
        let mut volume = volume.clone();
        volume.cut(Policy::DropSuffix, &mut Chance::new(seed));
        volume.power_on();
        let to = volume.find(ROOT, OsStr::new("d")).unwrap();
        let places = [volume.find(ROOT, OsStr::new("a")), volume.find(to, OsStr::new("a"))];
        assert_eq!(places.iter().filter(|it| it.is_ok()).count(), 1);
    }
    let mut volume = half_synced(false);
    volume.remove(ROOT, OsStr::new("a"), false).unwrap();
    assert_eq!(left_by(Policy::DropAll, &volume), ["a=one"]);
    volume.sync_directory(ROOT).unwrap();
    assert_eq!(left_by(Policy::DropAll, &volume), ["b="]);
}

#[test]
fn a_failed_sync_forgets_and_the_next_one_lies() {
    let mut volume = half_synced(false);
    let a = volume.find(ROOT, OsStr::new("a")).unwrap();
    volume.open(a).unwrap();
    assert_eq!(volume.fail_sync(a).unwrap(), 1);
    volume.sync_file(a, false).unwrap();
    assert_eq!(volume.read(a, 0, 10).unwrap(), b"onetwo");
    assert_eq!(left_by(Policy::DropAll, &volume), ["a=one b="]);
    // Another process may open it meanwhile.
    volume.open(a).unwrap();
    assert_eq!(volume.read(a, 0, 10).unwrap(), b"onetwo");
    volume.close(a);
    volume.close(a);
    volume.write(a, 3, b"x").unwrap();
    volume.open(a).unwrap();
    assert_eq!(volume.read(a, 0, 10).unwrap(), b"onex");
}

#[test]
fn a_full_disk_has_room_again_when_something_is_removed() {
    let mut volume = Volume::new(8 * 4_096, false);
    let a = file(&mut volume, "a");
    let page = [1; 4_096];
    for n in 0..8 {
        volume.write(a, n * 4_096, &page).unwrap();
    }
    assert!(volume.write(a, 8 * 4_096, &page).is_err());
    assert!(volume.reserve(a, 9 * 4_096, true).is_err());
    assert_eq!(volume.refused_count(), 2);
    volume.write(a, 0, &page).unwrap();
    volume.remove(ROOT, OsStr::new("a"), false).unwrap();
    volume.sync_directory(ROOT).unwrap();
    assert_eq!(volume.used_bytes(), 0);
}

/// A mounted disk, or a loud word that there is none.
fn mounted(folder: &Path, seed: u64) -> Option<Mounted> {
    let on = folder.join("mounted");
    fs::create_dir(&on).unwrap();
    match Mounted::new(Volume::new(CAPACITY, false), &on, seed) {
        Ok(mounted) => Some(mounted),
        Err(error) => {
            eprintln!("!!!! NOT TESTED, there is no FUSE here: {error:#}");
            None
        }
    }
}

/// One random step of a script in a directory; what it saw, as text.
fn step(root: &Path, chance: &mut Chance) -> String {
    let name = |chance: &mut Chance| root.join(format!("{}", chance.below(5)));
    let below = |chance: &mut Chance| {
        let folder = root.join(format!("d{}", chance.below(2)));
        folder.join(format!("{}", chance.below(3)))
    };
    let path = if chance.one_in(3) { below(chance) } else { name(chance) };
    let other = if chance.one_in(3) { below(chance) } else { name(chance) };
    let kind = |error: std::io::Error| format!("{:?}", error.raw_os_error());
    let text = |outcome: std::io::Result<String>| outcome.unwrap_or_else(kind);
    match chance.below(12) {
        0 => {
            let data = vec![b'a' + chance.below(26) as u8; chance.below(9_000) as usize];
            text(fs::write(&path, data).map(|()| "written".to_owned()))
        }
        1 => {
            let (at, length) = (chance.below(20_000), chance.below(6_000) as usize);
            let data = vec![b'0' + chance.below(10) as u8; length];
            let open = OpenOptions::new().write(true).open(&path);
            text(open.and_then(|file| file.write_all_at(&data, at)).map(|()| "patched".to_owned()))
        }
        2 => {
            let open = OpenOptions::new().append(true).create(true).open(&path);
            text(open.and_then(|mut file| file.write_all(b"more")).map(|()| "appended".to_owned()))
        }
        3 => text(fs::read(&path).map(|bytes| format!("{:08x}", crc32c::crc32c(&bytes)))),
        4 => {
            let size = chance.below(15_000);
            let open = OpenOptions::new().write(true).open(&path);
            text(open.and_then(|file| file.set_len(size)).map(|()| "resized".to_owned()))
        }
        5 => text(fs::rename(&path, &other).map(|()| "renamed".to_owned())),
        6 => text(fs::hard_link(&path, &other).map(|()| "linked".to_owned())),
        7 => text(fs::remove_file(&path).map(|()| "removed".to_owned())),
        8 => {
            let folder = root.join(format!("d{}", chance.below(2)));
            if chance.one_in(2) {
                text(fs::create_dir(folder).map(|()| "made".to_owned()))
            } else {
                text(fs::remove_dir(folder).map(|()| "unmade".to_owned()))
            }
        }
        9 => text(fs::metadata(&path).map(|it| format!("{} {}", it.len(), it.is_dir()))),
        10 => {
            let open = File::open(&path).and_then(|mut file| {
                file.sync_all()?;
                let mut bytes = [0; 100];
                file.seek(SeekFrom::Start(4_000))?;
                let length = file.read(&mut bytes)?;
                Ok(bytes[..length].escape_ascii().to_string())
            });
            text(open)
        }
        _ => text(fs::read_dir(root).map(|entries| {
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names.join(",")
        })),
    }
}

#[test]
fn random_scripts_see_no_difference_to_an_ordinary_directory() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = mounted(folder.path(), 1) else { return };
    for seed in 0..SCRIPTS {
        let roots = ["plain", "mounted"].map(|it| folder.path().join(it).join(seed.to_string()));
        let [plain, strange] = roots.map(|root| {
            fs::create_dir_all(&root).unwrap();
            let mut chance = Chance::new(seed);
            (0..STEPS).map(|_| step(&root, &mut chance)).collect::<Vec<_>>()
        });
        assert_eq!(plain, strange, "script {seed}");
    }
}

#[test]
fn a_mapped_file_can_be_read_and_shows_later_writes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = mounted(folder.path(), 2) else { return };
    let path = folder.path().join("mounted").join("db");
    fs::write(&path, vec![b'x'; 10_000]).unwrap();
    // `cmp` and `grep` may map what they read; python says so when it does.
    let script = "import mmap,os,sys\n\
        f=open(sys.argv[1],'rb')\n\
        m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ,flags=mmap.MAP_SHARED)\n\
        a=m[9999:10000]\n\
        w=os.open(sys.argv[1],os.O_WRONLY); os.pwrite(w,b'y',9999); os.fdatasync(w)\n\
        print(a.decode()+m[9999:10000].decode())\n";
    let output = std::process::Command::new("python3").args(["-c", script]).arg(&path).output();
    match output {
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "xy\n", "{error}");
        }
        Err(error) => eprintln!("!!!! NOT TESTED, there is no python3 here: {error}"),
    }
}

#[test]
fn a_mounted_disk_follows_rules_and_forgets_when_the_power_fails() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mounted) = mounted(folder.path(), 3) else { return };
    let root = folder.path().join("mounted");
    let rule = |path: &str, operation, action| {
        mounted.rules().add(Rule {
            path: path.to_owned(),
            operations: vec![operation],
            from: 1,
            times: 1,
            action,
        })
    };
    fs::write(root.join("a"), b"synced").unwrap();
    File::open(root.join("a")).unwrap().sync_all().unwrap();
    fs::write(root.join("b"), b"not synced").unwrap();

    rule("/a", Operation::Sync, Action::Fail);
    let a = OpenOptions::new().append(true).open(root.join("a")).unwrap();
    (&a).write_all(b" lost").unwrap();
    assert_eq!(a.sync_all().unwrap_err().raw_os_error(), Some(5));
    a.sync_all().unwrap();

    rule("/a", Operation::Write, Action::Full);
    assert_eq!((&a).write(b"x").unwrap_err().raw_os_error(), Some(28));
    rule("/a", Operation::Write, Action::Short);
    assert_eq!((&a).write(b"1234").unwrap(), 2);
    let slow = rule("/a", Operation::Sync, Action::Delay(Duration::from_millis(200)));
    let began = std::time::Instant::now();
    a.sync_data().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(mounted.rules().remove(slow), 1);
    let hang = rule("/a", Operation::Sync, Action::Hang);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.sync_data());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        assert_eq!(mounted.rules().remove(hang), 1);
        waiting.join().unwrap().unwrap();
    });
    drop(a);
    rule("/b", Operation::Read, Action::FlipBit);
    assert_eq!(fs::read(root.join("b")).unwrap(), b"oot synced");

    mounted.cut(Policy::DropAll);
    assert!(fs::read(root.join("a")).is_err());
    mounted.volume().power_on();
    // Of the appended bytes only what was written after the failed sync has come through, behind
    // a hole where the lost bytes were.
    assert_eq!(fs::read(root.join("a")).unwrap(), b"synced\x00\x00\x00\x00\x0012");
    let names: Vec<_> = fs::read_dir(&root).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the journal was committed with the failed file's next sync");
}
