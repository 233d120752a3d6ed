//! The level of the log, changed while the node runs: `PUT /config/local/log` with `{"Level":"DEBUG"}`,
//! as etcd had it up to 3.4. While authentication is on, only root may.

use bytes::Bytes;
use http::{HeaderValue, Method as Verb, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tonic::body::Body;

use super::guard::{Client, Guard};
use super::http::{JSON, not_allowed, respond};
use super::service::Service;
use crate::auth::Credentials;
use crate::config::LogLevel;
use crate::logging;

pub(super) const PATH: &str = "/config/local/log";
/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 1 << 10;
const NOTHING: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

#[derive(Deserialize)]
struct Wish {
    #[serde(alias = "level")]
    #[serde(rename = "Level")]
    level: String,
}

/// Answers a request of the page.
pub(super) async fn change(service: &Service, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Verb::PUT {
        return not_allowed("PUT");
    }
    let common_name = service.origin.common_name.clone().map(std::sync::Arc::from);
    let client =
        Client::new(Credentials::read(request.headers(), common_name), service.origin.from);
    if let Err(error) = client.admit(&service.context, Guard::RootHere).await {
        return refuse(StatusCode::UNAUTHORIZED, error.text());
    }
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
    let wish: Option<Wish> = body.ok().and_then(|body: http_body_util::Collected<Bytes>| {
        serde_json::from_slice(&body.to_bytes()).ok()
    });
    let Some(Wish { level }) = wish else {
        return refuse(StatusCode::BAD_REQUEST, "Invalid json body");
    };
    let Some(wanted) = parse(&level) else {
        return refuse(StatusCode::BAD_REQUEST, &format!("Invalid log level {level}"));
    };
    if !logging::set_level(wanted) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "nothing is logged");
    }
    tracing::warn!(level, "the level of the log was changed");
    respond(StatusCode::NO_CONTENT, NOTHING, String::new())
}

/// The names of levels, in any case, and those that etcd's older logger had beside them.
fn parse(level: &str) -> Option<LogLevel> {
    Some(match level.to_ascii_lowercase().as_str() {
        "debug" | "trace" => LogLevel::Debug,
        "info" | "notice" => LogLevel::Info,
        "warn" | "warning" => LogLevel::Warn,
        "error" => LogLevel::Error,
        "panic" | "critical" => LogLevel::Panic,
        "fatal" => LogLevel::Fatal,
        _ => return None,
    })
}

fn refuse(code: StatusCode, message: &str) -> Response<Body> {
    let message = serde_json::Value::from(message);
    respond(code, JSON, format!("{{\"message\":{message}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_names_in_any_case() {
        assert_eq!(parse("DEBUG"), Some(LogLevel::Debug));
        assert_eq!(parse("Warning"), Some(LogLevel::Warn));
        assert_eq!(parse("fatal"), Some(LogLevel::Fatal));
        assert_eq!(parse("nonsense"), None);
    }
}
