//! A configuration file in YAML, of which JSON is a part. Keys are the names of flags without
//! dashes, in any case, plus the sections etcd has for transport security, sockets and discovery.
//! Owns the mapping from keys to flags; never reads the file itself.

use std::path::Path;

use serde_yaml_ng::{Mapping, Value as Yaml};

use super::error::Error;
use super::flags::{self, Flag};
use super::notice::Notice;
use super::settings::Settings;

/// Reads the text of the file at `path`, which is named in errors. Keys that mean nothing are
/// reported, since a mistyped one would otherwise be found out late.
pub(super) fn read(path: &Path, text: &str, notices: &mut Vec<Notice>) -> Result<Settings, Error> {
    let document: Yaml = serde_yaml_ng::from_str(text)
        .map_err(|source| Error::FileSyntax { path: path.to_owned(), source })?;
    let mut settings = Settings::of_file();
    let top = match document {
        Yaml::Null => return Ok(settings),
        Yaml::Mapping(mapping) => mapping,
        _ => return Err(Error::FileShape { path: path.to_owned() }),
    };
    for (key, node) in lower_case(path, &top)? {
        match (SECTIONS.iter().find(|section| section.name == key), node) {
            (Some(_), Yaml::Null) => {}
            (Some(section), Yaml::Mapping(entries)) => {
                for (key, node) in lower_case(path, entries)? {
                    let flag = section.flag(&key);
                    set(
                        path,
                        &mut settings,
                        flag,
                        &format!("{}.{key}", section.name),
                        node,
                        notices,
                    )?;
                }
            }
            (Some(_), _) => return Err(Error::FileSection { path: path.to_owned(), key }),
            (None, node) => {
                let flag = flags::find(&key).filter(|flag| !FLAGS_ONLY.contains(&flag.name));
                set(path, &mut settings, flag, &key, node, notices)?;
            }
        }
    }
    Ok(settings)
}

/// A nested mapping and the flags its keys stand for.
struct Section {
    name: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

impl Section {
    fn flag(&self, key: &str) -> Option<&'static Flag> {
        let (_, flag) = self.keys.iter().find(|(name, _)| *name == key)?;
        flags::find(flag)
    }
}

const SECTIONS: [Section; 3] = [
    Section {
        name: "client-transport-security",
        keys: &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-cn", "client-transport-security.allowed-cn"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
            (
                "skip-client-san-verification",
                "client-transport-security.skip-client-san-verification",
            ),
        ],
    },
    Section {
        name: "peer-transport-security",
        keys: &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    },
    Section {
        name: "socket-options",
        keys: &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")],
    },
];

/// Flags that make no sense inside a file.
const FLAGS_ONLY: [&str; 2] = ["config-file", "version"];

fn set(
    path: &Path,
    settings: &mut Settings,
    flag: Option<&'static Flag>,
    key: &str,
    node: &Yaml,
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    let Some(flag) = flag else {
        notices.push(Notice::UnknownKey { key: key.to_owned() });
        return Ok(());
    };
    let value = flag.kind.read_yaml(node).map_err(|reason| Error::FileValue {
        path: path.to_owned(),
        key: key.to_owned(),
        reason,
    })?;
    if let Some(value) = value {
        settings.set(flag, value);
    }
    Ok(())
}

/// The entries of a mapping under lower-case keys; two keys that differ in case are an error,
/// as two equal ones are to the YAML reader.
fn lower_case<'a>(path: &Path, mapping: &'a Mapping) -> Result<Vec<(String, &'a Yaml)>, Error> {
    let mut entries: Vec<(String, &Yaml)> = Vec::with_capacity(mapping.len());
    for (key, node) in mapping {
        let Some(key) = key.as_str() else {
            return Err(Error::FileShape { path: path.to_owned() });
        };
        let key = key.to_ascii_lowercase();
        if entries.iter().any(|(other, _)| *other == key) {
            return Err(Error::FileTwice { path: path.to_owned(), key });
        }
        entries.push((key, node));
    }
    Ok(entries)
}
