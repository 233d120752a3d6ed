//! Certificates that are revoked. As with etcd a serial number that a list names is refused, whoever
//! signed the list: the file comes from this node's administrator.

use std::collections::BTreeSet;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::certificate::serial;

/// Serial numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revoked(BTreeSet<Vec<u8>>);

impl Revoked {
    /// Reads one list in DER, or any number of them in PEM.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let lists: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(bytes).collect();
        let lists = match lists {
            Ok(lists) if !lists.is_empty() => lists,
            _ => vec![CertificateRevocationListDer::from(bytes)],
        };
        let mut revoked = Self::default();
        for list in &lists {
            let (_, list) = CertificateRevocationList::from_der(list)
                .map_err(|_| "holds no list of revoked certificates in PEM or DER".to_owned())?;
            let certificates = list.iter_revoked_certificates();
            revoked.0.extend(certificates.map(|certificate| serial(certificate.raw_serial())));
        }
        Ok(revoked)
    }

    /// Whether a certificate of this number counts no more.
    pub(super) fn has(&self, serial: &[u8]) -> bool {
        self.0.contains(serial)
    }
}
