//! Plays every script of `tests/scripts`. A script is blocks of commands, each followed by a line
//! `----` and by what the commands print, up to the next empty line. `REWRITE=1` writes down what
//! they print.

use std::fmt::Write;
use std::path::Path;

use flotilla_placement::script::Player;

#[test]
fn scripts_print_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let is_rewriting = std::env::var_os("REWRITE").is_some();
    let mut wrong = Vec::new();
    for path in paths {
        let script = std::fs::read_to_string(&path).expect("a readable script");
        let played = play(&script);
        if is_rewriting {
            std::fs::write(&path, played).expect("a writable script");
        } else if played != script {
            wrong.push(format!("{}:\n{}", path.display(), difference(&script, &played)));
        }
    }
    assert!(wrong.is_empty(), "REWRITE=1 accepts this:\n{}", wrong.join("\n"));
}

/// The script with everything that its commands print in place.
fn play(script: &str) -> String {
    let mut player = Player::default();
    let mut played = String::new();
    let mut printed = String::new();
    let mut is_in_output = false;
    for line in script.lines() {
        if is_in_output {
            if line.is_empty() {
                is_in_output = false;
                played.push('\n');
            }
            continue;
        }
        writeln!(played, "{line}").expect("a string");
        if line == "----" {
            played.push_str(&std::mem::take(&mut printed));
            is_in_output = true;
            continue;
        }
        match player.play(line) {
            Ok(text) => printed.push_str(&text),
            Err(error) => writeln!(printed, "error: {error}").expect("a string"),
        }
    }
    assert!(printed.is_empty(), "a block without ---- prints:\n{printed}");
    played
}

/// The first lines that differ, with those around them.
fn difference(wanted: &str, got: &str) -> String {
    let place = wanted.lines().zip(got.lines()).take_while(|(left, right)| left == right).count();
    let excerpt = |text: &str| {
        let lines = text.lines().skip(place.saturating_sub(2)).take(12);
        lines.map(|line| format!("  {line}\n")).collect::<String>()
    };
    format!("line {}\nwanted\n{}got\n{}", place + 1, excerpt(wanted), excerpt(got))
}
