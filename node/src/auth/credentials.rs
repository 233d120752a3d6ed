//! What a client shows of itself with a call: a token in its metadata, or the name in a certificate
//! that was verified for its connection.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

/// Metadata that holds a token, the first before the second.
const TOKEN: &str = "token";
const AUTHORIZATION: &str = "authorization";
const BEARER: &str = "Bearer ";

/// What a client shows. Nothing of it is verified but the certificate.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    token: Option<String>,
    /// The common name in the certificate.
    common_name: Option<Arc<str>>,
}

impl Credentials {
    /// Of one call. `common_name` is that of a client's certificate which the transport has
    /// verified; a call that did not come from the client itself has none.
    pub fn read(headers: &HeaderMap, common_name: Option<Arc<str>>) -> Self {
        let value = headers.get(TOKEN).or_else(|| headers.get(AUTHORIZATION));
        let token = value.map(|value| {
            // What is no text is no token of anybody.
            let text = String::from_utf8_lossy(value.as_bytes());
            text.strip_prefix(BEARER).unwrap_or(&text).to_owned()
        });
        Self { token, common_name }
    }

    /// The token, if one was shown, however wrong.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The name in the certificate.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials")
            .field("has_token", &self.token.is_some())
            .field("common_name", &self.common_name)
            .finish()
    }
}
