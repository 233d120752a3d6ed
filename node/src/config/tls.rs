//! How the listeners and the dialers of a node are secured: the flags of transport security, one
//! set for the clients' side and one for the peers', checked against each other in etcd's words.
//! Names files; never opens one.

use std::path::PathBuf;

use super::cipher::CipherSuite;
use super::error::Error;
use super::notice::Notice;
use super::settings::Settings;
use super::{Url, cipher};

/// The security of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// What this node shows to whoever connects; `None` when nothing is given, or when it is to be
    /// generated.
    pub server: Option<KeyPair>,
    /// What this node shows when it connects, if that is not the same.
    pub client: Option<KeyPair>,
    /// Who may sign the certificates of the other end, in PEM; `None` means those whom this machine
    /// trusts.
    pub trusted_ca: Option<PathBuf>,
    /// Whoever connects must show a certificate.
    pub client_cert_auth: bool,
    /// Serial numbers of certificates that do not count any more, in PEM or DER.
    pub crl: Option<PathBuf>,
    /// Whose certificates count, of those that are signed by the right one.
    pub allowed: AllowedNames,
    /// Certificates of peers are not compared with the address they come from.
    pub skip_client_san_verification: bool,
    /// A self-signed certificate is generated, and those of others are not checked.
    pub is_auto: bool,
    /// Lifetime of a generated certificate.
    pub validity_years: u64,
    /// Lowest version that is spoken.
    pub min_version: TlsVersion,
    /// Highest version that is spoken.
    pub max_version: TlsVersion,
    /// Suites that TLS 1.2 may use, all that are served when empty.
    pub cipher_suites: Vec<CipherSuite>,
}

/// A certificate with those that lead to its signer, and its private key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The names that a certificate must have one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedNames {
    Any,
    /// As the common name of its subject.
    CommonNames(Vec<String>),
    /// As one of the hosts it is good for.
    Hosts(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

impl Tls {
    /// Of something that only connects: it believes those whom `trusted_ca` has signed, and shows
    /// `pair` if it is asked to show something.
    pub fn of_client(trusted_ca: Option<PathBuf>, pair: Option<KeyPair>) -> Tls {
        Tls {
            server: None,
            client: pair,
            trusted_ca,
            client_cert_auth: false,
            crl: None,
            allowed: AllowedNames::Any,
            skip_client_san_verification: false,
            is_auto: false,
            validity_years: 0,
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
        }
    }

    /// True when certificates are given or generated: listeners of `https` can be served.
    pub fn is_on(&self) -> bool {
        self.server.is_some() || self.is_auto
    }
}

/// The names of one side's flags.
struct Flags {
    cert: &'static str,
    key: &'static str,
    client_cert: &'static str,
    client_key: &'static str,
    client_cert_auth: &'static str,
    trusted_ca: &'static str,
    crl: &'static str,
    allowed_cn: &'static str,
    allowed_hostname: &'static str,
    skip_san: &'static str,
    auto: &'static str,
    side: &'static str,
}

const CLIENT: Flags = Flags {
    cert: "cert-file",
    key: "key-file",
    client_cert: "client-cert-file",
    client_key: "client-key-file",
    client_cert_auth: "client-cert-auth",
    trusted_ca: "trusted-ca-file",
    crl: "client-crl-file",
    allowed_cn: "client-transport-security.allowed-cn",
    allowed_hostname: "client-cert-allowed-hostname",
    skip_san: "client-transport-security.skip-client-san-verification",
    auto: "auto-tls",
    side: "client",
};

const PEER: Flags = Flags {
    cert: "peer-cert-file",
    key: "peer-key-file",
    client_cert: "peer-client-cert-file",
    client_key: "peer-client-key-file",
    client_cert_auth: "peer-client-cert-auth",
    trusted_ca: "peer-trusted-ca-file",
    crl: "peer-crl-file",
    allowed_cn: "peer-cert-allowed-cn",
    allowed_hostname: "peer-cert-allowed-hostname",
    skip_san: "peer-skip-client-san-verification",
    auto: "peer-auto-tls",
    side: "peer",
};

/// The two sides, clients' first.
pub(super) fn both(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(Tls, Tls), Error> {
    let versions = versions(settings)?;
    let suites = cipher_suites(settings)?;
    let client = side(settings, &CLIENT, versions, &suites, notices)?;
    let peer = side(settings, &PEER, versions, &suites, notices)?;
    if versions.0 == TlsVersion::Tls13 && !suites.is_empty() {
        return Err(Error::CipherSuitesOfTls13);
    }
    if (client.is_on() || peer.is_on()) && !suites.is_empty() {
        if !suites.iter().any(|suite| suite.is_required_by_http2()) {
            return Err(Error::CipherSuitesOfHttp2);
        }
        for suite in suites.iter().filter(|suite| !suite.is_served()) {
            notices.push(Notice::CipherSuite { name: suite.name() });
        }
    }
    Ok((client, peer))
}

fn side(
    settings: &Settings,
    flags: &Flags,
    (min_version, max_version): (TlsVersion, TlsVersion),
    suites: &[CipherSuite],
    notices: &mut Vec<Notice>,
) -> Result<Tls, Error> {
    let file = |name| Some(settings.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from);
    let server = match (file(flags.cert), file(flags.key)) {
        (Some(cert), Some(key)) => Some(KeyPair { cert, key }),
        (None, None) => None,
        _ => {
            let (key, cert) = (settings.text(flags.key), settings.text(flags.cert));
            return Err(Error::HalfKeyPair { key, cert });
        }
    };
    let client = match (file(flags.client_cert), file(flags.client_key)) {
        (Some(cert), Some(key)) => Some(KeyPair { cert, key }),
        (None, None) => None,
        _ => {
            let (key, cert) = (settings.text(flags.client_key), settings.text(flags.client_cert));
            return Err(Error::HalfClientKeyPair { key, cert });
        }
    };
    let is_auto = settings.bool(flags.auto) && server.is_none();
    if settings.bool(flags.auto) && !is_auto {
        notices.push(Notice::AutoTlsUnused { side: flags.side });
    }
    let validity_years = settings.uint("self-signed-cert-validity");
    if is_auto && validity_years == 0 {
        return Err(Error::SelfSignedValidity);
    }
    let trusted_ca = file(flags.trusted_ca);
    let is_used = server.is_some() || is_auto || trusted_ca.is_some();
    Ok(Tls {
        server,
        client,
        trusted_ca,
        client_cert_auth: settings.bool(flags.client_cert_auth),
        crl: file(flags.crl),
        allowed: allowed_names(settings, flags)?,
        skip_client_san_verification: settings.bool(flags.skip_san),
        is_auto,
        validity_years,
        min_version,
        max_version,
        cipher_suites: if is_used { suites.to_vec() } else { Vec::new() },
    })
}

fn allowed_names(settings: &Settings, flags: &Flags) -> Result<AllowedNames, Error> {
    let names = |flag| {
        let names = settings.texts(flag);
        names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<String>>()
    };
    match (names(flags.allowed_cn), names(flags.allowed_hostname)) {
        (cns, hosts) if cns.is_empty() && hosts.is_empty() => Ok(AllowedNames::Any),
        (cns, hosts) if hosts.is_empty() => Ok(AllowedNames::CommonNames(cns)),
        (cns, hosts) if cns.is_empty() => Ok(AllowedNames::Hosts(hosts)),
        (cns, hosts) => Err(Error::TwoAllowedNames { cns: quoted(&cns), hosts: quoted(&hosts) }),
    }
}

/// As Go prints a list with `%q`.
fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", names.join(" "))
}

fn versions(settings: &Settings) -> Result<(TlsVersion, TlsVersion), Error> {
    let read = |name: &str, usual| match settings.text(name).as_str() {
        "" => Ok(usual),
        "TLS1.2" => Ok(TlsVersion::Tls12),
        "TLS1.3" => Ok(TlsVersion::Tls13),
        other => Err(Error::TlsVersion(other.to_owned())),
    };
    let min = read("tls-min-version", TlsVersion::Tls12)?;
    let max = read("tls-max-version", TlsVersion::Tls13)?;
    if min > max {
        let text = |name: &str| settings.text(name);
        return Err(Error::TlsVersions {
            min: text("tls-min-version"),
            max: text("tls-max-version"),
        });
    }
    Ok((min, max))
}

fn cipher_suites(settings: &Settings) -> Result<Vec<CipherSuite>, Error> {
    let names = settings.texts("cipher-suites");
    let names = names.into_iter().filter(|name| !name.is_empty());
    names.map(|name| cipher::find(&name).ok_or(Error::CipherSuite(name))).collect()
}

/// Refuses addresses of `https` for which there is no certificate, and tells of certificates that
/// an address of `http` makes no use of.
pub(super) fn check_urls(
    client: &Tls,
    peer: &Tls,
    urls: [(&'static str, &[Url]); 5],
    notices: &mut Vec<Notice>,
) -> Result<(), Error> {
    // Nobody is surprised that these are plain.
    let beside = ["--listen-metrics-urls", "--listen-console-urls"];
    for (setting, urls) in urls {
        let is_peer = setting == "--listen-peer-urls";
        let tls = if is_peer { peer } else { client };
        for url in urls {
            if url.is_tls() && !tls.is_on() {
                let url = url.to_string();
                return Err(match setting {
                    "--listen-client-urls" | "--listen-client-http-urls" => {
                        Error::NoClientCert { url }
                    }
                    _ => Error::NoCert { address: address(&url).to_owned() },
                });
            }
            if !url.is_tls() && !beside.contains(&setting) {
                let side = if is_peer { "peer" } else { "client" };
                if tls.is_on() {
                    notices.push(Notice::CertUnused { side, url: url.to_string() });
                }
                if tls.client_cert_auth {
                    notices.push(Notice::CertAuthUnused { side, url: url.to_string() });
                }
            }
        }
    }
    Ok(())
}

fn address(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address)
}
