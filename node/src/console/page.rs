//! From a request to a page: the files of the console, which are part of the program, and what they show,
//! as JSON under `/api/`. Every answer forbids the browser to run or load anything from elsewhere.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::refusal::Refusal;
use super::{Desk, admit, cluster, heat, load, map};
use crate::tls::CommonName;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const CSS: HeaderValue = HeaderValue::from_static("text/css; charset=utf-8");
const SCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
const SVG: HeaderValue = HeaderValue::from_static("image/svg+xml");

/// On every answer.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// The files, by path.
const FILES: [(&str, HeaderValue, &str); 8] = [
    ("/", HTML, include_str!("assets/index.html")),
    ("/console.css", CSS, include_str!("assets/console.css")),
    ("/icon.svg", SVG, include_str!("assets/icon.svg")),
    ("/main.js", SCRIPT, include_str!("assets/main.js")),
    ("/show.js", SCRIPT, include_str!("assets/show.js")),
    ("/map.js", SCRIPT, include_str!("assets/map.js")),
    ("/heat.js", SCRIPT, include_str!("assets/heat.js")),
    ("/tables.js", SCRIPT, include_str!("assets/tables.js")),
];

/// What is known of the other end of a connection.
pub(super) struct From {
    pub(super) is_tls: bool,
    pub(super) common_name: Option<CommonName>,
}

/// Answers a request.
pub(super) async fn answer<B>(
    desk: &Desk,
    from: &From,
    request: Request<B>,
) -> Response<Full<Bytes>> {
    let answered = find(desk, from, &request).await;
    let mut response = answered.unwrap_or_else(|refusal| refusal.response());
    response.headers_mut().extend(HEADERS);
    response
}

async fn find<B>(
    desk: &Desk,
    from: &From,
    request: &Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let router = &desk.teller.router;
    if !from.is_tls {
        admit::check_host(&desk.teller.config.host_whitelist, request)?;
    }
    desk.doorkeeper.admit(router, request.headers(), from.common_name.clone()).await?;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Refusal::NotGet);
    }
    let path = request.uri().path();
    if let Some((_, kind, text)) = FILES.iter().find(|(file, ..)| *file == path) {
        return Ok(respond(StatusCode::OK, kind.clone(), *text));
    }
    let picture = desk.picture();
    match path {
        "/api/cluster" => told(&cluster::Cluster::of(&picture, router.gate().is_enabled())),
        "/api/members" => told(&cluster::Members::of(&picture)),
        "/api/map" => told(&map::Map::of(&picture)),
        "/api/ranges" => {
            let page = map::Page::read(request.uri().query().unwrap_or_default())?;
            told(&map::Ranges::of(&picture, page))
        }
        "/api/heat" => told(&heat::Heat::of(&picture, &desk.history)),
        "/api/watches" => told(&load::Watches::of(&picture)),
        "/api/leases" => told(&load::Leases::of(&picture)),
        "/api/hot" => told(&load::HotNames::of(&picture)),
        "/api/decisions" => {
            let store = router.store().clone();
            told(&load::Decisions::of(&picture, store).await?)
        }
        _ => Err(Refusal::NotFound),
    }
}

fn told(answer: &impl Serialize) -> Result<Response<Full<Bytes>>, Refusal> {
    let body = serde_json::to_vec(answer).expect("answers are plain, with texts as keys");
    Ok(respond(StatusCode::OK, JSON, body))
}

pub(super) fn respond(
    status: StatusCode,
    kind: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
