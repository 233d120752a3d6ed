//! The architecture as a test: what the core may depend on, and who may import whom in the node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates by which code could reach a clock, a disk, a thread, a network or chance.
const BANNED_IN_CORE: [&str; 11] = [
    "actix",
    "actix-rt",
    "async-std",
    "crossbeam",
    "dashmap",
    "hyper",
    "metrics",
    "rocksdb",
    "rustix",
    "tokio",
    "tonic",
];

/// Modules of the node, in the order of a request's way, with the node's modules each may name.
/// `config`, `metrics`, `supervise` and the crate's constants may be named by all.
const IMPORTS: [(&str, &[&str]); 23] = [
    (
        "start",
        &[
            "api",
            "auth",
            "cluster",
            "console",
            "corruption",
            "hand_over",
            "peer",
            "placement",
            "range",
            "recover",
            "router",
            "runtime",
            "service_manager",
            "spans",
            "store",
            "tls",
            "wal",
            "watch",
        ],
    ),
    ("console", &["api", "auth", "peer", "router", "runtime", "store", "tls"]),
    ("backup", &["calendar", "cluster", "ctl"]),
    ("verify", &["cluster", "range", "store", "wal"]),
    ("corruption", &["hand_over", "peer", "range", "router", "tls"]),
    ("recover", &["cluster", "range", "store", "wal"]),
    ("placement", &["range", "router", "store"]),
    ("runtime", &["api", "peer", "router", "spans", "tls", "watch"]),
    ("api", &["auth", "router", "runtime", "spans", "store", "tls", "watch"]),
    ("router", &["auth", "store"]),
    ("range", &["auth", "peer", "router", "store", "wal"]),
    ("hand_over", &["range", "router"]),
    ("service_manager", &[]),
    ("cluster", &["channel", "peer", "range", "router", "store", "tls", "wal"]),
    ("channel", &["tls"]),
    ("watch", &["router", "store"]),
    ("peer", &["router", "store", "tls"]),
    ("tls", &[]),
    ("wal", &["io"]),
    ("store", &["io"]),
    ("io", &[]),
    ("auth", &[]),
    ("spans", &[]),
];

const NAMED_BY_ALL: [&str; 6] = ["config", "failpoint", "logging", "metrics", "supervise", "tests"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("node is in the workspace").to_owned()
}

#[test]
fn the_core_and_placement_can_do_no_io() {
    for package in ["flotilla-core", "flotilla-placement", "flotilla-proto"] {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none"])
            .args(["--format", "{p}"])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("cargo prints text");
        let crates: BTreeSet<&str> =
            text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        let found: Vec<_> = BANNED_IN_CORE.iter().filter(|name| crates.contains(*name)).collect();
        assert!(found.is_empty(), "{package} depends on {found:?}");
    }
}

/// Chance reaches the core by raft-rs alone, which is told what to draw; nothing of ours names it.
#[test]
fn the_core_names_no_clock_thread_file_or_chance() {
    let banned = [
        "std::time::Instant",
        "SystemTime",
        "std::thread",
        "std::fs",
        "std::net",
        "std::env",
        "rand::",
        "println!",
        "eprintln!",
    ];
    let mut found = Vec::new();
    for folder in ["node/core/src", "placement/src"] {
        // Tests may speak to the terminal.
        let is_test = |file: &PathBuf| {
            let path = file.to_string_lossy();
            path.contains("/tests/") || path.ends_with("tests.rs")
        };
        for file in rust_files(&root().join(folder)).into_iter().filter(|file| !is_test(file)) {
            let text = std::fs::read_to_string(&file).expect("readable");
            for word in banned.iter().filter(|word| text.contains(**word)) {
                found.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// What a build of everything consists of: a line for each library, its name and its features.
fn libraries_with_features() -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--workspace", "-e", "normal", "--prefix", "none"])
        .args(["--format", "{lib}|{f}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints text")
}

/// Bugs can be planted in the machines for the simulator to find. A build of the server has none,
/// whatever else is built with it: with the feature on, `flotilla` does not compile.
#[test]
fn no_bug_can_be_planted_in_the_server() {
    let text = libraries_with_features();
    let core: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("flotilla_core|")).collect();
    assert!(!core.is_empty(), "the core is a part of the workspace");
    let with_bugs: Vec<_> = core.iter().filter(|features| features.contains("mutants")).collect();
    assert!(with_bugs.is_empty(), "a build of everything has bugs to plant: {with_bugs:?}");

    let lib = std::fs::read_to_string(root().join("node/src/lib.rs")).expect("readable");
    let words: Vec<&str> = lib.split_whitespace().collect();
    assert!(
        words.join(" ").contains("const _: () = assert!( !flotilla_core::mutant::IS_COMPILED_IN,"),
        "the server refuses to compile with bugs to plant"
    );
}

/// Nodes can be stopped at named moments for tests: only where the feature is asked for.
#[test]
fn no_server_has_failpoints_unless_it_is_asked_for() {
    let text = libraries_with_features();
    assert!(text.lines().any(|line| line.starts_with("flotilla|")), "the node is a part of it");
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("fail|") || line.contains("failpoints"))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn imports_go_down_the_way_of_a_request() {
    let src = root().join("node/src");
    let mut wrong = Vec::new();
    for (module, allowed) in IMPORTS {
        let folder = src.join(module);
        let files = if folder.is_dir() {
            rust_files(&folder)
        } else {
            vec![src.join(format!("{module}.rs"))]
        };
        for file in files {
            let text = std::fs::read_to_string(&file).expect("readable");
            for named in modules_named(&text) {
                let is_fine = named == module
                    || allowed.contains(&named.as_str())
                    || NAMED_BY_ALL.contains(&named.as_str());
                if !is_fine {
                    wrong.push(format!("{} names crate::{named}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn modules_named(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut named = BTreeSet::new();
    for line in code {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String =
                rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if !name.is_empty() {
                named.insert(name);
            }
        }
    }
    named
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
