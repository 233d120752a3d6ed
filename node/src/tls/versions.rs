//! The versions and the suites that the configuration allows, in the terms of the library.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

use crate::config::{Tls, TlsVersion};

static ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
static ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];
static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

pub(super) fn versions(tls: &Tls) -> &'static [&'static SupportedProtocolVersion] {
    match (tls.min_version, tls.max_version) {
        (TlsVersion::Tls12, TlsVersion::Tls12) => ONLY_12,
        (TlsVersion::Tls13, _) => ONLY_13,
        (TlsVersion::Tls12, TlsVersion::Tls13) => BOTH,
    }
}

/// The cryptography with the suites of TLS 1.2 cut down to those that were chosen. Those of TLS 1.3
/// cannot be chosen.
pub(super) fn provider(tls: &Tls) -> Arc<CryptoProvider> {
    let provider = super::provider();
    if tls.cipher_suites.is_empty() {
        return provider;
    }
    let mut provider = Arc::unwrap_or_clone(provider);
    provider.cipher_suites.retain(|suite| {
        let name = suite.suite().as_str();
        suite.tls13().is_some()
            || tls.cipher_suites.iter().any(|chosen| Some(chosen.name()) == name)
    });
    Arc::new(provider)
}
