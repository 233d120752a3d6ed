//! Why a browser is not answered, as a status and a sentence in JSON: `{"error": "…"}`.

use bytes::Bytes;
use http::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::page::{JSON, respond};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is no such page")]
    NotFound,
    #[error("the console changes nothing: GET and HEAD are all that is answered")]
    NotGet,
    #[error("{name} is {given:?}, and must be {wanted}")]
    BadQuery { name: &'static str, given: String, wanted: &'static str },
    #[error(
        "the host {0:?} is not welcome here: use an address, localhost, or a name that \
         --host-whitelist lists. Without TLS, names are checked so that no web page can reach this \
         node by rebinding a name"
    )]
    UnwelcomeHost(String),
    #[error("authentication is on: the name and password of a user with the role root are needed")]
    Unauthenticated,
    #[error("only a user with the role root may look at the console")]
    NotRoot,
    #[error("too many passwords are being looked at")]
    Busy,
    #[error("the node is about to stop")]
    Stopping,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::NotGet => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::BadQuery { .. } => StatusCode::BAD_REQUEST,
            Refusal::UnwelcomeHost(_) => StatusCode::MISDIRECTED_REQUEST,
            Refusal::Unauthenticated => StatusCode::UNAUTHORIZED,
            Refusal::NotRoot => StatusCode::FORBIDDEN,
            Refusal::Busy | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "error": self.to_string() }).to_string();
        let mut response = respond(self.status(), JSON, body);
        let headers = response.headers_mut();
        match self {
            Refusal::Unauthenticated => {
                let basic = HeaderValue::from_static("Basic realm=\"flotilla\", charset=\"UTF-8\"");
                headers.insert(WWW_AUTHENTICATE, basic);
            }
            Refusal::NotGet => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Refusal::NotFound
            | Refusal::BadQuery { .. }
            | Refusal::UnwelcomeHost(_)
            | Refusal::NotRoot
            | Refusal::Busy
            | Refusal::Stopping => {}
        }
        response
    }
}
