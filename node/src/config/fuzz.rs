//! Command lines, environments and files of any content: they are a configuration, or an error with an
//! exit code. docs/fuzzing.md has the table.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use flotilla_fuzz::{Target, damaged, number, signed};
use proptest::collection::vec;
use proptest::prelude::*;

use super::flags::FLAGS;
use super::*;

/// Values that some flag takes, and what is near them.
fn value() -> impl Strategy<Value = String> {
    let known = proptest::sample::select(vec![
        "",
        "true",
        "f",
        "0",
        "-1",
        "1h30m",
        "1.5s",
        "9223372036s",
        "http://localhost:2379",
        "https://[::1]:1",
        "unix:///x",
        "a=http://h:1,b=http://h:2",
        "new",
        "existing",
        "simple",
        "jwt,sign-method=HS256,priv-key=k",
        "revision",
        "periodic",
        "TLS_AES_128_GCM_SHA256",
        "TLS1.2",
        "v2=true",
        "b,m,t",
        "zap",
        "stderr",
        "*",
        "info",
        "0x1f",
        "1_000",
        "é",
        "readonly",
    ]);
    let text = damaged(known.clone().prop_map(|text| text.as_bytes().to_vec()))
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![
        6 => known.prop_map(str::to_owned),
        3 => text,
        2 => signed().prop_map(|number| number.to_string()),
        1 => (number(), "[a-zµ]{0,3}").prop_map(|(number, unit)| format!("{number}{unit}")),
    ]
}

fn flag() -> impl Strategy<Value = &'static str> {
    let names: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
    prop_oneof![20 => proptest::sample::select(names), 1 => Just("no-such-flag")]
}

fn check(outcome: Result<Outcome, Error>) {
    match outcome {
        Ok(Outcome::Run(config, notices)) => {
            assert_eq!(config.clone(), config);
            notices.iter().for_each(|notice| drop(notice.to_string()));
        }
        Ok(Outcome::Version | Outcome::Help) => {}
        Err(error) => {
            assert_ne!(error.exit_code(), 0, "{error}");
            assert!(!error.report().is_empty());
        }
    }
}

#[test]
fn fuzz_config_flags_and_variables() {
    let argument = (flag(), value(), 0..5_u8).prop_map(|(flag, value, form)| match form {
        0 => vec![format!("--{flag}"), value],
        1 => vec![format!("-{flag}={value}")],
        2 => vec![format!("--{flag}")],
        _ => vec![format!("--{flag}={value}")],
    });
    let raw = vec(any::<u8>(), 0..20).prop_map(OsString::from_vec);
    let args = vec(
        prop_oneof![
            20 => argument.prop_map(|parts| parts.into_iter().map(OsString::from).collect()),
            1 => raw.prop_map(|raw| vec![raw]),
        ],
        0..4,
    );
    let variable = (flag(), value()).prop_map(|(flag, value)| {
        (format!("ETCD_{}", flag.to_uppercase().replace('-', "_")), value)
    });
    let inputs = (args, vec(variable, 0..3));
    Target::new("config/flags").cases(512).run(inputs, |(args, variables)| {
        let env: BTreeMap<String, String> = variables.into_iter().collect();
        let no_file = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
        check(parse(args.into_iter().flatten(), &env, &no_file));
    });
}

#[test]
fn fuzz_config_file() {
    let line = (flag(), value(), 0..6_u8).prop_map(|(flag, value, form)| match form {
        0 => format!("{flag}: {value:?}\n"),
        1 => format!("{flag}: [{value}, x]\n"),
        2 => format!("peer-transport-security:\n  {flag}: {value}\n"),
        3 => format!("{flag}: &a [*a, {value}]\n"),
        _ => format!("{flag}: {value}\n"),
    });
    let file = vec(line, 0..6).prop_map(|lines| lines.concat().into_bytes());
    Target::new("config/file").cases(512).run(damaged(file), |text| {
        let text = String::from_utf8_lossy(&text).into_owned();
        let args = [OsString::from("--config-file=c.yaml")];
        check(parse(args, &BTreeMap::new(), &|_| Ok(text.clone())));
    });
}

#[test]
fn fuzz_config_addresses() {
    let url = proptest::sample::select(vec![
        "http://localhost:2380",
        "https://[::1]:1",
        "unix:///run/x.sock",
        "unixs:a:1",
        "http://é:80",
    ]);
    let inputs = damaged(url.prop_map(|url| url.as_bytes().to_vec()));
    Target::new("config/addresses").cases(512).run(inputs, |text| {
        let text = String::from_utf8_lossy(&text);
        if let Ok(url) = Url::parse(&text) {
            assert_eq!(Url::parse(url.as_str()).expect("its own text"), url);
        }
    });
}
