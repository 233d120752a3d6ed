//! An authority that signs certificates for a test, and the blocking client that shows them.

#![allow(unreachable_pub, reason = "this is a module of one test binary")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

const HOUR: Duration = Duration::from_secs(3_600);
/// How long a node may leave a client without a word.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A certificate and its key, as files.
#[derive(Clone)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
    serial: SerialNumber,
}

/// What a certificate says.
pub struct Holder<'a> {
    pub common_name: &'a str,
    pub hosts: &'a [&'a str],
    pub is_expired: bool,
}

/// Signs certificates, and keeps all files in one folder.
pub struct Authority {
    pub folder: PathBuf,
    pub cert: PathBuf,
    pub crl: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (cert, crl) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.crl")));
        std::fs::write(&cert, certificate.pem()).expect("a file");
        let authority =
            Self { folder: folder.to_owned(), cert, crl, issuer: Issuer::new(params, key) };
        authority.revoke(&[]);
        authority
    }

    /// A certificate in the files `name`.pem and `name`.key. Files that are there are replaced.
    pub fn issue(&self, name: &str, holder: &Holder<'_>) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = holder.hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("hosts");
        params.distinguished_name = named(holder.common_name);
        let serial = SerialNumber::from(rand::random::<[u8; 16]>().to_vec());
        params.serial_number = Some(serial.clone());
        let now = SystemTime::now();
        params.not_before = (now - 2 * HOUR).into();
        params.not_after = if holder.is_expired { now - HOUR } else { now + HOUR }.into();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair {
            cert: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
            serial,
        };
        std::fs::write(&pair.cert, certificate.pem()).expect("a file");
        std::fs::write(&pair.key, key.serialize_pem()).expect("a file");
        pair
    }

    /// For a client of this name.
    pub fn client(&self, name: &str) -> Pair {
        self.issue(name, &Holder { common_name: name, hosts: &["client.test"], is_expired: false })
    }

    /// For a node on the loopback.
    pub fn node(&self, name: &str) -> Pair {
        let hosts = &["localhost", "127.0.0.1"];
        self.issue(name, &Holder { common_name: name, hosts, is_expired: false })
    }

    /// Writes the list of all that is revoked.
    pub fn revoke(&self, pairs: &[&Pair]) {
        let now = SystemTime::now();
        let revoked_certs = pairs.iter().map(|pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + HOUR).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list");
        std::fs::write(&self.crl, list.pem().expect("a list")).expect("a file");
    }

    /// GET over TLS: the page, and the certificate that the node showed.
    pub fn get(
        &self,
        port: u16,
        path: &str,
        shown: Option<&Pair>,
    ) -> io::Result<(String, Vec<u8>)> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(&self.cert).map_err(io::Error::other)?;
        roots.add(root).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match shown {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let cert = CertificateDer::from_pem_file(&pair.cert).map_err(io::Error::other)?;
                let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(io::Error::other)?;
                builder.with_client_auth_cert(vec![cert], key).map_err(io::Error::other)?
            }
        };
        let name = ServerName::try_from("127.0.0.1").map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let mut stream = Stream::new(&mut session, &mut socket);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let cert = session.peer_certificates().and_then(<[_]>::first);
        let cert = cert.map(|cert| cert.to_vec()).unwrap_or_default();
        Ok((String::from_utf8_lossy(&answer).into_owned(), cert))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
