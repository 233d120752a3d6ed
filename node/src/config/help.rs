//! What `--help` prints: how to call the program, and every flag with its default. Owns the
//! wording around the table of flags.

use std::fmt::Write as _;

use super::flags::{Category, FLAGS, Flag, State};

/// Printed after a message about a command line that cannot be read.
pub const USAGE: &str = "\
Usage:

  flotilla [flags]
    Start a node.

  flotilla --version
    Show the version.

  flotilla -h | --help
    List all flags.

  flotilla dev
    Start a throw-away cluster in this terminal.

  flotilla top
    Watch a running cluster.

  flotilla ctl
    Ask a running node, and have ranges split, merged and moved.

  flotilla verify DATA-DIR
    Check the data directory of a node that is down; flotilla dump shows its log.

  flotilla recover DATA-DIR
    After the quorum was lost for good: make a cluster of one node that is down.

  flotilla --config-file FILE
    Start a node with the configuration in a YAML or JSON file. All other flags and
    environment variables are then ignored.
";

/// How to call the program and the list of flags by category, for standard output.
pub fn flag_list() -> String {
    let mut text = USAGE.to_owned();
    text.push_str(
        "\nEach flag can be given as an environment variable instead, \
         such as ETCD_DATA_DIR for --data-dir.\n",
    );
    for (category, title) in TITLES {
        writeln!(text, "\n{title}:").expect("writing to a String cannot fail");
        for flag in FLAGS.iter().filter(|flag| flag.category == category) {
            writeln!(text, "{}", describe(flag)).expect("writing to a String cannot fail");
        }
    }
    text
}

/// In the order of etcd's own list. Flags that are accepted only to be ignored are left out.
const TITLES: [(Category, &str); 12] = [
    (Category::Member, "Member"),
    (Category::Clustering, "Clustering"),
    (Category::Security, "Security"),
    (Category::Auth, "Auth"),
    (Category::Monitoring, "Profiling and monitoring"),
    (Category::Logging, "Logging"),
    (Category::Tracing, "Distributed tracing"),
    (Category::Tuning, "Tuning"),
    (Category::FeatureGates, "Feature gates"),
    (Category::Unsafe, "Unsafe"),
    (Category::Other, "Other"),
    (Category::Flotilla, "Not in etcd"),
];

fn describe(flag: &Flag) -> String {
    let note = match flag.state {
        State::Used => "",
        State::NoMeaning(_) | State::Ignored => "No effect: ",
        State::NotServed(_) => "Refused: ",
    };
    format!("  --{} '{}'\n    {note}{}.", flag.name, flag.default, flag.meaning)
}
