//! Spans of calls, as a collector of OpenTelemetry gets them.

mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_proto::etcdserverpb::PutRequest;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use harness::{Cluster, flotilla};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, status::StatusCode};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER_ID: &str = "b7ad6b7169203331";
const SENT_WITHIN: Duration = Duration::from_secs(60);

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().expect("no test has failed").extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let all = self.0.lock().expect("no test has failed");
        all.iter().flat_map(|it| &it.scope_spans).flat_map(|it| it.spans.clone()).collect()
    }

    /// The span of a call of this name, and of its phases.
    async fn until_seen(&self, name: &str, how_many: usize) -> Vec<(Span, Vec<Span>)> {
        let seen = async {
            loop {
                let (calls, others): (Vec<Span>, Vec<Span>) =
                    self.spans().into_iter().partition(|span| span.name == name);
                if calls.len() >= how_many {
                    let parts = |call: &Span| {
                        let is_part = |it: &&Span| it.parent_span_id == call.span_id;
                        others.iter().filter(is_part).cloned().collect()
                    };
                    return calls.iter().map(|call| (call.clone(), parts(call))).collect();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SENT_WITHIN, seen).await.expect("spans are sent")
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|it| it.key == key).expect("the attribute");
    match found.value.clone().expect("a value").value.expect("a value") {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn put(key: &str, traceparent: Option<&str>) -> Request<PutRequest> {
    let key = key.as_bytes().to_vec().into();
    let mut request = Request::new(PutRequest { key, ..PutRequest::default() });
    if let Some(parent) = traceparent {
        request.metadata_mut().insert("traceparent", parent.parse().expect("text"));
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_is_sampled_has_a_span_with_its_phases() {
    let (collector, address) = Collector::start().await;
    let flags = [
        "--enable-distributed-tracing".to_owned(),
        format!("--distributed-tracing-address={address}"),
        "--distributed-tracing-service-name=store".to_owned(),
        "--distributed-tracing-instance-id=one".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let cluster = Cluster::start_with(&flotilla(), 1, &flags);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    // Of these there is none.
    client.put(put("a", None)).await.expect("a put");
    let unsampled = format!("00-{TRACE_ID}-{CALLER_ID}-00");
    client.put(put("a", Some(&unsampled))).await.expect("a put");
    let sampled = format!("00-{TRACE_ID}-{CALLER_ID}-01");
    client.put(put("a", Some(&sampled))).await.expect("a put");
    let refused = client.put(put("", Some(&sampled))).await.expect_err("a key is missing");
    assert_eq!(refused.code(), Code::InvalidArgument);

    let seen = collector.until_seen("etcdserverpb.KV/Put", 2).await;
    assert_eq!(seen.len(), 2, "{seen:#?}");
    for ((call, phases), code) in seen.iter().zip(["0", "3"]) {
        assert_eq!(
            (hex(&call.trace_id).as_str(), hex(&call.parent_span_id).as_str()),
            (TRACE_ID, CALLER_ID)
        );
        assert_eq!(call.kind(), SpanKind::Server);
        assert_eq!(text(&call.attributes, "rpc.system"), "grpc");
        assert_eq!(text(&call.attributes, "rpc.service"), "etcdserverpb.KV");
        assert_eq!(text(&call.attributes, "rpc.method"), "Put");
        assert_eq!(text(&call.attributes, "rpc.grpc.status_code"), code);
        let status = call.status.clone().unwrap_or_default();
        assert_eq!(status.code(), StatusCode::Unset, "the client was wrong, not the server");
        assert!(phases.iter().all(|it| hex(&it.trace_id) == TRACE_ID));
        let names: Vec<&str> = phases.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names.contains(&"flush"), code == "0", "{names:?}");
        let took = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
        assert!(!phases.is_empty());
        assert_eq!(phases.iter().map(took).sum::<u64>(), took(call), "the phases are the whole");
    }
    let resources = collector.0.lock().expect("no test has failed").clone();
    for resource in resources {
        let attributes = resource.resource.expect("a resource").attributes;
        assert_eq!(text(&attributes, "service.name"), "store");
        assert_eq!(text(&attributes, "service.instance.id"), "one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_chance_calls_without_a_caller_have_spans_and_the_last_are_sent_at_the_end() {
    let (collector, address) = Collector::start().await;
    let address = format!("--distributed-tracing-address={address}");
    let rate = "--distributed-tracing-sampling-rate=1000000";
    let flags = ["--enable-distributed-tracing", address.as_str(), rate];
    let mut cluster = Cluster::start_with(&flotilla(), 1, &flags);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    for _ in 0..10 {
        client.put(put("a", None)).await.expect("a put");
    }
    assert!(cluster.stop(0).success());
    let seen = collector.until_seen("etcdserverpb.KV/Put", 10).await;
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|(call, _)| call.parent_span_id.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_keeps_nobody_waiting() {
    let rate = "--distributed-tracing-sampling-rate=1000000";
    // Nothing listens on the port of discarding.
    let address = "--distributed-tracing-address=127.0.0.1:9";
    let flags = ["--enable-distributed-tracing", address, rate];
    let mut cluster = Cluster::start_with(&flotilla(), 1, &flags);
    let mut client = KvClient::connect(cluster.endpoint(0)).await.expect("a ready node");
    for _ in 0..100 {
        client.put(put("a", None)).await.expect("a put");
    }
    assert!(cluster.stop(0).success());
}
