//! The parts that no handshake from outside shows by itself.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair as Key};
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;

use super::certificate::{Holder, serial};
use super::crl::Revoked;
use super::{Acceptor, generate};
use crate::config::{KeyPair, Tls, Url};

fn urls() -> Vec<Url> {
    let texts = ["https://127.0.0.1:1", "https://localhost:1", "https://localhost:2", "unixs://x"];
    texts.map(|text| Url::parse(text).expect("an address")).into()
}

#[test]
fn a_generated_pair_is_kept_and_readable_for_its_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("fixtures/client");
    let urls = urls();
    let urls: Vec<&Url> = urls.iter().collect();
    let pair = generate::key_pair(&folder, &urls, 1).expect("a pair");
    for file in [&pair.cert, &pair.key] {
        let mode = std::fs::metadata(file).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let before = std::fs::read(&pair.cert).expect("it was written");
    assert_eq!(generate::key_pair(&folder, &urls, 9).expect("the same pair"), pair);
    assert_eq!(std::fs::read(&pair.cert).expect("it is there"), before);
    let (certificates, _) = super::files::key_pair(&pair).expect("a pair");
    let holder = Holder::read(&certificates[0]).expect("a certificate");
    assert_eq!(holder.dns_names, ["localhost"]);
    assert_eq!(holder.addresses, ["127.0.0.1".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(holder.common_name, None);
    // A lifetime that no calendar has is cut, not a crash.
    generate::key_pair(&folder.join("long"), &urls, u64::MAX).expect("a pair");
}

#[test]
fn the_last_common_name_counts_and_an_empty_one_is_none() {
    let name = |names: &[&str]| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for name in names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        let key = Key::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let holder = Holder::read(certificate.der()).expect("a certificate");
        holder.common_name.map(|name| name.as_str().to_owned())
    };
    assert_eq!(name(&["alice"]).as_deref(), Some("alice"));
    assert_eq!(name(&[]), None);
    assert_eq!(name(&[""]), None);
    assert!(Holder::read(b"no certificate").is_err());
}

#[test]
fn serial_numbers_are_numbers() {
    assert_eq!(serial(&[0, 0, 0x80, 1]), serial(&[0x80, 1]));
    assert_ne!(serial(&[0x80, 0]), serial(&[0x80]));
}

#[test]
fn what_is_no_list_of_revocations_is_refused() {
    for bytes in [&b""[..], b"nothing", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"]
    {
        assert!(Revoked::read(bytes).is_err(), "{bytes:?}");
    }
    assert!(!Revoked::default().has(&[1]));
}

#[tokio::test]
async fn a_handshake_too_many_is_hung_up_on_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair: KeyPair = generate::key_pair(folder.path(), &[], 1).expect("a pair");
    let tls = Tls { server: Some(pair), ..Tls::of_client(None, None) };
    let mut acceptor = Acceptor::open(&tls).expect("a pair that fits");
    acceptor.under_way = Arc::new(Semaphore::new(1));
    let (_first, theirs) = tokio::io::duplex(64);
    let (mut second, theirs_too) = tokio::io::duplex(64);
    let stuck = tokio::spawn({
        let acceptor = acceptor.clone();
        async move { acceptor.handshake(theirs, None).await.is_ok() }
    });
    while acceptor.under_way.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let error = acceptor.handshake(theirs_too, None).await.err().expect("there is no place");
    assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy);
    assert_eq!(second.read(&mut [0; 1]).await.expect("a hang-up is no error"), 0);
    stuck.abort();
    while acceptor.under_way.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
}
