//! Environment variables: every flag has one, `ETCD_` and its name. Owns how they are found and
//! what happens when one meets its flag; never reads the process's environment by itself.

use std::collections::BTreeMap;

use super::error::Error;
use super::flags::FLAGS;
use super::notice::Notice;
use super::settings::Settings;

/// Adds the variables to the flags. Empty ones count as not set, except that even an empty one
/// may not stand beside its flag. Source: etcd pkg/flags.
pub(super) fn add(
    mut settings: Settings,
    env: &BTreeMap<String, String>,
    notices: &mut Vec<Notice>,
) -> Result<Settings, Error> {
    let flags: BTreeMap<String, _> =
        FLAGS.iter().filter(|flag| flag.has_flag()).map(|flag| (flag.variable(), flag)).collect();
    let ours = || env.iter().filter(|(name, _)| name.starts_with("ETCD_"));
    for (name, _) in ours() {
        if flags.get(name).is_some_and(|flag| settings.is_given(flag.name)) {
            return Err(Error::Shadowed { variable: name.clone() });
        }
    }
    for (name, text) in ours() {
        match flags.get(name) {
            // Printing the version is asked for on the command line only.
            Some(flag) if flag.name == "version" => {
                notices.push(Notice::UnknownVariable { name: name.clone() });
            }
            Some(_) if text.is_empty() => {
                notices.push(Notice::EmptyVariable { name: name.clone() });
            }
            Some(flag) => {
                let value = flag.kind.read_text(text).map_err(|reason| Error::Variable {
                    value: text.clone(),
                    variable: name.clone(),
                    reason,
                })?;
                settings.set(flag, value);
            }
            None => notices.push(Notice::UnknownVariable { name: name.clone() }),
        }
    }
    Ok(settings)
}
