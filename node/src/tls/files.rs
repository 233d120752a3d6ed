//! The files of certificates, keys and revocations: reading them, and noticing that they changed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::crl::Revoked;
use crate::config::{KeyPair, Tls};

/// Why there is no TLS with what was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In Go's words, which people search for.
    #[error("open {path}: {source}", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    /// The file is there and holds something else.
    #[error("{path}: {reason}", path = path.display())]
    Content { path: PathBuf, reason: String },
    /// The certificate is of another key, in Go's words.
    #[error("tls: private key does not match public key ({cert}, {key})", cert = cert.display(), key = key.display())]
    Mismatch { cert: PathBuf, key: PathBuf },
    /// This machine trusts nobody, and no other signer was named.
    #[error("no trusted CA was given, and this machine has none: {0}")]
    NoSystemRoots(String),
    /// The parts do not make a whole.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    /// A certificate could not be generated.
    #[error("cannot generate a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// A generated certificate could not be kept.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Largest file that is read: no certificate, bundle or list of revocations comes near it.
const FILE_BYTES_MAX: u64 = 64 << 20;

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        let reason = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(Error::Content { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}

fn content(path: &Path, reason: impl ToString) -> Error {
    Error::Content { path: path.to_owned(), reason: reason.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| content(path, error))?;
    if certificates.is_empty() {
        return Err(content(path, "holds no certificate in PEM"));
    }
    Ok(certificates)
}

/// A certificate with those above it, and its key. Whether they belong together is checked where
/// they are put to use.
pub(super) fn key_pair(
    pair: &KeyPair,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let certificates = certificates(&pair.cert)?;
    let bytes = read(&pair.key)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| content(&pair.key, error))?;
    Ok((certificates, key))
}

/// Gives the error of a pair that does not belong together its words.
pub(super) fn of_pair(pair: &KeyPair, error: rustls::Error) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::Mismatch { cert: pair.cert.clone(), key: pair.key.clone() }
        }
        error => content(&pair.cert, error),
    }
}

/// Who may sign the certificates of the other end: those in the file, or whom this machine trusts.
pub(super) fn roots(trusted: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match trusted {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| content(path, error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
                return Err(Error::NoSystemRoots(reasons.join("; ")));
            }
        }
    }
    Ok(roots)
}

/// Which certificates are revoked; none without a file.
pub(super) fn revoked(path: Option<&Path>) -> Result<Revoked, Error> {
    let Some(path) = path else { return Ok(Revoked::default()) };
    Revoked::read(&read(path)?).map_err(|reason| content(path, reason))
}

/// What a file looks like from outside. Another one means that it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    /// Device, inode, size and time of the last change; `None` if there is no file.
    seen: Option<(u64, u64, u64, i64, i64)>,
}

/// The stamps of all files that a side names.
pub(super) fn stamps(tls: &Tls) -> Vec<Stamp> {
    let pairs = tls.server.iter().chain(&tls.client).flat_map(|pair| [&pair.cert, &pair.key]);
    let files = pairs.chain(&tls.trusted_ca).chain(&tls.crl);
    files.map(|path| Stamp { path: path.clone(), seen: look(path) }).collect()
}

/// Follows links: Kubernetes exchanges secrets by pointing a link elsewhere.
fn look(path: &Path) -> Option<(u64, u64, u64, i64, i64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}
