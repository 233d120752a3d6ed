//! The pages on the client port: health, version, metrics. Texts, codes and headers are etcd's.

use bytes::Bytes;
use flotilla_core::Error;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::spine::state::ALARM_CORRUPT;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, HOST, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method as Verb, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::body::Body;

use super::maintenance::alarm_name;
use super::service::Service;
use super::{Context, Door, exposition, gateway, log_level, read};
use crate::metrics::{self, upstream};
use crate::{CLUSTER_VERSION, ETCD_VERSION};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EXPOSITION: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Paths of etcd's second API begin so.
const V2: &str = "/v2/";
const V2_GONE: &str = "404 page not found\nThe v2 API is not served. Use the v3 API: gRPC, or JSON \
                       under /v3/ (etcdctl with ETCDCTL_API=3).";

/// Answers a request that is not gRPC.
pub(super) async fn answer(service: &Service, request: Request<Incoming>) -> Response<Body> {
    let Service { context, origin, .. } = service;
    match origin.door {
        Door::Everything | Door::Pages => {}
        Door::Grpc | Door::Console => return error(StatusCode::NOT_FOUND, "404 page not found"),
        Door::Metrics => return measured(context, &request).await,
    }
    // A certificate has a name already, which no web page can change.
    if let Some(host) = unwelcome_host(context, &request).filter(|_| !origin.is_tls) {
        let text = format!(
            "The host {host:?} is not welcome here: it is not in --host-whitelist. Without TLS, \
             names are checked so that no web page can reach this node by rebinding a name."
        );
        return error(StatusCode::MISDIRECTED_REQUEST, &text);
    }
    let origin = allowed_origin(context, &request);
    let mut response = if request.method() == Verb::OPTIONS {
        Response::new(Body::empty())
    } else {
        page(service, request).await
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

async fn page(service: &Service, request: Request<Incoming>) -> Response<Body> {
    let context = &service.context;
    match request.uri().path() {
        path if gateway::has(path) && context.config.enable_grpc_gateway => {
            gateway::answer(service, request).await
        }
        log_level::PATH => log_level::change(service, request).await,
        path if path.starts_with(V2) => error(StatusCode::NOT_FOUND, V2_GONE),
        "/version" if request.method() == Verb::GET => version(context),
        "/version" => not_get(),
        _ => measured(context, &request).await,
    }
}

/// The pages of an address for metrics, which are served at the others, too.
async fn measured<B>(context: &Context, request: &Request<B>) -> Response<Body> {
    let path = request.uri().path();
    let query = Query(request.uri().query().unwrap_or(""));
    let is_get = request.method() == Verb::GET;
    if let Some(probe) = Probe::find(path) {
        return if is_get { probe.run(context, query).await } else { not_get() };
    }
    match path {
        "/health" if is_get => health(context, query).await,
        "/metrics" => exposition(context),
        "/health" => not_get(),
        _ => error(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

async fn health(context: &Context, query: Query<'_>) -> Response<Body> {
    let reason = unwell(context, query).await;
    metrics::health(reason.is_none());
    let is_well = if reason.is_none() { "true" } else { "false" };
    let reason = serde_json::Value::String(reason.unwrap_or_default());
    let body = format!("{{\"health\":\"{is_well}\",\"reason\":{reason}}}");
    if is_well == "true" {
        respond(StatusCode::OK, TEXT, body)
    } else {
        error(StatusCode::SERVICE_UNAVAILABLE, &body)
    }
}

/// The first thing that is wrong with the node, in etcd's order.
async fn unwell(context: &Context, query: Query<'_>) -> Option<String> {
    let board = context.board();
    let is_excluded = |kind: i32| query.all("exclude").any(|name| *name == alarm_name(kind));
    let mut alarms = board.notice().alarms.into_iter().map(|(kind, _)| kind);
    if let Some(kind) = alarms.find(|kind| !is_excluded(*kind)) {
        let is_known = pb::AlarmType::try_from(kind).is_ok();
        let name = if is_known { alarm_name(kind) } else { "UNKNOWN".to_owned() };
        return Some(format!("ALARM {name}"));
    }
    let is_local = query.all("serializable").next().as_deref() == Some("true");
    if !is_local && board.leader() == 0 {
        return Some("RAFT NO LEADER".to_owned());
    }
    let read = try_read(context, is_local).await;
    read.err().map(|error| format!("RANGE ERROR:{error}"))
}

async fn try_read(context: &Context, is_local: bool) -> Result<(), Error> {
    let head = if is_local { context.board().head() } else { context.router.ticket().await? };
    let request = pb::RangeRequest {
        key: Bytes::from_static(b"\0"),
        limit: 1,
        keys_only: true,
        serializable: is_local,
        ..pb::RangeRequest::default()
    };
    read::range(context, head, request, None).await?;
    Ok(())
}

/// A check of /livez or /readyz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, context: &Context) -> Result<(), String> {
        let board = context.board();
        match self {
            Self::DataCorruption => {
                let alarms = board.notice().alarms;
                if alarms.iter().any(|(kind, _)| *kind == ALARM_CORRUPT) {
                    return Err("alarm activated: CORRUPT".to_owned());
                }
            }
            Self::SerializableRead => {
                try_read(context, true).await.map_err(|error| error.to_string())?;
            }
            Self::LinearizableRead => {
                // Who asks for the members next is to find where this one is reached.
                if !board.is_announced() {
                    return Err("this member is not announced yet".to_owned());
                }
                let leaderless = board.leaderless_ranges();
                if leaderless > 0 {
                    return Err(format!("{leaderless} ranges have no leader"));
                }
                try_read(context, false).await.map_err(|error| error.to_string())?;
            }
            Self::NonLearner => {
                if board.is_learner() {
                    return Err("not supported for learner".to_owned());
                }
            }
        }
        Ok(())
    }
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

/// A page of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probe {
    root: &'static str,
    /// All checks of the page, or the one that the path names.
    checks: &'static [Check],
    is_root: bool,
}

impl Probe {
    fn find(path: &str) -> Option<Self> {
        for (root, checks) in [("livez", LIVEZ), ("readyz", READYZ)] {
            let Some(rest) = path.strip_prefix('/').and_then(|path| path.strip_prefix(root)) else {
                continue;
            };
            if rest.is_empty() {
                return Some(Self { root, checks, is_root: true });
            }
            let name = rest.strip_prefix('/')?;
            let at = checks.iter().position(|check| check.name() == name)?;
            return Some(Self { root, checks: &checks[at..=at], is_root: false });
        }
        None
    }

    async fn run(self, context: &Context, query: Query<'_>) -> Response<Body> {
        let mut report = String::new();
        let mut is_well = true;
        for check in self.checks {
            let name = check.name();
            if self.is_root && query.all("exclude").any(|excluded| excluded == name) {
                continue;
            }
            let result = check.run(context).await;
            metrics::health_check(self.root, name, result.is_ok());
            match result {
                Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => {
                    is_well = false;
                    report.push_str(&format!("[-]{name} failed: {reason}\n"));
                }
            }
        }
        if !is_well {
            return error(StatusCode::SERVICE_UNAVAILABLE, &report);
        }
        if query.all("verbose").next().is_none() {
            report.clear();
        }
        report.push_str("ok\n");
        unsniffed(StatusCode::OK, report)
    }
}

fn version(context: &Context) -> Response<Body> {
    let cluster = context.board().notice().cluster_version;
    let cluster = if cluster.is_empty() { "not_decided" } else { &cluster };
    let body = format!(
        "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{cluster}\",\
         \"storage\":\"{CLUSTER_VERSION}\"}}"
    );
    respond(StatusCode::OK, JSON, body)
}

fn exposition(context: &Context) -> Response<Body> {
    let text = exposition::text(&context.config, &context.router, &context.metrics);
    ::metrics::counter!(upstream::SCRAPES, "code" => "200").increment(1);
    respond(StatusCode::OK, EXPOSITION, text)
}

fn not_get() -> Response<Body> {
    not_allowed("GET")
}

pub(super) fn not_allowed(verb: &'static str) -> Response<Body> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(verb));
    response
}

/// As Go's http.Error writes it.
fn error(code: StatusCode, text: &str) -> Response<Body> {
    unsniffed(code, format!("{text}\n"))
}

fn unsniffed(code: StatusCode, body: String) -> Response<Body> {
    let mut response = respond(code, TEXT, body);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn respond(code: StatusCode, content_type: HeaderValue, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The host that a request names, if requests for it are not answered.
fn unwelcome_host<B>(context: &Context, request: &Request<B>) -> Option<String> {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(HOST)?.to_str().ok()?,
    };
    let host = without_port(host);
    (!context.config.host_whitelist.allows(host)).then(|| host.to_owned())
}

/// A host as a request names it, without its port.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The last part of an IPv6 address in brackets is no port.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// What to name as allowed origin, if the request's is one.
fn allowed_origin<B>(context: &Context, request: &Request<B>) -> Option<HeaderValue> {
    use crate::config::AllowList;
    match &context.config.cors {
        AllowList::Any => Some(HeaderValue::from_static("*")),
        AllowList::Only(_) => {
            let origin = request.headers().get(ORIGIN)?;
            context.config.cors.allows(origin.to_str().ok()?).then(|| origin.clone())
        }
    }
}

/// The part of an address behind the question mark.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// The values of a name, in order.
    fn all(self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        self.0.split('&').filter_map(move |pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name).then(|| decoded(value))
        })
    }
}

/// Undoes the encoding of a query; what is wrongly encoded stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let hex = after.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query("exclude=NOSPACE&verbose&exclude=a%20b+c%zz%+5&other=1");
        assert_eq!(query.all("exclude").collect::<Vec<_>>(), ["NOSPACE", "a b c%zz% 5"]);
        assert_eq!(query.all("verbose").collect::<Vec<_>>(), [""]);
        assert_eq!(query.all("serializable").count(), 0);
    }

    #[test]
    fn checks_are_found_by_their_paths() {
        let livez = Probe { root: "livez", checks: LIVEZ, is_root: true };
        assert_eq!(Probe::find("/livez"), Some(livez));
        let readyz = Probe { root: "readyz", checks: READYZ, is_root: true };
        assert_eq!(Probe::find("/readyz"), Some(readyz));
        let one = Probe { root: "readyz", checks: &[Check::NonLearner], is_root: false };
        assert_eq!(Probe::find("/readyz/non_learner"), Some(one));
        for path in ["/livez/non_learner", "/livezz", "/readyz/", "/", "/health"] {
            assert_eq!(Probe::find(path), None, "{path}");
        }
    }

    #[test]
    fn hosts_lose_their_ports() {
        for (given, wanted) in
            [("a:1", "a"), ("a", "a"), ("[::1]:2379", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(given), wanted);
        }
    }
}
