//! What the nodes leave on their disks is looked at by the program's own verifier: whatever was done to
//! them, it must be sound. Flotilla alone has one.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::run::Run;

/// Kills all nodes, and has their data directories verified. What is found in one is a finding.
pub(super) async fn verify(run: &Run) {
    for node in 0..run.nodes_count() {
        run.node(node).await.kill();
    }
    if !run.target.is_flotilla {
        return;
    }
    for node in 0..run.nodes_count() {
        let (name, data) = {
            let held = run.node(node).await;
            (held.name.clone(), held.disk.data_dir())
        };
        // One that never started has nothing, and one that was replaced had its disk wiped.
        if !data.join("member").is_dir() {
            continue;
        }
        let program = run.target.words[0].clone();
        let looking = tokio::task::spawn_blocking(move || look(&program, data));
        match looking.await.expect("it does not panic") {
            Looked::Sound => {}
            Looked::Found(line) => run.find(format!("{name}: flotilla verify: {line}")),
            Looked::Not(why) => run.remark(format!("{name} is not verified: {why}")),
        }
    }
}

enum Looked {
    Sound,
    /// The first thing that was found.
    Found(String),
    /// Why it could not be looked at.
    Not(String),
}

fn look(program: &str, data: PathBuf) -> Looked {
    let output = Command::new(program).arg("verify").arg(data).output();
    let Output { status, stdout, stderr } = match output {
        Ok(output) => output,
        Err(error) => return Looked::Not(error.to_string()),
    };
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    let found = said.lines().find(|line| line.starts_with("found: ")).map(str::to_owned);
    match (status.code(), found) {
        (Some(0), None) => Looked::Sound,
        (Some(1), Some(line)) => Looked::Found(line),
        // An older build has no verifier.
        (Some(2), _) => Looked::Not(said.lines().last().unwrap_or_default().to_owned()),
        _ => Looked::Found(format!("it ends with {status}: {said}")),
    }
}
