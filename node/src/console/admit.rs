//! Who may look: while authentication is on, a user with the role root, by name and password (HTTP
//! Basic), by a token, or by a certificate. Passwords are looked at by the code that Authenticate uses, and
//! what was found right is remembered for a while, since a browser sends them with every request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flotilla_core::Error;
use flotilla_core::auth::Caller;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Request};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::refusal::Refusal;
use crate::api::without_port;
use crate::auth::{Credentials, Gate, Password};
use crate::config::AllowList;
use crate::router::Router;
use crate::tls::CommonName;

/// How long a password that was right is not looked at again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Passwords that are remembered.
const REMEMBERED_MAX: usize = 64;
/// Passwords of the console that are looked at at once: clients have the other places.
const LOOKS_AT_ONCE: usize = 1;
/// Bytes of a header with a name and a password.
const BASIC_BYTES_MAX: usize = 4 << 10;

/// Lets in, or not.
pub(super) struct Doorkeeper {
    /// So that what is remembered says nothing of the passwords.
    salt: [u8; 32],
    known: Mutex<HashMap<[u8; 32], Instant>>,
    looks: Semaphore,
}

impl Default for Doorkeeper {
    fn default() -> Self {
        let (known, looks) = (Mutex::default(), Semaphore::new(LOOKS_AT_ONCE));
        Self { salt: rand::random(), known, looks }
    }
}

impl Doorkeeper {
    /// Whether a request may be answered. `common_name` is of a certificate that was verified.
    ///
    /// # Errors
    /// `Unauthenticated`, `NotRoot`, `Busy` or `Stopping`.
    pub(super) async fn admit(
        &self,
        router: &Router,
        headers: &HeaderMap,
        common_name: Option<CommonName>,
    ) -> Result<(), Refusal> {
        let gate = router.gate();
        if !gate.is_enabled() {
            return Ok(());
        }
        let caller = match basic(headers)? {
            Some((name, password)) => self.by_password(gate, name, password).await?,
            None => {
                let common_name = common_name.map(Arc::from);
                let credentials = Credentials::read(headers, common_name);
                let caller = gate.caller(&credentials, || router.board().commit_index()).await;
                caller.map_err(|error| refusal(&error))?
            }
        };
        gate.auth().check_root(&caller).map(drop).map_err(|error| refusal(&error))
    }

    async fn by_password(
        &self,
        gate: &Gate,
        name: String,
        password: Password,
    ) -> Result<Caller, Refusal> {
        // Whatever changes users or roles, everything is looked at again.
        let mark = self.mark(gate.changed_at(), &name, &password);
        if self.remembers(&mark) {
            return Ok(Caller::user(name));
        }
        let Ok(_turn) = self.looks.acquire().await else { return Err(Refusal::Stopping) };
        // A page asks for several things at once: the first has it looked at for all.
        if self.remembers(&mark) {
            return Ok(Caller::user(name));
        }
        let checked = gate.check_password(&name, password).await;
        checked.map_err(|error| refusal(&error))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(mark, Instant::now());
        Ok(Caller::user(name))
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, since| since.elapsed() < REMEMBERED);
        known.contains_key(mark)
    }

    fn mark(&self, changed_at: u64, name: &str, password: &Password) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update(changed_at.to_le_bytes());
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(password.as_str());
        hash.finalize().into()
    }
}

/// Name and password, if a request shows some.
///
/// # Errors
/// `Unauthenticated` if it shows what is neither.
fn basic(headers: &HeaderMap) -> Result<Option<(String, Password)>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Refusal::Unauthenticated)?;
    let Some((scheme, encoded)) = text.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    if encoded.len() > BASIC_BYTES_MAX {
        return Err(Refusal::Unauthenticated);
    }
    let bytes = STANDARD.decode(encoded.trim()).map_err(|_| Refusal::Unauthenticated)?;
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Unauthenticated)?;
    let (name, password) = text.split_once(':').ok_or(Refusal::Unauthenticated)?;
    Ok(Some((name.to_owned(), Password::from(password.to_owned()))))
}

fn refusal(error: &Error) -> Refusal {
    match error {
        Error::PermissionDenied => Refusal::NotRoot,
        Error::TooManyRequests => Refusal::Busy,
        Error::Stopped => Refusal::Stopping,
        _ => Refusal::Unauthenticated,
    }
}

/// That a request names a host which no stranger's name server could have made up: an address,
/// localhost, or a name that the operator listed.
///
/// # Errors
/// `UnwelcomeHost`.
pub(super) fn check_host<B>(allowed: &AllowList, request: &Request<B>) -> Result<(), Refusal> {
    let header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = without_port(authority.or_else(header).unwrap_or_default());
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_listed = || matches!(allowed, AllowList::Only(_)) && allowed.allows(host);
    match host == "localhost" || address.parse::<IpAddr>().is_ok() || is_listed() {
        true => Ok(()),
        false => Err(Refusal::UnwelcomeHost(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Result<Option<(String, String)>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        let told = basic(&headers)?;
        Ok(told.map(|(name, password)| (name, password.as_str().to_owned())))
    }

    #[test]
    fn name_and_password_are_read_or_refused() {
        let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let pair = |name: &str, password: &str| Ok(Some((name.to_owned(), password.to_owned())));
        assert_eq!(shown(&encoded("root:a:b")), pair("root", "a:b"));
        assert_eq!(shown(&encoded("root:")), pair("root", ""));
        assert_eq!(shown(&encoded("ü:é").replace("Basic", "basic")), pair("ü", "é"));
        assert_eq!((shown("Bearer x.1"), shown("x.1")), (Ok(None), Ok(None)), "these are tokens");
        let long = encoded(&"x".repeat(BASIC_BYTES_MAX));
        for wrong in [&encoded("root"), "Basic ", "Basic %%%", "Basic /w==", &long] {
            assert_eq!(shown(wrong), Err(Refusal::Unauthenticated), "{wrong}");
        }
    }

    #[test]
    fn names_of_hosts_are_welcome_only_if_they_are_listed() {
        let check = |allowed: &AllowList, host: &str| {
            let request = Request::builder().header(HOST, host).body(()).expect("a request");
            check_host(allowed, &request).is_ok()
        };
        let only = AllowList::Only(["n1.example".to_owned()].into());
        for allowed in [&AllowList::Any, &only] {
            for host in ["127.0.0.1:2400", "[::1]:2400", "localhost", "10.0.0.1:1"] {
                assert!(check(allowed, host), "{host}");
            }
            assert!(!check(allowed, "evil.example:2400") && !check(allowed, ""));
        }
        assert!(check(&only, "n1.example:2400") && !check(&AllowList::Any, "n1.example:2400"));
    }
}
