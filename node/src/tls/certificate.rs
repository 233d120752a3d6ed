//! What a certificate says of its holder. The one place that reads inside of certificates.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The common name of a certificate that was checked: who a client is, to authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct CommonName(Arc<str>);

impl CommonName {
    /// The name, which is not empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<CommonName> for Arc<str> {
    fn from(name: CommonName) -> Self {
        name.0
    }
}

impl fmt::Debug for CommonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The parts that are compared with something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) common_name: Option<CommonName>,
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// Big-endian, without zeros in front.
    pub(super) serial: Vec<u8>,
}

impl Holder {
    /// Of an encoded certificate.
    pub(super) fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let names = certificate.subject().iter_common_name();
        // The last one counts, as in Go.
        let common_name = names.last().and_then(|name| name.as_str().ok());
        let common_name = common_name.filter(|name| !name.is_empty());
        let mut holder = Self {
            common_name: common_name.map(|name| CommonName(name.into())),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            serial: serial(certificate.raw_serial()),
        };
        let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => holder.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => holder.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(holder)
    }
}

/// Serial numbers are compared as numbers: one encoder puts a zero in front and another none.
pub(super) fn serial(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
