//! The grammar of a command line in the manner of Go's flag package: one dash or two, a value
//! behind `=` or in the next argument, truth values that stand alone. Owns the grammar only.

use std::ffi::OsString;

use super::error::{Error, UsageError};
use super::flags::{self, Flag};
use super::settings::Settings;
use super::value::{Kind, Value};

/// What the arguments say.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) settings: Settings,
    /// `-h` or `--help` was met; nothing behind it was looked at.
    pub(super) is_help: bool,
}

/// Reads all arguments, without the program's name.
pub(super) fn scan(args: impl IntoIterator<Item = OsString>) -> Result<Scanned, Error> {
    let mut settings = Settings::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let arg = to_text(arg)?;
        let Some((name, value)) = split_flag(&arg)? else {
            return no_more_args(arg, &mut args).map(|()| Scanned { settings, is_help: false });
        };
        let Some(flag) = flags::find(name).filter(|flag| flag.has_flag()) else {
            return match name {
                "h" | "help" => Ok(Scanned { settings, is_help: true }),
                _ => Err(UsageError::NotDefined(name.to_owned()).into()),
            };
        };
        let value = match value {
            Some(value) => value.to_owned(),
            None if flag.kind.stands_alone() => "true".to_owned(),
            None => match args.next() {
                Some(value) => to_text(value)?,
                None => return Err(UsageError::NeedsArgument(flag.name).into()),
            },
        };
        settings.set(flag, read(flag, &value)?);
    }
    Ok(Scanned { settings, is_help: false })
}

/// The name and value of a flag; None for an argument that is no flag and ends the flags.
fn split_flag(arg: &str) -> Result<Option<(&str, Option<&str>)>, Error> {
    let Some(name) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return Ok(None);
    };
    let name = name.strip_prefix('-').unwrap_or(name);
    if arg == "--" {
        return Ok(None);
    }
    if name.is_empty() || name.starts_with(['-', '=']) {
        return Err(UsageError::Syntax(arg.to_owned()).into());
    }
    Ok(Some(match name.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (name, None),
    }))
}

/// Nothing may follow the flags; `--` itself is no argument.
fn no_more_args(arg: String, rest: &mut impl Iterator<Item = OsString>) -> Result<(), Error> {
    let first = if arg == "--" { rest.next().map(to_text).transpose()? } else { Some(arg) };
    first.map_or(Ok(()), |arg| Err(Error::NotAFlag(arg)))
}

fn read(flag: &'static Flag, text: &str) -> Result<Value, Error> {
    let flag_name = flag.name;
    flag.kind.read_text(text).map_err(|reason| {
        let value = text.to_owned();
        match flag.kind {
            Kind::Bool => UsageError::BoolValue { value, flag: flag_name, reason }.into(),
            _ => UsageError::Value { value, flag: flag_name, reason }.into(),
        }
    })
}

fn to_text(arg: OsString) -> Result<String, Error> {
    arg.into_string().map_err(|arg| UsageError::NotUnicode(arg).into())
}
