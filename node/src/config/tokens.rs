//! `--auth-token`: which kind of tokens the node gives, and what signed ones are made with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Error;
use super::number;

/// Who tells which token is whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenProvider {
    /// All nodes remember which tokens were given.
    Simple,
    /// Tokens are signed.
    Jwt(JwtOptions),
    /// There are no tokens.
    Nothing,
}

/// How tokens are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// In the words of RFC 7518.
    pub method: String,
    /// A file.
    pub public_key: Option<PathBuf>,
    /// A file. Without it tokens are read, and none are given.
    pub private_key: Option<PathBuf>,
    /// From when it is made to when it ends.
    pub lifetime: Duration,
}

/// How long a signed token lives if nothing is said.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);

pub(super) fn provider(text: &str) -> Result<TokenProvider, Error> {
    let wrong =
        |reason: &str| Error::AuthToken { given: text.to_owned(), reason: reason.to_owned() };
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = BTreeMap::new();
    for part in parts {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong("options are name=value"))?;
        if options.insert(name, value).is_some() {
            return Err(wrong("an option is given twice"));
        }
    }
    match kind {
        "simple" => Ok(TokenProvider::Simple),
        "" => Ok(TokenProvider::Nothing),
        "jwt" => {
            let method = options.remove("sign-method").ok_or_else(|| wrong("no sign-method"))?;
            let lifetime = match options.remove("ttl") {
                Some(text) => lifetime(text).ok_or_else(|| wrong("ttl is no time above zero"))?,
                None => LIFETIME_DEFAULT,
            };
            let public_key = options.remove("pub-key").map(PathBuf::from);
            let private_key = options.remove("priv-key").map(PathBuf::from);
            if public_key.is_none() && private_key.is_none() {
                return Err(wrong("neither pub-key nor priv-key"));
            }
            let method = method.to_owned();
            Ok(TokenProvider::Jwt(JwtOptions { method, public_key, private_key, lifetime }))
        }
        _ => Err(wrong("neither simple nor jwt")),
    }
}

fn lifetime(text: &str) -> Option<Duration> {
    let nanoseconds = u64::try_from(number::parse_duration(text).ok()?).ok()?;
    (nanoseconds > 0).then_some(Duration::from_nanos(nanoseconds))
}
