//! The cipher suites by the names that etcd takes: which of them this node serves. TLS 1.3 has
//! suites of its own, which cannot be chosen, with etcd neither.

/// A suite that etcd knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSuite(&'static str);

/// Forward secret and authenticated: the ones that are served.
const SERVED: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Known to etcd and not served: those of TLS 1.3, which are always on, and those without forward
/// secrecy or with a mode of old.
const OTHERS: [&str; 19] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

/// The suite of a name, if etcd has one.
pub(super) fn find(name: &str) -> Option<CipherSuite> {
    // Two have a short name of old.
    let name = match name {
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            format!("{name}_SHA256")
        }
        _ => name.to_owned(),
    };
    SERVED.iter().chain(&OTHERS).find(|known| **known == name).map(|known| CipherSuite(known))
}

impl CipherSuite {
    /// The name that the registry of TLS has for it.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// False for a suite that nobody gets although it was asked for.
    pub fn is_served(self) -> bool {
        SERVED.contains(&self.0)
    }

    /// HTTP/2 has two suites of which a server must have one.
    pub(super) fn is_required_by_http2(self) -> bool {
        self.0.starts_with("TLS_ECDHE_") && self.0.ends_with("_WITH_AES_128_GCM_SHA256")
    }
}
