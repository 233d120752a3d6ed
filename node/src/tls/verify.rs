//! Whether the other end's certificate counts: signed by the right one, of an allowed name, not
//! revoked. The chain is the library's business; what etcd asks beyond it is checked here.

use std::net::IpAddr;
use std::sync::Arc;
use std::{fmt, io};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::certificate::Holder;
use super::crl::Revoked;
use super::files::{self, Error};
use crate::config::{AllowedNames, Tls};

/// What is asked of a certificate beyond its chain.
#[derive(Clone, Debug)]
struct Terms {
    allowed: AllowedNames,
    revoked: Revoked,
}

impl Terms {
    fn of(tls: &Tls) -> Result<Self, Error> {
        Ok(Self { allowed: tls.allowed.clone(), revoked: files::revoked(tls.crl.as_deref())? })
    }

    fn check(
        &self,
        end: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let holder = read(end)?;
        for certificate in std::iter::once(&holder).cloned().map(Ok).chain(above.iter().map(read)) {
            if self.revoked.has(&certificate?.serial) {
                return Err(CertificateError::Revoked.into());
            }
        }
        let is_allowed = match &self.allowed {
            AllowedNames::Any => true,
            AllowedNames::CommonNames(names) => {
                let name = holder.common_name.as_ref();
                name.is_some_and(|name| names.iter().any(|allowed| allowed == name.as_str()))
            }
            AllowedNames::Hosts(hosts) => hosts.iter().any(|host| is_good_for(end, host)),
        };
        if is_allowed {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Holder, rustls::Error> {
    Holder::read(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// Whether a certificate names a host or an address, with wildcards as everywhere in TLS.
fn is_good_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else { return false };
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
    certificate.verify_is_valid_for_subject_name(&name).is_ok()
}

/// Checks those who connect to this node. `None`: nobody is asked for a certificate.
pub(super) fn of_clients(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    // As with etcd, naming who may sign is asking for certificates.
    if !tls.client_cert_auth && tls.trusted_ca.is_none() {
        return Ok(None);
    }
    let roots = Arc::new(files::roots(tls.trusted_ca.as_deref())?);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
    let chain = chain.map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Some(Arc::new(OfClients { chain, terms: Terms::of(tls)? })))
}

#[derive(Debug)]
struct OfClients {
    chain: Arc<dyn ClientCertVerifier>,
    terms: Terms,
}

impl ClientCertVerifier for OfClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end, above, now)?;
        self.terms.check(end, above)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Checks those to whom this node connects.
pub(super) fn of_servers(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if tls.is_auto {
        return Ok(Arc::new(Unchecked { provider: provider.clone() }));
    }
    let roots = Arc::new(files::roots(tls.trusted_ca.as_deref())?);
    let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
    let chain = chain.map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Arc::new(OfServers { chain, terms: Terms::of(tls)? }))
}

#[derive(Debug)]
struct OfServers {
    chain: Arc<WebPkiServerVerifier>,
    terms: Terms,
}

impl ServerCertVerifier for OfServers {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.chain.verify_server_cert(end, above, name, ocsp, now)?;
        self.terms.check(end, above)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Takes any certificate whose holder has its key: generated ones are known to nobody. What it
/// gives is encryption, and no knowledge of who is there.
struct Unchecked {
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked")
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate that names addresses or hosts names the one that it comes from. Asks the
/// resolver, so it is awaited within the handshake's deadline.
///
/// # Errors
/// It does not, in etcd's words.
pub(super) async fn comes_from(certificate: &[u8], from: IpAddr) -> io::Result<()> {
    let holder = Holder::read(certificate).map_err(io::Error::other)?;
    let names_nothing = holder.addresses.is_empty() && holder.dns_names.is_empty();
    let from = from.to_canonical();
    if names_nothing || holder.addresses.contains(&from) {
        return Ok(());
    }
    let names = holder.dns_names.clone();
    let found = tokio::task::spawn_blocking(move || names.iter().any(|name| leads_to(name, from)));
    if found.await.map_err(io::Error::other)? {
        return Ok(());
    }
    let (from, names) = (from.to_string(), holder.dns_names);
    Err(io::Error::other(format!("tls: {from:?} does not match any of DNSNames {names:?}")))
}

/// A name leads to its addresses; a wildcard is held against the names of the address.
fn leads_to(name: &str, from: IpAddr) -> bool {
    use std::net::ToSocketAddrs;
    match name.strip_prefix("*.") {
        None => (name, 0).to_socket_addrs().is_ok_and(|mut addresses| {
            addresses.any(|address| address.ip().to_canonical() == from)
        }),
        Some(domain) => dns_lookup::lookup_addr(&from).is_ok_and(|host| {
            let host = host.trim_end_matches('.');
            host.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(domain))
        }),
    }
}
