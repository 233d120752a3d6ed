//! What a command line, an environment and a file turn into, and how etcd's mistakes are refused.
//! The texts and exit codes expected here were printed by etcd for the same input.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flags::{Category, FLAGS, State};
use super::*;

/// The flags, variables, types, defaults and categories of etcd 3.7.
const ETCD_FLAGS: &str = include_str!("flags.tsv");

fn parse_with(args: &[&str], env: &[(&str, &str)]) -> Result<Outcome, Error> {
    let no_file = |_: &Path| panic!("no file was named");
    parse(args.iter().map(OsString::from), &variables(env), &no_file)
}

fn parse_file(text: &str) -> Result<Outcome, Error> {
    parse([OsString::from("--config-file=c.yaml")], &BTreeMap::new(), &|_| Ok(text.to_owned()))
}

fn variables(env: &[(&str, &str)]) -> BTreeMap<String, String> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn run(outcome: Result<Outcome, Error>) -> (Config, Vec<Notice>) {
    match outcome {
        Ok(Outcome::Run(config, notices)) => (*config, notices),
        Ok(other) => panic!("expected a configuration, got {other:?}"),
        Err(error) => panic!("expected a configuration, got: {error}"),
    }
}

#[track_caller]
fn config(args: &[&str]) -> Config {
    run(parse_with(args, &[])).0
}

#[track_caller]
fn notices(args: &[&str]) -> Vec<String> {
    texts(run(parse_with(args, &[])).1)
}

/// Without the two notices that nearly every run has.
fn texts(notices: Vec<Notice>) -> Vec<String> {
    let is_common = |n: &Notice| matches!(n, Notice::DefaultName | Notice::FileOnly { .. });
    notices.iter().filter(|notice| !is_common(notice)).map(Notice::to_string).collect()
}

#[track_caller]
fn refused(outcome: Result<Outcome, Error>) -> (String, u8) {
    let error = outcome.expect_err("expected an error");
    (error.to_string(), error.exit_code())
}

#[track_caller]
fn error(args: &[&str]) -> String {
    let (text, exit_code) = refused(parse_with(args, &[]));
    assert_eq!(exit_code, 1, "{text}");
    text
}

#[track_caller]
fn usage_error(args: &[&str]) -> String {
    let (text, exit_code) = refused(parse_with(args, &[]));
    assert_eq!(exit_code, 2, "{text}");
    text
}

#[track_caller]
fn file_error(text: &str) -> String {
    let (text, exit_code) = refused(parse_file(text));
    assert_eq!(exit_code, 1, "{text}");
    text
}

fn strings(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

fn cluster(config: &Config) -> Vec<String> {
    config.initial_cluster.iter().map(|(name, url)| format!("{name}={url}")).collect()
}

// ---- the table ----

#[test]
fn the_table_is_that_of_etcd() {
    let mut rows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in ETCD_FLAGS.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [flag, _, _, _, category] = columns[..] else { panic!("five columns: {line}") };
        if category != "config-file-key" {
            let name = flag.strip_prefix("--").expect("a flag begins with two dashes");
            assert!(rows.insert(name, columns).is_none(), "{name} stands twice in the facts");
        }
    }
    for flag in FLAGS {
        if matches!(flag.category, Category::Flotilla | Category::FileOnly) {
            assert!(!rows.contains_key(flag.name), "{} is etcd's own", flag.name);
            continue;
        }
        let row = rows.remove(flag.name).unwrap_or_else(|| panic!("{} is unknown", flag.name));
        let [_, variable, kind, default, category] = row[..] else { unreachable!() };
        let first_word = kind.split(' ').next().unwrap_or_default();
        assert!(flag.kind.is_called(first_word), "{} is of type {kind}", flag.name);
        // Off in etcd.
        let default = if flag.name == "corrupt-check-time" { "1h0m0s" } else { default };
        assert_eq!(flag.default, default, "the default of {}", flag.name);
        assert_eq!(flag.category.as_str(), category, "the category of {}", flag.name);
        if !variable.is_empty() {
            assert_eq!(flag.variable(), variable);
        }
        assert_eq!(flag.state == State::Ignored, category == "ignored", "{}", flag.name);
    }
    assert!(rows.is_empty(), "flags missing from the table: {:?}", rows.keys());
}

#[test]
fn the_console_listens_on_loopback_unless_the_operator_says_otherwise() {
    assert_eq!(config(&[]).listen_console_urls, []);
    for url in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "unix://console:1"] {
        let flag = format!("--listen-console-urls={url}");
        assert_eq!(strings(&config(&[&flag]).listen_console_urls), [url]);
    }
    for host in ["0.0.0.0", "10.0.0.1", "[::]"] {
        let flag = format!("--listen-console-urls=http://127.0.0.1:2,http://{host}:1");
        let text = error(&[&flag]);
        assert!(text.contains(&format!("http://{host}:1, which is not on loopback")), "{text}");
        assert!(text.contains("--console-allow-public"), "{text}");
        let allowed = config(&[&flag, "--console-allow-public"]);
        assert_eq!(allowed.listen_console_urls.len(), 2);
    }
    let text = error(&["--listen-console-urls=http://console.example:1", "--console-allow-public"]);
    assert!(text.contains("expected IP in URL"), "{text}");
    let text = error(&["--listen-console-urls=https://127.0.0.1:1"]);
    assert!(text.contains("cannot listen on TLS for 127.0.0.1:1"), "{text}");
    // By the environment and a file as well.
    let of_environment = [("ETCD_LISTEN_CONSOLE_URLS", "http://127.0.0.1:1")];
    let (by_environment, _) = run(parse_with(&[], &of_environment));
    let (by_file, _) = run(parse_file("listen-console-urls: http://127.0.0.1:1"));
    assert_eq!(by_environment.listen_console_urls, by_file.listen_console_urls);
    assert_eq!(by_file.listen_console_urls.len(), 1);
}

#[test]
fn the_table_names_each_flag_once_and_reads_every_default() {
    let names: BTreeSet<&str> = FLAGS.iter().map(|flag| flag.name).collect();
    assert_eq!(names.len(), FLAGS.len());
    for flag in FLAGS {
        assert!(flag.kind.read_text(flag.default).is_ok(), "the default of {}", flag.name);
    }
}

#[test]
fn a_default_written_out_changes_nothing() {
    let implicit = Config::default();
    for flag in FLAGS.iter().filter(|flag| flag.has_flag()) {
        // The first two answer something else; client addresses ask for one another.
        if ["version", "config-file", "listen-client-urls"].contains(&flag.name) {
            continue;
        }
        let explicit = config(&[&format!("--{}={}", flag.name, flag.default)]);
        assert_eq!(explicit, implicit, "--{}", flag.name);
    }
}

#[test]
fn nested_keys_of_a_file_reach_their_flags() {
    for line in ETCD_FLAGS.lines().skip(1) {
        let Some((section, key)) = line.split('\t').next().and_then(|name| name.split_once('.'))
        else {
            continue;
        };
        if !line.ends_with("config-file-key") {
            continue;
        }
        let value = if key.contains("allowed") { "[x]" } else { "x" };
        let value = if matches!(key.rsplit('-').next(), Some("auth" | "tls" | "verification")) {
            "true"
        } else {
            value
        };
        let outcome = parse_file(&format!("{section}:\n  {key}: {value}\n"));
        let is_unknown = match outcome {
            Ok(Outcome::Run(_, notices)) => {
                notices.iter().any(|notice| matches!(notice, Notice::UnknownKey { .. }))
            }
            Ok(_) => true,
            // Half of a pair of files, which is a known key.
            Err(error) => {
                !matches!(error, Error::HalfKeyPair { .. } | Error::HalfClientKeyPair { .. })
            }
        };
        assert!(!is_unknown, "{section}.{key}");
    }
}

#[test]
fn the_list_of_flags_has_them_all() {
    let list = flag_list();
    assert!(list.starts_with(USAGE));
    for flag in FLAGS {
        let is_listed = list.contains(&format!("\n  --{} '", flag.name));
        let is_hidden = matches!(flag.category, Category::Ignored | Category::FileOnly);
        assert_eq!(is_listed, !is_hidden, "--{}", flag.name);
    }
}

// ---- defaults ----

#[test]
fn without_flags_it_is_one_node_named_default() {
    let (config, notices) = run(parse_with(&[], &[]));
    assert_eq!(config, Config::default());
    assert_eq!(notices, [Notice::DefaultName]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.wal_dir, PathBuf::from("default.etcd/member/wal"));
    assert_eq!(strings(&config.listen_client_urls), ["http://localhost:2379"]);
    assert_eq!(strings(&config.advertise_client_urls), ["http://localhost:2379"]);
    assert_eq!(strings(&config.listen_peer_urls), ["http://localhost:2380"]);
    assert_eq!(strings(&config.initial_advertise_peer_urls), ["http://localhost:2380"]);
    assert_eq!(cluster(&config), ["default=http://localhost:2380"]);
    assert_eq!(config.initial_cluster_state, InitialClusterState::New);
    assert_eq!(config.initial_cluster_token, "etcd-cluster");
    assert!(config.listen_client_http_urls.is_empty() && config.listen_metrics_urls.is_empty());
    assert_eq!(config.heartbeat_interval, Duration::from_millis(100));
    assert_eq!(config.election_timeout, Duration::from_secs(1));
    assert!(config.pre_vote && config.strict_reconfig_check);
    assert_eq!((config.snapshot_count, config.snapshot_catchup_entries), (10_000, 5_000));
    assert_eq!(config.quota_backend_bytes, Some(2_147_483_648));
    assert_eq!((config.max_txn_ops, config.max_request_bytes), (128, 1_572_864));
    assert_eq!((config.max_concurrent_streams, config.max_learners), (u32::MAX, 1));
    let keepalive = config.grpc_keepalive.expect("the node pings its clients");
    assert_eq!(keepalive.interval, Duration::from_secs(7200));
    assert_eq!(keepalive.timeout, Duration::from_secs(20));
    assert_eq!(config.grpc_keepalive_min_time, Duration::from_secs(5));
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.compaction_batch_limit, 1_000);
    assert_eq!(config.compaction_sleep_interval, Duration::from_millis(10));
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(600));
    assert_eq!(config.warning_apply_duration, Duration::from_millis(100));
    assert_eq!(config.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Json));
    assert_eq!(config.log_outputs, [LogOutput::Stderr]);
    assert_eq!((config.cors, config.host_whitelist), (AllowList::Any, AllowList::Any));
    assert_eq!((config.wal_flush_delay, config.workers), (Duration::ZERO, 0));
    assert!(!config.unsafe_no_fsync);
}

#[test]
fn the_name_shapes_what_was_not_given() {
    let config = config(&["--name", "a", "--initial-advertise-peer-urls=http://b:2,http://a:1"]);
    assert_eq!(config.data_dir, PathBuf::from("a.etcd"));
    assert_eq!(cluster(&config), ["a=http://a:1", "a=http://b:2"]);
    assert!(config.check_first_start().is_ok());
    let config = run(parse_with(&["--name=a", "--data-dir=/d", "--wal-dir=/w"], &[])).0;
    assert_eq!((config.data_dir, config.wal_dir), ("/d".into(), "/w".into()));
    assert_eq!(notices(&["--name=a"]), [""; 0]);
}

#[test]
fn limits_follow_by_the_arithmetic_of_etcd() {
    let limits = Config::default().limits();
    assert_eq!(limits.election_ticks, 10);
    assert_eq!(limits.request_timeout, Duration::from_secs(7));
    assert_eq!(limits.leaderless_stream_timeout, Duration::from_secs(3));
    assert_eq!(limits.lease_ttl_seconds_min, 2);
    assert_eq!(limits.message_bytes_max, 2_097_152);
    assert_eq!(limits.answer_bytes_max, 2_147_483_647);
    // 1430 ms are 5 whole ticks of 285 ms; one and a half times that are 7 ticks, or 1995 ms.
    let limits = config(&["--heartbeat-interval=285", "--election-timeout=1430"]).limits();
    assert_eq!(limits.election_ticks, 5);
    assert_eq!(limits.request_timeout, Duration::from_millis(7850));
    assert_eq!(limits.lease_ttl_seconds_min, 2);
    let large = config(&["--max-request-bytes=29360128"]).limits();
    assert_eq!(large.message_bytes_max, (28 << 20) + (512 << 10));
    let quick = config(&["--heartbeat-interval=1", "--election-timeout=50000"]).limits();
    assert_eq!((quick.election_ticks, quick.lease_ttl_seconds_min), (50_000, 75));
}

// ---- the command line ----

#[test]
fn flags_are_written_as_in_go() {
    for args in [&["--name=a"][..], &["-name=a"], &["--name", "a"], &["-name", "a"]] {
        assert_eq!(config(args).name, "a");
    }
    assert_eq!(config(&["--name=a=b"]).name, "a=b");
    assert_eq!(config(&["--name", "--pre-vote"]).name, "--pre-vote");
    assert_eq!(config(&["--name=a", "--name=b"]).name, "b");
    assert!(!config(&["--pre-vote=F"]).pre_vote);
    assert!(config(&["--unsafe-no-fsync"]).unsafe_no_fsync);
    assert_eq!(config(&["--max-txn-ops=0x10", "--"]).max_txn_ops, 16);
    assert_eq!(config(&["--election-timeout=5_000"]).election_timeout, Duration::from_secs(5));
    let long = config(&["--grpc-keepalive-interval=1h30m", "--grpc-keepalive-timeout=1.5s"]);
    let keepalive = long.grpc_keepalive.expect("pings are on");
    assert_eq!(keepalive.interval, Duration::from_secs(5400));
    assert_eq!(keepalive.timeout, Duration::from_millis(1500));
    assert_eq!(config(&["--grpc-keepalive-timeout=0"]).grpc_keepalive, None);
}

#[test]
fn a_line_that_is_no_line_of_flags_is_a_usage_error() {
    let cases: [(&[&str], &str); 16] = [
        (&["--bogus=1"], "flag provided but not defined: -bogus"),
        (&["-bogus"], "flag provided but not defined: -bogus"),
        (&["--name"], "flag needs an argument: -name"),
        (&["---name"], "bad flag syntax: ---name"),
        (&["--=x"], "bad flag syntax: --=x"),
        (
            &["--heartbeat-interval=abc"],
            "invalid value \"abc\" for flag -heartbeat-interval: parse error",
        ),
        (
            &["--heartbeat-interval="],
            "invalid value \"\" for flag -heartbeat-interval: parse error",
        ),
        (&["--max-txn-ops=-1"], "invalid value \"-1\" for flag -max-txn-ops: parse error"),
        (
            &["--max-txn-ops=99999999999999999999"],
            "invalid value \"99999999999999999999\" for flag -max-txn-ops: value out of range",
        ),
        (
            &["--max-concurrent-streams=99999999999"],
            "invalid value \"99999999999\" for flag -max-concurrent-streams: \
             strconv.ParseUint: parsing \"99999999999\": value out of range",
        ),
        (
            &["--max-concurrent-streams=x"],
            "invalid value \"x\" for flag -max-concurrent-streams: \
             strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        (
            &["--grpc-keepalive-timeout=5"],
            "invalid value \"5\" for flag -grpc-keepalive-timeout: parse error",
        ),
        (
            &["--initial-cluster-state=foo"],
            "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
        ),
        (
            &["--listen-peer-urls=,http://localhost:1"],
            "invalid value \",http://localhost:1\" for flag -listen-peer-urls: \
             URL scheme must be http, https, unix, or unixs: ",
        ),
        (
            &["--listen-peer-urls=http://localhost"],
            "invalid value \"http://localhost\" for flag -listen-peer-urls: \
             URL address does not have the form \"host:port\": http://localhost",
        ),
    ];
    for (args, text) in cases {
        assert_eq!(usage_error(args), text, "{args:?}");
    }
    let report = parse_with(&["--bogus"], &[]).expect_err("an error").report();
    assert!(report.starts_with("flag provided but not defined: -bogus\nUsage:\n"), "{report}");
}

#[test]
fn flags_that_left_etcd_with_3_7_are_unknown() {
    for name in ["discovery", "discovery-proxy", "experimental-corrupt-check-time"] {
        let expected = format!("flag provided but not defined: -{name}");
        assert_eq!(usage_error(&[&format!("--{name}=x")]), expected);
    }
}

#[test]
fn flags_of_the_second_api_name_the_way_of_the_third() {
    for (arg, instead) in [
        ("--enable-v2=true", "gRPC, or JSON under /v3/"),
        ("--enable-v2", "gRPC, or JSON under /v3/"),
        ("--proxy=on", "gRPC, or JSON under /v3/"),
        ("--discovery=https://d/x", "use --discovery-endpoints and --discovery-token"),
    ] {
        let error = parse_with(&[arg], &[]).expect_err("the flag is unknown");
        let (report, code) = (error.report(), error.exit_code());
        let name = arg.trim_start_matches('-').split('=').next().expect("a name");
        let expected = format!(
            "flag provided but not defined: -{name}\n--{name} belongs to the v2 API, which is not \
             served: "
        );
        assert!(report.starts_with(&expected) && report.contains(instead), "{report}");
        assert_eq!(code, 2);
    }
}

#[test]
fn keys_of_files_are_no_flags() {
    let name = "client-transport-security.allowed-cn";
    assert!(usage_error(&[&format!("--{name}=x")]).starts_with("flag provided but not defined"));
}

#[test]
fn an_argument_that_is_no_flag_is_refused() {
    assert_eq!(error(&["extra"]), "\"extra\" is not a valid flag");
    assert_eq!(error(&["-"]), "\"-\" is not a valid flag");
    assert_eq!(error(&["--", "--name"]), "\"--name\" is not a valid flag");
    assert_eq!(error(&["--pre-vote", "false"]), "\"false\" is not a valid flag");
    let report = parse_with(&["extra"], &[]).expect_err("an error").report();
    assert_eq!(
        report,
        "error verifying flags, \"extra\" is not a valid flag. See 'flotilla --help'."
    );
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_no_text_is_a_usage_error() {
    use std::os::unix::ffi::OsStringExt;
    let arg = OsString::from_vec(b"--name=\xff".to_vec());
    let (text, exit_code) = refused(parse([arg], &BTreeMap::new(), &|_| Ok(String::new())));
    assert!(text.starts_with("argument is not UTF-8"), "{text}");
    assert_eq!(exit_code, 2);
}

#[test]
fn help_and_version_win_over_what_follows_from_the_flags() {
    for args in [&["-h"][..], &["--help"], &["--name=a", "-help", "--bogus"]] {
        assert!(matches!(parse_with(args, &[]), Ok(Outcome::Help)), "{args:?}");
    }
    let outcome = parse_with(&["--version", "--election-timeout=1"], &[("ETCD_NAME", "a")]);
    assert!(matches!(outcome, Ok(Outcome::Version)));
    assert_eq!(usage_error(&["--bogus", "-h"]), "flag provided but not defined: -bogus");
    assert_eq!(config(&["--version=false"]), Config::default());
}

// ---- the environment ----

#[test]
fn variables_stand_in_for_flags() {
    let env = [("ETCD_NAME", "a"), ("ETCD_ELECTION_TIMEOUT", "2000"), ("PATH", "/bin")];
    let (config, notices) = run(parse_with(&["--heartbeat-interval=50"], &env));
    assert_eq!((config.name.as_str(), config.election_timeout), ("a", Duration::from_secs(2)));
    assert!(notices.is_empty(), "{notices:?}");
    let env = [("ETCD_WAL_FLUSH_DELAY", "2ms"), ("ETCD_WORKERS", "3")];
    let config = run(parse_with(&[], &env)).0;
    assert_eq!((config.wal_flush_delay, config.workers), (Duration::from_millis(2), 3));
}

#[test]
fn a_flag_and_its_variable_together_are_refused() {
    let text = "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding \
                command-line flag (either unset environment variable or disable flag)";
    for value in ["a", "b", ""] {
        let outcome = parse_with(&["--name=b"], &[("ETCD_NAME", value)]);
        assert_eq!(refused(outcome), (text.to_owned(), 1));
    }
}

#[test]
fn a_bad_variable_is_refused_by_its_name() {
    let outcome = parse_with(&[], &[("ETCD_HEARTBEAT_INTERVAL", "x")]);
    let text = "invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL: parse error".to_owned();
    assert_eq!(refused(outcome), (text, 1));
}

#[test]
fn strange_variables_are_only_reported() {
    let env = [
        ("ETCDCTL_API", "3"),
        ("ETCD_DATA_DIR", ""),
        ("ETCD_DISCOVERY", "x"),
        ("ETCD_PORT_2379_TCP", "tcp://10.0.0.1:2379"),
        ("ETCD_VERSION", "true"),
    ];
    let (config, notices) = run(parse_with(&[], &env));
    assert_eq!(config, Config::default());
    let expected = [
        "environment variable ETCD_DATA_DIR is empty and has no effect",
        "unrecognized environment variable ETCD_DISCOVERY",
        "unrecognized environment variable ETCD_PORT_2379_TCP",
        "unrecognized environment variable ETCD_VERSION",
    ];
    assert_eq!(texts(notices), expected);
}

// ---- the file ----

#[test]
fn a_file_replaces_flags_and_variables() {
    let asked = RefCell::new(Vec::new());
    let read_file = |path: &Path| {
        asked.borrow_mut().push(path.to_owned());
        Ok("name: from-file\n".to_owned())
    };
    let args = ["--config-file", "/etc/c.yaml", "--name=flag", "--election-timeout=1"];
    let env = variables(&[("ETCD_NAME", "variable"), ("ETCD_CONFIG_FILE", "/other")]);
    let (config, notices) = run(parse(args.iter().map(OsString::from), &env, &read_file));
    let expected = Config { name: "from-file".to_owned(), ..Config::default() };
    assert_eq!(config.name, expected.name);
    assert_eq!(config.election_timeout, expected.election_timeout);
    assert_eq!(config.data_dir, PathBuf::from("from-file.etcd"));
    assert_eq!(notices, [Notice::FileOnly { path: "/etc/c.yaml".into() }]);
    let (config, _) = run(parse([], &env, &read_file));
    assert_eq!(config.name, "from-file");
    assert_eq!(*asked.borrow(), [PathBuf::from("/etc/c.yaml"), PathBuf::from("/other")]);
}

#[test]
fn a_file_has_yaml_types() {
    let text = "
name: infra0
data-dir: /var/lib/x
Heartbeat-Interval: 200
election-timeout: 2000
pre-vote: no
strict-reconfig-check: false
grpc-keepalive-min-time: 10000000000
quota-backend-bytes: -1
max-concurrent-streams: 7
auto-compaction-mode: revision
auto-compaction-retention: '1000'
listen-client-urls: http://127.0.0.1:1,http://127.0.0.1:2
initial-cluster: infra1=http://b:1,infra0=http://a:1
initial-cluster-state: existing
log-outputs: [stderr, /tmp/log]
host-whitelist: a,b
cors: 'http://a:1'
socket-options:
  reuse-port: true
wal-flush-delay: 1000000
snapshot-count: ~
";
    let (config, notices) = run(parse_file(text));
    assert_eq!(texts(notices), [""; 0]);
    assert_eq!(config.name, "infra0");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/x"));
    assert_eq!(config.heartbeat_interval, Duration::from_millis(200));
    assert!(!config.pre_vote && !config.strict_reconfig_check);
    assert_eq!(config.grpc_keepalive_min_time, Duration::from_secs(10));
    assert_eq!(config.quota_backend_bytes, None);
    assert_eq!(config.max_concurrent_streams, 7);
    assert_eq!(config.auto_compaction, Some(AutoCompaction::Revisions(1000)));
    assert_eq!(cluster(&config), ["infra0=http://a:1", "infra1=http://b:1"]);
    assert_eq!(config.initial_cluster_state, InitialClusterState::Existing);
    assert_eq!(config.log_outputs, [LogOutput::File("/tmp/log".into()), LogOutput::Stderr]);
    assert!(config.host_whitelist.allows("a") && !config.host_whitelist.allows("c"));
    assert!(config.cors.allows("http://a:1") && !config.cors.allows("http://a:2"));
    assert!(config.socket_reuse_port && !config.socket_reuse_address);
    assert_eq!(config.wal_flush_delay, Duration::from_millis(1));
    assert_eq!(config.snapshot_count, 10_000);
    // Unlike on the command line, listening elsewhere does not ask for advertised addresses.
    assert_eq!(strings(&config.advertise_client_urls), ["http://localhost:2379"]);
}

#[test]
fn a_file_may_be_json_or_empty() {
    let (config, _) = run(parse_file("{\"name\": \"a\",\n\t\"election-timeout\": 2000}"));
    assert_eq!((config.name.as_str(), config.election_timeout), ("a", Duration::from_secs(2)));
    for text in ["", "# nothing\n", "{}", "client-transport-security:\n", "cors: ''\n"] {
        assert_eq!(run(parse_file(text)).0, Config::default(), "{text:?}");
    }
}

/// The keys of the sample file that comes with etcd, which people copy and keep.
#[test]
fn a_file_made_from_the_sample_of_etcd_starts() {
    let text = "
name: 'default'
data-dir:
wal-dir:
snapshot-count: 10000
max-snapshots: 5
max-wals: 5
cors:
initial-advertise-peer-urls: http://localhost:2380
discovery:
discovery-fallback: 'proxy'
discovery-proxy:
discovery-srv:
initial-cluster:
enable-pprof: true
proxy: 'off'
client-transport-security:
  cert-file:
  client-cert-auth: false
  auto-tls: false
peer-transport-security:
  trusted-ca-file:
  client-cert-auth: false
  allowed-cn:
self-signed-cert-validity: 1
logger: zap
log-outputs: [stderr]
force-new-cluster: false
cipher-suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
tls-max-version: 'TLS1.3'
";
    let (config, notices) = run(parse_file(text));
    assert_eq!(config, Config::default());
    let unknown: Vec<&Notice> =
        notices.iter().filter(|notice| matches!(notice, Notice::UnknownKey { .. })).collect();
    let key = |key: &str| Notice::UnknownKey { key: key.to_owned() };
    assert_eq!(unknown, [&key("discovery"), &key("discovery-proxy"), &key("proxy")]);
}

#[test]
fn a_bad_file_is_refused_with_its_name_and_key() {
    let cases = [
        (
            "heartbeat-interval: x",
            "\"heartbeat-interval\": expected a whole number, not negative, found a text",
        ),
        (
            "heartbeat-interval: 1.5",
            "\"heartbeat-interval\": expected a whole number, not negative, found a number",
        ),
        (
            "heartbeat-interval: -1",
            "\"heartbeat-interval\": expected a whole number, not negative, found a number",
        ),
        ("name: 12", "\"name\": expected a text, found a number"),
        ("name: [a]", "\"name\": expected a text, found a list"),
        ("pre-vote: 'true'", "\"pre-vote\": expected true or false, found a text"),
        (
            "grpc-keepalive-min-time: 5s",
            "\"grpc-keepalive-min-time\": expected a whole number of nanoseconds, found a text",
        ),
        ("max-concurrent-streams: 4294967296", "expected a whole number below 4294967296"),
        ("log-outputs: [1]", "\"log-outputs\": expected a list of texts, found a list"),
        (
            "listen-client-urls: foo",
            "\"listen-client-urls\": URL scheme must be http, https, unix, or unixs: foo",
        ),
        ("initial-cluster-state: foo", "\"initial-cluster-state\": invalid value"),
        ("feature-gates: Bogus=true", "\"feature-gates\": unrecognized feature gate: Bogus"),
        ("- a", "expected a mapping from flag names to values"),
        ("1: a", "expected a mapping from flag names to values"),
        ("name: a\nName: b", "\"name\" is given twice"),
        ("peer-transport-security: x", "\"peer-transport-security\" must be a mapping"),
        (
            "client-transport-security: {auto-tls: 1}",
            "\"client-transport-security.auto-tls\": expected true or false",
        ),
    ];
    for (text, expected) in cases {
        let error = file_error(text);
        assert!(error.starts_with("configuration file c.yaml: "), "{error}");
        assert!(error.contains(expected), "{text:?} gave {error:?}");
    }
    for text in ["a: [b: c", "name: a\nname: b"] {
        assert!(file_error(text).starts_with("configuration file c.yaml: "), "{text:?}");
    }
    let missing = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let outcome = parse(["--config-file=/x".into()], &BTreeMap::new(), &missing);
    assert!(refused(outcome).0.starts_with("cannot read the configuration file /x: "));
}

#[test]
fn values_of_a_file_are_checked_like_flags() {
    assert_eq!(
        file_error("election-timeout: 1"),
        "--election-timeout[1ms] should be at least as 5 times as --heartbeat-interval[100ms]"
    );
    assert_eq!(
        file_error("compact-hash-check-time: 0"),
        "--compact-hash-check-time must be >0 (set to 0ns)"
    );
}

// ---- what is not served, or changes nothing ----

#[test]
fn what_would_be_less_than_asked_for_is_refused() {
    let flag = "--discovery-insecure-skip-tls-verify";
    let text = error(&[flag]);
    assert!(text.starts_with(&format!("{flag} is refused rather than ignored: ")), "{text}");
    let outcome = parse_with(&[], &[("ETCD_DISCOVERY_INSECURE_SKIP_TLS_VERIFY", "true")]);
    assert!(refused(outcome).0.starts_with(&format!("{flag} is refused")));
    let files = [
        ("discovery-insecure-skip-tls-verify: true", "discovery-insecure-skip-tls-verify"),
        ("discovery-config: {endpoints: [a]}", "discovery-config"),
    ];
    for (text, key) in files {
        assert!(file_error(text).starts_with(&format!("{key} is refused")), "{text}");
    }
}

#[test]
fn a_new_cluster_is_forced_by_flag_variable_and_file() {
    assert!(!config(&[]).force_new_cluster);
    assert!(config(&["--force-new-cluster"]).force_new_cluster);
    let outcome = parse_with(&[], &[("ETCD_FORCE_NEW_CLUSTER", "true")]);
    assert!(run(outcome).0.force_new_cluster);
    assert!(run(parse_file("force-new-cluster: true")).0.force_new_cluster);
    let config = config(&["--force-new-cluster", "--give-up-lost-ranges"]);
    assert!(config.force_new_cluster && config.give_up_lost_ranges);
}

// ---- TLS ----

const CERT: [&str; 2] = ["--cert-file=a.pem", "--key-file=a.key"];
const PEER_CERT: [&str; 2] = ["--peer-cert-file=p.pem", "--peer-key-file=p.key"];
const HTTPS: [&str; 2] =
    ["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1"];

#[test]
fn https_needs_a_certificate() {
    assert_eq!(
        error(&HTTPS),
        "TLS key/cert (--cert-file, --key-file) must be provided for client url \
         https://127.0.0.1:1 with HTTPS scheme"
    );
    let of_address = "cannot listen on TLS for 127.0.0.1:2: KeyFile and CertFile are not presented";
    for args in [
        "--listen-peer-urls=http://127.0.0.1:1,https://127.0.0.1:2",
        "--listen-metrics-urls=https://127.0.0.1:2",
    ] {
        assert_eq!(error(&[args]), of_address);
    }
    // Each side has certificates of its own.
    let args = [&HTTPS[..], &PEER_CERT].concat();
    assert!(error(&args).starts_with("TLS key/cert"));
    assert!(parse_with(&[&HTTPS[..], &CERT].concat(), &[]).is_ok());
    assert!(parse_with(&[&HTTPS[..], &["--auto-tls"]].concat(), &[]).is_ok());
    let args = [&["--listen-peer-urls=https://127.0.0.1:2"][..], &PEER_CERT].concat();
    assert!(parse_with(&args, &[]).is_ok());
    // Something in front of the node may speak TLS to clients.
    assert!(parse_with(&["--advertise-client-urls=https://a:1"], &[]).is_ok());
}

#[test]
fn wrong_combinations_of_tls_are_told_in_the_words_of_etcd() {
    let cases: [(&[&str], &str); 12] = [
        (&["--key-file=a"], "KeyFile and CertFile must both be present[key: a, cert: ]"),
        (&["--peer-cert-file=a"], "KeyFile and CertFile must both be present[key: , cert: a]"),
        (
            &["--client-cert-file=a"],
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: a]",
        ),
        (
            &["--peer-client-key-file=a"],
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: a, cert: ]",
        ),
        (
            &["--auto-tls", "--self-signed-cert-validity=0"],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (
            &["--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b,c"],
            "AllowedCNs and AllowedHostnames are mutually exclusive \
             (cns=[\"a\"], hostnames=[\"b\" \"c\"])",
        ),
        (
            &["--tls-min-version=TLS1.1"],
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-max-version=foo"],
            "unexpected TLS version \"foo\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (&["--cipher-suites=foo"], "unexpected TLS cipher suite \"foo\""),
        (
            &["--tls-min-version=TLS1.3", "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            &[CERT[0], CERT[1], "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
            "http2: TLSConfig.CipherSuites is missing an HTTP/2-required AES_128_GCM_SHA256 cipher \
             (need at least one of TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or \
             TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)",
        ),
    ];
    for (args, expected) in cases {
        assert_eq!(error(args), expected);
    }
}

#[test]
fn what_tls_leaves_out_is_reported() {
    let listen = ["--listen-peer-urls=http://127.0.0.1:2"];
    let args = [&HTTPS[..], &CERT, &PEER_CERT, &listen, &["--auto-tls"]].concat();
    let suites = "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA";
    let given = notices(&[&args[..], &[suites]].concat());
    let expected = [
        "ignoring client auto TLS since certs given",
        "the cipher suite TLS_RSA_WITH_RC4_128_SHA cannot be chosen and is left out",
        "scheme is http or unix while key and cert files are present; ignoring key and cert files \
         for the peer URL http://127.0.0.1:2",
    ];
    for notice in expected {
        assert!(given.iter().any(|given| given == notice), "{notice}: {given:#?}");
    }
}

#[test]
fn both_sides_of_tls_are_read() {
    let args = [
        "--cert-file=a.pem",
        "--key-file=a.key",
        "--trusted-ca-file=ca",
        "--client-crl-file=crl",
        "--client-cert-auth",
        "--client-cert-allowed-hostname=h1,h2",
        "--peer-auto-tls",
        "--peer-cert-allowed-cn=cn",
        "--peer-skip-client-san-verification",
        "--self-signed-cert-validity=3",
        "--tls-max-version=TLS1.2",
    ];
    let Ok(Outcome::Run(config, _)) = parse_with(&args, &[]) else { panic!("it is refused") };
    let (client, peer) = (&config.client_tls, &config.peer_tls);
    let pair = KeyPair { cert: "a.pem".into(), key: "a.key".into() };
    assert_eq!((&client.server, &client.client), (&Some(pair), &None));
    assert_eq!(client.trusted_ca.as_deref(), Some(Path::new("ca")));
    assert_eq!(client.crl.as_deref(), Some(Path::new("crl")));
    assert!(client.client_cert_auth && !client.is_auto && client.is_on());
    assert_eq!(client.allowed, AllowedNames::Hosts(vec!["h1".to_owned(), "h2".to_owned()]));
    assert_eq!((client.min_version, client.max_version), (TlsVersion::Tls12, TlsVersion::Tls12));
    assert!(peer.is_auto && peer.is_on() && peer.skip_client_san_verification);
    assert_eq!(peer.allowed, AllowedNames::CommonNames(vec!["cn".to_owned()]));
    assert_eq!((&peer.server, peer.validity_years), (&None, 3));
    let text = "client-transport-security: {allowed-cn: [a], skip-client-san-verification: true}";
    let Ok(Outcome::Run(config, _)) = parse_file(text) else { panic!("it is refused") };
    assert_eq!(config.client_tls.allowed, AllowedNames::CommonNames(vec!["a".to_owned()]));
    assert!(config.client_tls.skip_client_san_verification);
}

#[test]
fn flags_without_meaning_are_reported_once_each() {
    let args = ["--logger=zap", "--enable-pprof", "--max-wals=3", "--max-wals=4", "--memory-mlock"];
    let expected = [
        "--max-wals has no effect: log segments are deleted once not needed",
        "--memory-mlock has no effect: memory is not locked",
        "--enable-pprof has no effect: profiles of the Go runtime do not exist here",
        "--logger has no effect: there is one logger",
    ];
    assert_eq!(notices(&args), expected);
    let gates = notices(&["--feature-gates=FastLeaseKeepAlive=false"]);
    assert!(gates[0].starts_with("--feature-gates has no effect"), "{gates:?}");
    let (check, notices) = run(parse_with(&["--feature-gates=InitialCorruptCheck=true"], &[]));
    assert_eq!(check.corrupt_check_at_start, CheckAtStart::Before);
    assert!(texts(notices).is_empty());
}

#[test]
fn members_are_compared_unless_the_operator_says_otherwise() {
    let at_start =
        |gates: &str| config(&[&format!("--feature-gates={gates}")]).corrupt_check_at_start;
    assert_eq!(config(&[]).corrupt_check_at_start, CheckAtStart::After);
    assert_eq!(at_start("CompactHashCheck=true"), CheckAtStart::After);
    assert_eq!(at_start("AllAlpha=true"), CheckAtStart::Before);
    assert_eq!(at_start("InitialCorruptCheck=false"), CheckAtStart::Never);
    let checks = |args: &[&str]| config(args).corrupt_checks;
    let usual = checks(&[]);
    assert_eq!(usual.every, Duration::from_secs(3600));
    assert_eq!(usual.after_compactions, Some(Duration::from_secs(60)));
    assert!(checks(&["--corrupt-check-time=0"]).every.is_zero());
    assert_eq!(checks(&["--feature-gates=CompactHashCheck=false"]).after_compactions, None);
    let often = checks(&["--compact-hash-check-time=5s"]).after_compactions;
    assert_eq!(often, Some(Duration::from_secs(5)));
}

#[test]
fn flags_of_long_ago_stand_alone_or_with_any_value() {
    let dropped = [
        "--snapshot is no longer a setting of etcd and is ignored",
        "--v is no longer a setting of etcd and is ignored",
    ];
    assert_eq!(notices(&["--snapshot", "--v=3"]), dropped);
    assert_eq!(error(&["--snapshot", "5"]), "\"5\" is not a valid flag");
}

#[test]
fn flags_without_meaning_still_refuse_what_etcd_refuses() {
    assert_eq!(error(&["--logger=foo"]), "unknown logger option \"foo\"");
    assert_eq!(
        error(&["--discovery-fallback=proxy"]),
        "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\""
    );
    assert!(
        error(&["--compact-hash-check-time=-1s"]).starts_with("--compact-hash-check-time must")
    );
    assert!(usage_error(&["--v2-deprecation=x"]).contains("-v2-deprecation: invalid value"));
    assert!(usage_error(&["--feature-gates=X=true"]).ends_with("unrecognized feature gate: X"));
}

// ---- values that do not fit together ----

#[test]
fn times_of_elections_are_checked() {
    let cases: [(&[&str], &str); 5] = [
        (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            &["--election-timeout=499"],
            "--election-timeout[499ms] should be at least as 5 times as \
             --heartbeat-interval[100ms]",
        ),
        (
            &["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            &["--heartbeat-interval=18446744073709551615"],
            "--election-timeout[1000ms] should be at least as 5 times as \
             --heartbeat-interval[18446744073709551615ms]",
        ),
    ];
    for (args, text) in cases {
        assert_eq!(error(args), text);
    }
    for ms in ["500", "50000"] {
        assert!(parse_with(&[&format!("--election-timeout={ms}")], &[]).is_ok());
    }
}

#[test]
fn addresses_are_checked_for_their_use() {
    let advertise = "--advertise-client-urls=http://a:1";
    assert_eq!(
        error(&["--listen-client-urls=http://foo:1", advertise]),
        "expected IP in URL for binding (http://foo:1)"
    );
    for name in ["listen-peer-urls", "listen-metrics-urls", "listen-client-http-urls"] {
        assert!(
            error(&[&format!("--{name}=http://:1")]).starts_with("expected IP in URL"),
            "{name}"
        );
        assert!(parse_with(&[&format!("--{name}=http://[::1]:1,http://0.0.0.0:2")], &[]).is_ok());
    }
    assert_eq!(
        error(&["--listen-client-urls=http://127.0.0.1:1"]),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
    let outcome = parse_with(&[advertise], &[("ETCD_LISTEN_CLIENT_URLS", "unix:///run/x")]);
    assert_eq!(strings(&run(outcome).0.listen_client_urls), ["unix:///run/x"]);
    assert_eq!(
        error(&["--initial-advertise-peer-urls=http://:2380"]),
        "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" \
         (unexpected empty host (http://:2380))"
    );
    assert!(error(&["--advertise-client-urls=http://:2380"]).contains("unixs:/path/to/socket"));
    assert!(parse_with(&["--advertise-client-urls=unix:///run/x"], &[]).is_ok());
    assert_eq!(error(&["--listen-peer-urls="]), "--listen-peer-urls needs at least one URL");
    let urls =
        config(&["--listen-peer-urls=http://127.0.0.1:2, http://127.0.0.1:1,http://127.0.0.1:2"]);
    assert_eq!(strings(&urls.listen_peer_urls), ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
}

#[test]
fn the_first_members_are_read_from_one_text() {
    let list = "--initial-cluster=,b=http://b:1,a=http://a:2,a=http://a:1,";
    let config = config(&["--name=a", list]);
    assert_eq!(cluster(&config), ["a=http://a:1", "a=http://a:2", "b=http://b:1"]);
    let members = config.initial_members();
    assert_eq!(
        members["a"].iter().map(|url| url.as_str()).collect::<Vec<_>>(),
        ["http://a:1", "http://a:2"]
    );
    assert_eq!(members.len(), 2);
    assert_eq!(
        error(&["--initial-cluster=junk"]),
        "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: "
    );
    assert_eq!(
        error(&["--initial-cluster=default=http://localhost:2380/x"]),
        "error setting up initial cluster: URL must not contain a path: http://localhost:2380/x"
    );
}

#[test]
fn first_members_are_listed_or_discovered_one_way() {
    let conflict = "multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"";
    let (list, srv) = ("--initial-cluster=default=http://localhost:2380", "--discovery-srv=a.b");
    let service = ["--discovery-endpoints=http://a:1,b:2", "--discovery-token=t"];
    for args in [&[list, srv][..], &[list, service[0], service[1]], &[srv, service[0], service[1]]]
    {
        assert_eq!(error(args), conflict, "{args:?}");
    }
    let half = "both --discovery-token and --discovery-endpoints must be set";
    assert_eq!((error(&service[..1]).as_str(), error(&service[1..]).as_str()), (half, half));
    assert!(error(&[service[0], service[1], "--discovery-cert=c"]).starts_with("KeyFile and"));
    let no_time = [service[0], service[1], "--discovery-dial-timeout=0s"];
    assert_eq!(error(&no_time), "--discovery-dial-timeout must be >0 (set to 0ns)");

    let found = config(&[srv, "--discovery-srv-name=x"]);
    let (domain, service_suffix) = ("a.b".to_owned(), "x".to_owned());
    assert_eq!(found.discovery, Some(Discovery::Srv { domain, service_suffix }));
    assert!(found.initial_cluster.is_empty(), "nobody is known yet");
    let user = ["--discovery-user=u:p:q", "--discovery-request-timeout=1s"];
    let Some(Discovery::Service(found)) =
        config(&[service[0], service[1], user[0], user[1]]).discovery
    else {
        panic!("a service was asked for");
    };
    assert_eq!(found.endpoints, ["http://b:2", "http://a:1"]);
    assert_eq!((found.token.as_str(), found.request_timeout), ("t", Duration::from_secs(1)));
    let user = found.user.expect("a user was named");
    assert_eq!((user.name.as_str(), user.password.as_str()), ("u", "p:q"));
    assert!(!format!("{user:?}").contains("p:q"), "passwords are not logged");
}

#[test]
fn a_first_start_needs_this_node_among_the_members() {
    let first_start = |args: &[&str]| {
        config(args).check_first_start().expect_err("expected a refusal").to_string()
    };
    let not_found =
        "couldn't find local name \"default\" in the initial cluster configuration".to_owned();
    assert_eq!(first_start(&["--initial-cluster=a=http://127.0.0.1:2380"]), not_found);
    assert_eq!(first_start(&["--initial-cluster="]), not_found);
    assert_eq!(
        first_start(&[
            "--initial-cluster=default=http://localhost:2380,default=http://localhost:2381"
        ]),
        "--initial-cluster has default=http://localhost:2381 but missing from \
         --initial-advertise-peer-urls=http://localhost:2380"
    );
    assert_eq!(
        first_start(&[
            "--initial-cluster=default=http://localhost:2380",
            "--initial-advertise-peer-urls=http://localhost:2380,http://localhost:2390",
        ]),
        "--initial-advertise-peer-urls has http://localhost:2390 but missing from \
         --initial-cluster=default=http://localhost:2380"
    );
    let twice = "--initial-cluster=default=http://localhost:2380,b=http://localhost:2380";
    let duplicate =
        "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url";
    assert_eq!(first_start(&[twice]), duplicate);
    assert_eq!(first_start(&[twice, "--initial-cluster-state=existing"]), duplicate);
    // A joining member was announced before it starts, so its own addresses are not compared.
    let joining = ["--initial-cluster=default=http://a:1", "--initial-cluster-state=existing"];
    assert!(config(&joining).check_first_start().is_ok());
    assert!(config(&joining[..1]).check_first_start().is_err());
}

#[test]
fn automatic_compaction_is_read_by_its_mode() {
    let compaction = |mode: &str, retention: &str| {
        let mode = format!("--auto-compaction-mode={mode}");
        let retention = format!("--auto-compaction-retention={retention}");
        run(parse_with(&[&mode, &retention], &[])).0.auto_compaction
    };
    let hours = |hours: u64| Some(AutoCompaction::Periodic(Duration::from_secs(hours * 3600)));
    assert_eq!(compaction("periodic", "5"), hours(5));
    assert_eq!(compaction("periodic", "72h"), hours(72));
    assert_eq!(
        compaction("periodic", "10m"),
        Some(AutoCompaction::Periodic(Duration::from_secs(600)))
    );
    assert_eq!(compaction("periodic", "0s"), None);
    assert_eq!(compaction("revision", "0"), None);
    assert_eq!(compaction("revision", "1000"), Some(AutoCompaction::Revisions(1000)));

    assert_eq!(error(&["--auto-compaction-mode=x"]), "unknown auto-compaction-mode \"x\"");
    assert_eq!(error(&["--auto-compaction-mode="]), "undefined auto-compaction-mode");
    assert_eq!(
        error(&["--auto-compaction-retention=x"]),
        "error parsing CompactionRetention: time: invalid duration \"x\""
    );
    assert_eq!(
        error(&["--auto-compaction-retention=-5"]),
        "error parsing CompactionRetention: time: missing unit in duration \"-5\""
    );
    let revisions = ["--auto-compaction-mode=revision", "--auto-compaction-retention=5m"];
    assert!(error(&revisions).contains("must be a number of revisions"));
}

#[test]
fn sizes_above_the_recommended_ones_are_reported() {
    let args = ["--quota-backend-bytes=8589934593", "--max-request-bytes=10485761"];
    let expected = [
        "--quota-backend-bytes of 8589934593 bytes is above the recommended 8589934592",
        "--max-request-bytes of 10485761 bytes is above the recommended 10485760",
    ];
    assert_eq!(notices(&args), expected);
    let args = ["--quota-backend-bytes=8589934592", "--max-request-bytes=10485760"];
    assert_eq!(notices(&args), [""; 0]);
    assert_eq!(config(&["--quota-backend-bytes=-5"]).quota_backend_bytes, None);
    for given in ["29360129", "18446744073709551615"] {
        let text = error(&[&format!("--max-request-bytes={given}")]);
        assert_eq!(
            text,
            format!(
                "--max-request-bytes must be at most 29360128 (set to {given}): the log has no \
                 room for more"
            )
        );
    }
}

#[test]
fn zero_means_the_usual_where_etcd_says_so() {
    let zeros = [
        "--snapshot-count=0",
        "--snapshot-catchup-entries=0",
        "--quota-backend-bytes=0",
        "--compaction-batch-limit=0",
        "--compaction-sleep-interval=0",
        "--watch-progress-notify-interval=0",
        "--warning-unary-request-duration=0",
    ];
    assert_eq!(config(&zeros), Config::default());
    assert_eq!(config(&["--warning-apply-duration=0"]).warning_apply_duration, Duration::ZERO);
    let negative = config(&["--warning-unary-request-duration=-1s", "--max-learners=-1"]);
    assert_eq!(negative.warning_unary_request_duration, Duration::ZERO);
    assert_eq!(negative.max_learners, 0);
}

#[test]
fn progress_is_not_sent_too_often() {
    let args = ["--watch-progress-notify-interval=99ms"];
    assert_eq!(config(&args).watch_progress_notify_interval, Duration::from_millis(100));
    let expected = ["--watch-progress-notify-interval is below the minimum and raised to 100ms"];
    assert_eq!(notices(&args), expected);
}

#[test]
fn spans_are_made_only_if_that_is_asked_for() {
    assert_eq!(config(&["--distributed-tracing-sampling-rate=7"]).distributed_tracing, None);
    let on = "--enable-distributed-tracing";
    let usual = DistributedTracing {
        address: "localhost:4317".to_owned(),
        service_name: "etcd".to_owned(),
        instance_id: String::new(),
        samples_per_million: 0,
    };
    assert_eq!(config(&[on]).distributed_tracing, Some(usual));
    let every = config(&[on, "--distributed-tracing-sampling-rate=1000000"]).distributed_tracing;
    assert_eq!(every.map(|it| it.samples_per_million), Some(SAMPLES_PER_MILLION_MAX));
    let negative = error(&[on, "--distributed-tracing-sampling-rate=-1"]);
    assert!(negative.contains("tracing sampling rate must be positive"));
    let above = error(&[on, "--distributed-tracing-sampling-rate=1000001"]);
    assert!(above.contains("tracing sampling rate must be less than 1000000"));
}

#[test]
fn nonsense_is_refused() {
    assert!(error(&["--compaction-batch-limit=-1"]).contains("must not be negative (set to -1)"));
    assert!(
        error(&["--wal-flush-delay=-1ms"]).starts_with("--wal-flush-delay must not be negative")
    );
    assert_eq!(error(&["--workers=1025"]), "--workers must be at most 1024 (set to 1025)");
    assert_eq!(error(&["--split-keys=0"]), "--split-keys must be at least 100 (set to 0)");
    assert_eq!(error(&["--split-bytes=1"]), "--split-bytes must be at least 65536 (set to 1)");
    let zone = format!("--zone={}", "z".repeat(129));
    assert_eq!(error(&[&zone]), "--zone must be at most 128 bytes long (is 129)");
    assert!(error(&["--log-level=loud"]).starts_with("unknown log level \"loud\""));
    assert!(error(&["--log-format=xml"]).starts_with("unknown log format \"xml\""));
    assert_eq!(
        error(&["--log-outputs=default,stdout"]),
        "multi logoutput for \"default\" is not supported yet"
    );
}

#[test]
fn placement_follows_its_flags() {
    let usual = config(&[]);
    assert!(usual.auto_split && usual.initial_split_keys.is_empty() && usual.zone.is_empty());
    assert_eq!((usual.split_bytes, usual.split_keys), (256 << 20, 1_000_000));
    assert_eq!(usual.split_writes_per_second, 20_000);
    assert_eq!(usual.placement_interval, Duration::from_secs(1));
    assert!(usual.merge_after.is_zero());
    assert_eq!(usual.dead_after, Duration::from_secs(300));
    let other = config(&[
        "--auto-split=false",
        "--placement-interval=0",
        "--merge-after=90m",
        "--zone=a",
        "--initial-split-preset=kubernetes",
        "--initial-split-keys=/registry/leases/,a",
    ]);
    assert!(!other.auto_split && other.placement_interval.is_zero() && other.zone == "a");
    assert_eq!(other.merge_after, Duration::from_secs(5_400));
    assert!(error(&["--merge-after=-1s"]).contains("--merge-after"));
    assert_eq!(config(&["--dead-after=10s"]).dead_after, Duration::from_secs(10));
    assert_eq!(error(&["--dead-after=9s"]), "--dead-after is 9s, and must be at least 10s");
    let keys =
        ["/registry/events/", "/registry/events0", "/registry/leases/", "/registry/leases0", "a"];
    assert_eq!(other.initial_split_keys, keys, "each once, in order");
}

#[test]
fn logs_go_where_they_are_sent() {
    let outputs = config(&["--log-outputs=stdout,systemd/journal,/a,stderr,stdout"]).log_outputs;
    let file = LogOutput::File("/a".into());
    assert_eq!(outputs, [file, LogOutput::Stderr, LogOutput::Stdout, LogOutput::Journal]);
    assert_eq!(config(&["--log-outputs="]).log_outputs, [LogOutput::Stderr]);
    assert_eq!(config(&["--log-level=fatal"]).log_level, LogLevel::Fatal);
    assert_eq!(config(&["--log-format=console"]).log_format, LogFormat::Console);
}

#[test]
fn other_words_for_metrics_are_basic() {
    assert_eq!(config(&["--metrics=extensive"]).metrics, MetricsDetail::Extensive);
    assert_eq!(config(&["--metrics=x"]).metrics, MetricsDetail::Basic);
    let expected = ["unrecognized value \"x\" of --metrics is taken for \"basic\""];
    assert_eq!(notices(&["--metrics=x"]), expected);
}

#[test]
fn lists_of_the_welcome_allow_all_with_a_star() {
    let list = |value: &str| config(&[&format!("--host-whitelist={value}")]).host_whitelist;
    for all in ["*", "", "a,*"] {
        assert_eq!(list(all), AllowList::Any, "{all:?}");
    }
    let some = list("b,a");
    assert!(some.allows("a") && some.allows("b") && !some.allows("c"));
    assert_eq!(config(&["--cors="]).cors, AllowList::Any);
    let bad = "invalid value \"http://a:1,*\" for flag -cors: \
               URL scheme must be http, https, unix, or unixs: *";
    assert_eq!(usage_error(&["--cors=http://a:1,*"]), bad);
}

#[test]
fn writes_without_flushes_are_reported() {
    let expected = ["flushes are off: a crash of the machine loses acknowledged writes"];
    assert_eq!(notices(&["--unsafe-no-fsync"]), expected);
}

// ---- tokens ----

#[test]
fn the_provider_of_tokens_is_read_as_by_etcd() {
    let provider = |arg: &str| config(&[arg]).auth_token;
    assert_eq!(config(&[]).auth_token, TokenProvider::Simple);
    assert_eq!(provider("--auth-token="), TokenProvider::Nothing);
    let jwt = "--auth-token=jwt,pub-key=a.pub,priv-key=a.key,sign-method=RS256,ttl=10m";
    let wanted = JwtOptions {
        method: "RS256".to_owned(),
        public_key: Some("a.pub".into()),
        private_key: Some("a.key".into()),
        lifetime: Duration::from_secs(600),
    };
    assert_eq!(provider(jwt), TokenProvider::Jwt(wanted));
    for wrong in ["other", "jwt", "jwt,sign-method=RS256", "jwt,sign-method", "jwt,ttl=1m,ttl=2m"] {
        let text = error(&[&format!("--auth-token={wrong}")]);
        assert!(text.contains("cannot be used"), "{text}");
    }
}

#[test]
fn a_cost_that_bcrypt_cannot_take_is_the_usual_one() {
    let cost = |arg: &str| config(&[arg]).bcrypt_cost;
    assert_eq!(config(&[]).bcrypt_cost, 10);
    assert_eq!(cost("--bcrypt-cost=4"), 4);
    for odd in ["--bcrypt-cost=3", "--bcrypt-cost=32", "--bcrypt-cost=0"] {
        assert_eq!(cost(odd), 10, "{odd}");
    }
    assert_eq!(config(&["--auth-token-ttl=7"]).auth_token_ttl, Duration::from_secs(7));
}
