//! Where a new cluster finds its first members when they are not listed: records of the DNS, or a
//! running cluster that serves as a meeting place. Reads flags; asks nobody.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Error;
use super::settings::Settings;
use super::tls::KeyPair;

/// Who is asked for the first members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// SRV records of this domain.
    Srv {
        domain: String,
        /// Added to the name of the service behind a dash, if it is not empty.
        service_suffix: String,
    },
    /// A running cluster.
    Service(DiscoveryService),
}

/// A running cluster where the members of a new one find each other under a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryService {
    /// Names the new cluster, and is the salt of its ids.
    pub token: String,
    /// Never empty.
    pub endpoints: Vec<String>,
    pub dial_timeout: Duration,
    /// For each question.
    pub request_timeout: Duration,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    /// Who may sign its certificates.
    pub trusted_ca: Option<PathBuf>,
    /// What is shown to it.
    pub pair: Option<KeyPair>,
    pub user: Option<DiscoveryUser>,
}

/// As whom the meeting place is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct DiscoveryUser {
    pub name: String,
    pub password: String,
}

impl fmt::Debug for DiscoveryUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the flags ask for, which goes with no list of members.
/// Source: etcd embed.Config.Validate.
pub(super) fn discovery(settings: &Settings) -> Result<Option<Discovery>, Error> {
    let domain = settings.text("discovery-srv");
    let endpoints = settings.texts("discovery-endpoints");
    let token = settings.text("discovery-token");
    let is_listed =
        settings.is_given("initial-cluster") && !settings.text("initial-cluster").is_empty();
    let ways = [is_listed, !domain.is_empty(), !endpoints.is_empty()];
    if ways.into_iter().filter(|is_chosen| *is_chosen).count() > 1 {
        return Err(Error::DiscoveryConflict);
    }
    if endpoints.is_empty() != token.is_empty() {
        return Err(Error::DiscoveryHalf);
    }
    if !domain.is_empty() {
        let service_suffix = settings.text("discovery-srv-name");
        return Ok(Some(Discovery::Srv { domain, service_suffix }));
    }
    if endpoints.is_empty() {
        return Ok(None);
    }
    let file =
        |name: &str| Some(settings.text(name)).filter(|it| !it.is_empty()).map(PathBuf::from);
    let pair = match (file("discovery-cert"), file("discovery-key")) {
        (Some(cert), Some(key)) => Some(KeyPair { cert, key }),
        (None, None) => None,
        (cert, key) => {
            let text = |file: Option<PathBuf>| file.unwrap_or_default().display().to_string();
            return Err(Error::HalfKeyPair { key: text(key), cert: text(cert) });
        }
    };
    Ok(Some(Discovery::Service(DiscoveryService {
        token,
        endpoints: endpoints.into_iter().map(with_scheme).collect(),
        dial_timeout: positive(settings, "discovery-dial-timeout", "--discovery-dial-timeout")?,
        request_timeout: positive(
            settings,
            "discovery-request-timeout",
            "--discovery-request-timeout",
        )?,
        keepalive_time: positive(
            settings,
            "discovery-keepalive-time",
            "--discovery-keepalive-time",
        )?,
        keepalive_timeout: positive(
            settings,
            "discovery-keepalive-timeout",
            "--discovery-keepalive-timeout",
        )?,
        trusted_ca: file("discovery-cacert"),
        pair,
        user: user(settings),
    })))
}

/// An endpoint without a scheme is one without TLS.
fn with_scheme(endpoint: String) -> String {
    if endpoint.contains("://") { endpoint } else { format!("http://{endpoint}") }
}

/// The password stands behind the name and a colon, unless it has a flag of its own.
fn user(settings: &Settings) -> Option<DiscoveryUser> {
    let (name, password) = (settings.text("discovery-user"), settings.text("discovery-password"));
    if name.is_empty() {
        return None;
    }
    Some(match name.split_once(':').filter(|_| password.is_empty()) {
        Some((name, password)) => {
            DiscoveryUser { name: name.to_owned(), password: password.to_owned() }
        }
        None => DiscoveryUser { name, password },
    })
}

fn positive(
    settings: &Settings,
    name: &'static str,
    setting: &'static str,
) -> Result<Duration, Error> {
    let given = settings.nanoseconds(name);
    match u64::try_from(given) {
        Ok(nanoseconds) if nanoseconds > 0 => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err(Error::NoTime { setting, given: format!("{given}ns") }),
    }
}
