//! The distribution's etcdctl does the same things to this store and to a real etcd, and must print
//! the same and end the same way.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{self, Cluster};

/// How long one run of etcdctl may take.
const COMMAND_TIMEOUT: &str = "--command-timeout=20s";
/// How long a watcher is given to begin, and to print.
const WATCH_PAUSE: Duration = Duration::from_millis(1_500);

const ROOT: &str = "root:r00t";

/// One run: who runs it (nobody, if empty), and the arguments. Two spaces have an empty one between
/// them.
const COMMANDS: &[(&str, &str)] = &[
    ("", "user list"),
    ("", "role list"),
    ("", "auth disable"),
    ("", "user get nobody"),
    ("", "user delete nobody"),
    ("", "role get nothing"),
    ("", "role delete nothing"),
    ("", "user add root:r00t"),
    ("", "user add root:again"),
    ("", "user add alice:wonder"),
    ("", "user add bob:builder"),
    ("", "user add cert --no-password"),
    ("", "user list"),
    ("", "user get alice"),
    ("", "role add reader"),
    ("", "role add reader"),
    ("", "role add writer"),
    ("", "role grant-permission reader read foo"),
    ("", "role grant-permission reader read dir/ --prefix"),
    ("", "role grant-permission reader read from --from-key"),
    ("", "role grant-permission reader readwrite x xz"),
    ("", "role grant-permission writer write foo fop"),
    ("", "role grant-permission writer readwrite all --prefix"),
    ("", "role grant-permission writer read foo fop"),
    ("", "role grant-permission writer write foo fop"),
    ("", "role get reader"),
    ("", "role get writer"),
    ("", "role revoke-permission reader x xz"),
    ("", "role revoke-permission reader x xz"),
    ("", "role revoke-permission reader nothing"),
    ("", "role get reader"),
    ("", "user grant-role alice reader"),
    ("", "user grant-role alice writer"),
    ("", "user grant-role alice writer"),
    ("", "user grant-role alice nothing"),
    ("", "user grant-role bob reader"),
    ("", "user revoke-role bob writer"),
    ("", "user get alice"),
    ("", "user get alice --detail"),
    ("", "put foo before"),
    ("", "put dir/1 before"),
    ("", "put secret before"),
    ("", "user grant-role root root"),
    ("", "auth enable"),
    (ROOT, "auth enable"),
    ("", "get foo"),
    ("", "put foo nobody"),
    ("", "del foo"),
    ("", "user list"),
    ("alice:wrong", "get foo"),
    ("nobody:wrong", "get foo"),
    ("cert:any", "get foo"),
    ("alice:wonder", "get foo"),
    ("alice:wonder", "put foo alice"),
    ("alice:wonder", "put foo2 alice"),
    ("alice:wonder", "put fop alice"),
    ("alice:wonder", "get foo fop"),
    ("alice:wonder", "get dir/ --prefix"),
    ("alice:wonder", "get dir/1 --keys-only"),
    ("alice:wonder", "get fxxx --from-key"),
    ("alice:wonder", "get secret"),
    ("alice:wonder", "get  --from-key"),
    ("alice:wonder", "put all1 value"),
    ("alice:wonder", "put all1 value2 --prev-kv"),
    ("alice:wonder", "put foo value --prev-kv"),
    ("alice:wonder", "put foo2 value --prev-kv"),
    ("alice:wonder", "del all1 --prev-kv"),
    ("alice:wonder", "del foo2 --prev-kv"),
    ("alice:wonder", "del foo2"),
    ("alice:wonder", "del foo fop"),
    ("alice:wonder", "del dir/ --prefix"),
    ("bob:builder", "get dir/ --prefix"),
    ("bob:builder", "put dir/1 bob"),
    ("bob:builder", "get foo"),
    ("alice:wonder", "user get alice"),
    ("alice:wonder", "user get bob"),
    ("alice:wonder", "role get reader"),
    ("bob:builder", "role get writer"),
    ("alice:wonder", "user list"),
    ("alice:wonder", "role list"),
    ("alice:wonder", "user add eve:eve"),
    ("alice:wonder", "role add eve"),
    ("alice:wonder", "role grant-permission reader read secret"),
    ("alice:wonder", "user grant-role alice root"),
    ("alice:wonder", "auth disable"),
    ("alice:wonder", "endpoint health"),
    (ROOT, "user add eve:eve"),
    (ROOT, "user grant-role eve reader"),
    ("eve:eve", "get foo"),
    (ROOT, "role revoke-permission reader foo"),
    ("eve:eve", "get foo"),
    (ROOT, "user revoke-role eve reader"),
    ("eve:eve", "get dir/1"),
    (ROOT, "user delete eve"),
    ("eve:eve", "get dir/1"),
    (ROOT, "role delete writer"),
    ("alice:wonder", "put foo gone"),
    (ROOT, "user get alice"),
    (ROOT, "user delete root"),
    (ROOT, "role delete root"),
    (ROOT, "user revoke-role root root"),
    (ROOT, "role get root"),
    // What the role root may do is shown by etcd from 3.7 on; before, nothing is.
    (ROOT, "role add root"),
    (ROOT, "get  --from-key"),
    (ROOT, "user list"),
    (ROOT, "role list"),
    (ROOT, "auth disable"),
    ("", "user list"),
    ("", "get secret"),
    (ROOT, "get secret"),
    ("", "user delete root"),
];

struct Ctl<'a> {
    etcdctl: &'a Path,
    endpoint: String,
}

impl Ctl<'_> {
    fn command(&self, user: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.etcdctl);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint, COMMAND_TIMEOUT]);
        if !user.is_empty() {
            command.args(["--user", user]);
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What is printed, and how it ends.
    fn run(&self, user: &str, args: &[&str], input: Option<&str>) -> String {
        let mut command = self.command(user, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes())
            .expect("etcdctl reads");
        drop(stdin);
        self.text(&child.wait_with_output().expect("etcdctl ends"))
    }

    fn text(&self, output: &std::process::Output) -> String {
        let (out, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Lines of the client's own log have times, and say no more than the error after them.
        let errors: Vec<&str> = errors.lines().filter(|line| !line.starts_with('{')).collect();
        let text = format!("{out}{}\nends with {:?}", errors.join("\n"), output.status.code());
        let text = text.replace(&self.endpoint, "ENDPOINT");
        let host = self.endpoint.trim_start_matches("http://");
        text.replace(host, "ENDPOINT").lines().map(without_time).collect::<Vec<_>>().join("\n")
    }
}

/// A health check says how long it took.
fn without_time(line: &str) -> String {
    line.split_once("took = ").map_or(line, |(before, _)| before).to_owned()
}

#[test]
fn etcdctl_prints_the_same_beside_an_etcd() {
    let (Some(etcd), Some(etcdctl)) = (harness::etcd(), harness::etcdctl()) else {
        harness::skip("etcd and etcdctl are not installed, so nothing was compared with them");
        return;
    };
    let ours = Cluster::start_with(&harness::flotilla(), 1, &["--bcrypt-cost=4"]);
    let theirs = Cluster::start_with(&etcd, 1, &["--bcrypt-cost=4"]);
    let ctl = |cluster: &Cluster| Ctl { etcdctl: &etcdctl, endpoint: cluster.endpoint(0) };
    let (ours, theirs) = (ctl(&ours), ctl(&theirs));
    let mut differences = Vec::new();
    let mut compare = |what: String, got: &str, wanted: &str| {
        if got != wanted {
            differences.push(format!("{what}\n  here:\n{got}\n  etcd:\n{wanted}"));
        }
    };
    for (user, line) in COMMANDS {
        let args: Vec<&str> = line.split(' ').collect();
        let (got, wanted) = (ours.run(user, &args, None), theirs.run(user, &args, None));
        compare(format!("{user} {line}"), &got, &wanted);
        if *line == "put fop alice" {
            tell_and_watch(&ours, &theirs, &mut compare);
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n\n"));
}

/// What takes more than one line: transactions, leases, passwords, watchers.
fn tell_and_watch(ours: &Ctl<'_>, theirs: &Ctl<'_>, compare: &mut impl FnMut(String, &str, &str)) {
    let txns = [
        ("alice:wonder", "value(\"foo\") = \"alice\"\n\nput foo txn\n\nget foo\n\n"),
        ("alice:wonder", "value(\"foo\") = \"alice\"\n\nget foo\n\nget secret\n\n"),
        ("alice:wonder", "value(\"secret\") = \"x\"\n\nget foo\n\nget foo\n\n"),
        ("bob:builder", "value(\"foo\") = \"txn\"\n\nput foo bob\n\n\n"),
        ("bob:builder", "value(\"foo\") = \"txn\"\n\nget foo\n\n\n"),
        ("", "value(\"foo\") = \"txn\"\n\nget foo\n\n\n"),
    ];
    for (user, input) in txns {
        let run = |ctl: &Ctl<'_>| ctl.run(user, &["txn"], Some(input));
        compare(format!("{user} txn {input:?}"), &run(ours), &run(theirs));
    }

    for (user, password) in [(ROOT, "changed"), ("alice:wonder", "mine"), ("", "x")] {
        let args = ["user", "passwd", "bob", "--interactive=false"];
        let run = |ctl: &Ctl<'_>| ctl.run(user, &args, Some(&format!("{password}\n")));
        compare(format!("{user} passwd"), &run(ours), &run(theirs));
    }
    for password in ["builder", "changed"] {
        let run = |ctl: &Ctl<'_>| ctl.run(&format!("bob:{password}"), &["get", "foo"], None);
        compare(format!("bob:{password}"), &run(ours), &run(theirs));
    }
    let back = ["user", "passwd", "bob", "--interactive=false"];
    let run = |ctl: &Ctl<'_>| ctl.run(ROOT, &back, Some("builder\n"));
    compare("passwd back".to_owned(), &run(ours), &run(theirs));

    // A lease has another id in each store.
    let leased = |ctl: &Ctl<'_>| {
        let granted = ctl.run("alice:wonder", &["lease", "grant", "100"], None);
        let id = granted.split(' ').nth(1).unwrap_or_default().to_owned();
        let lease = format!("--lease={id}");
        let mut text = granted;
        for (user, args) in [
            ("alice:wonder", vec!["put", "all2", "v", &lease]),
            ("bob:builder", vec!["put", "dir/2", "v", &lease]),
            (ROOT, vec!["put", "secret2", "v", &lease]),
            ("alice:wonder", vec!["put", "all3", "v", &lease]),
            ("alice:wonder", vec!["lease", "revoke", &id]),
            ("bob:builder", vec!["lease", "revoke", &id]),
            (ROOT, vec!["get", "secret2"]),
            (ROOT, vec!["lease", "revoke", &id]),
            (ROOT, vec!["get", "secret2"]),
        ] {
            text.push_str(&ctl.run(user, &args, None));
        }
        text.replace(&id, "ID")
    };
    compare("leases".to_owned(), &leased(ours), &leased(theirs));

    let watched = |ctl: &Ctl<'_>| {
        let watch = |user: &str, args: &[&str]| {
            let mut command = ctl.command(user, args);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("etcdctl runs")
        };
        let mut children = [
            watch("alice:wonder", &["watch", "foo"]),
            watch("bob:builder", &["watch", "dir/", "--prefix"]),
            watch("bob:builder", &["watch", "secret"]),
            watch("alice:wonder", &["watch", "foo", "fop"]),
            watch("", &["watch", "foo"]),
        ];
        std::thread::sleep(WATCH_PAUSE);
        for key in ["foo", "foo3", "dir/3", "secret"] {
            ctl.run(ROOT, &["put", key, "watched"], None);
        }
        std::thread::sleep(WATCH_PAUSE);
        let mut text = String::new();
        for child in &mut children {
            // Those that were refused have ended.
            let _ = child.kill();
        }
        for child in children {
            text.push_str(&ctl.text(&child.wait_with_output().expect("etcdctl ends")));
            text.push('\n');
        }
        text
    };
    compare("watchers".to_owned(), &watched(ours), &watched(theirs));
}
