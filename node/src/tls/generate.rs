//! A self-signed certificate for a node that was given none.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose,
};

use super::files::Error;
use crate::config::{Endpoint, KeyPair, Url};

/// As etcd counts years.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// No certificate of any use lives longer, and longer ones do not fit the calendar.
const YEARS_MAX: u64 = 1_000;

/// The pair in `folder`, made when it is not there: a restart shows the same one. It is good for the
/// hosts that the addresses name.
pub(super) fn key_pair(folder: &Path, urls: &[&Url], years: u64) -> Result<KeyPair, Error> {
    let pair = KeyPair { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
    if pair.cert.exists() && pair.key.exists() {
        return Ok(pair);
    }
    let mut hosts: Vec<String> = Vec::new();
    for url in urls {
        if let Endpoint::Tcp { host, .. } = url.endpoint()
            && !host.is_empty()
            && !hosts.contains(host)
        {
            hosts.push(host.clone());
        }
    }
    let key = rcgen::KeyPair::generate()?;
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "flotilla");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now();
    let years = u32::try_from(years.min(YEARS_MAX)).expect("it is at most a thousand");
    params.not_before = now.into();
    params.not_after = (now + YEAR * years).into();
    let certificate = params.self_signed(&key)?;
    let failed = |source| Error::Write { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    write(&pair.cert, certificate.pem().as_bytes())?;
    write(&pair.key, key.serialize_pem().as_bytes())?;
    tracing::warn!(folder = %folder.display(), years, "generated a self-signed certificate");
    Ok(pair)
}

/// Readable for this user alone.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|source| Error::Write { path: path.to_owned(), source })
}
