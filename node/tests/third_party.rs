//! Clients of other makers, unchanged, as their users get them from PyPI and npm: the scripts of
//! `clients` on three nodes. A client that cannot be installed is skipped, and says so. What is
//! installed stays beside what cargo builds, so that the next run needs no network.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Cluster, flotilla};

/// How long a script may take.
const DONE_WITHIN: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The versions that are tried. The first two clients need older libraries than the third.
const OLDER_PYTHON: [&str; 4] =
    ["etcd3==0.12.0", "protobuf==3.20.3", "tenacity==6.3.1", "etcd3gw==2.7.0"];
const NEWER_PYTHON: [&str; 1] = ["aetcd==1.0.0"];
const NODE: [&str; 1] = ["etcd3@1.1.2"];

fn folder(name: &str, packages: &[&str]) -> PathBuf {
    // Other versions get another folder.
    let versions: String =
        packages.join("-").chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(format!("{name}-{versions}"))
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Runs what installs into a folder, unless that was done before.
fn once(
    name: &str,
    packages: &[&str],
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let folder = folder(name, packages);
    let mark = folder.join("installed");
    if !mark.exists() {
        // What an earlier run left half done is of no use; there may be nothing.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        install(&folder)?;
        std::fs::write(&mark, "").map_err(|error| error.to_string())?;
    }
    Ok(folder)
}

fn python(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = once(name, packages, |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin").join("pip"));
        run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
        Ok(())
    })?;
    Ok(folder.join("bin").join("python"))
}

fn node() -> Result<PathBuf, String> {
    let folder = once("node", &NODE, |folder| {
        std::fs::write(folder.join("package.json"), "{}").map_err(|error| error.to_string())?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-fund", "--no-audit", "--ignore-scripts", "--silent"]);
        run(npm.args(NODE).current_dir(folder))?;
        Ok(())
    })?;
    Ok(folder.join("node_modules"))
}

/// Runs a script against the first of three nodes. All of its steps must be done.
fn everyday(script: &str, installed: Result<PathBuf, String>, steps: usize) {
    let installed = match installed {
        Ok(installed) => installed,
        Err(error) => {
            let last = error.lines().last().unwrap_or_default().to_owned();
            harness::skip(&format!("{script}: the client cannot be installed here: {last}"));
            return;
        }
    };
    let cluster = Cluster::start_with(&flotilla(), 3, &["--initial-split-keys=l,m,x"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("clients").join(script);
    let mut command = match script.ends_with(".js") {
        true => {
            let mut command = Command::new("node");
            command.env("NODE_PATH", installed);
            command
        }
        false => Command::new(installed),
    };
    let port = cluster.nodes[0].client_port.to_string();
    command.arg(path).args(["127.0.0.1", &port]).stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    let deadline = Instant::now() + DONE_WITHIN;
    while child.try_wait().expect("a child can be waited for").is_none() {
        if Instant::now() >= deadline {
            child.kill().expect("it runs");
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    let output = child.wait_with_output().expect("it has ended");
    let (said, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}: {said}{error}", output.status);
    let done = said.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(done, steps, "{script}: {said}");
}

/// One test, as the clients are installed one after the other on a machine with few cores.
#[test]
fn clients_of_other_makers_do_their_everyday_calls() {
    let older = python("older", &OLDER_PYTHON);
    everyday("etcd3_everyday.py", older.clone(), 6);
    everyday("etcd3gw_everyday.py", older, 5);
    everyday("aetcd_everyday.py", python("newer", &NEWER_PYTHON), 5);
    everyday("etcd3_everyday.js", node(), 7);
}
