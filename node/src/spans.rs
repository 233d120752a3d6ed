//! Spans of calls for OpenTelemetry: one of each unary call that is sampled, with its phases as its
//! children. They go to a collector by OTLP over gRPC, in plain text as etcd's do. A call is sampled if
//! the caller's own span is (`traceparent`), or else by chance.
//!
//! Nobody waits for the collector: what it does not take is dropped, and the log says so.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tokio::runtime::{self, Runtime};
use tonic::Code;

use crate::config::{DistributedTracing, SAMPLES_PER_MILLION_MAX};

/// Spans that wait for the collector.
const SPANS_WAITING_MAX: usize = 8_192;
/// A collector that has not taken spans for so long has refused them.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// What waits when the node stops is sent within this, or lost.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes spans and has them sent.
pub struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    per_million: u32,
    /// What the exporter's connection lives on. None once it is dropped.
    runtime: Option<Runtime>,
}

/// A call of which there is to be a span.
pub struct Sampled {
    parent: Context,
    began: SystemTime,
}

/// What a span says of its call.
pub struct Ended {
    /// As in `etcdserverpb.KV`.
    pub service: &'static str,
    /// As in `Put`.
    pub method: &'static str,
    /// How it ended.
    pub code: Code,
}

impl Spans {
    /// The collector need not be there.
    ///
    /// # Errors
    /// The address is none, or the operating system refuses a thread.
    pub fn start(config: &DistributedTracing) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("spans")
            .enable_all()
            .build()?;
        let exporter = {
            let _inside = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(format!("http://{}", config.address))
                .with_timeout(EXPORT_TIMEOUT)
                .build()
                .with_context(|| format!("spans cannot be sent to {}", config.address))?
        };
        let mut resource = Resource::builder_empty().with_service_name(config.service_name.clone());
        if !config.instance_id.is_empty() {
            let id = KeyValue::new("service.instance.id", config.instance_id.clone());
            resource = resource.with_attribute(id);
        }
        let limits = BatchConfigBuilder::default().with_max_queue_size(SPANS_WAITING_MAX).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(limits).build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource.build())
            .with_span_processor(processor)
            .build();
        let tracer = provider.tracer("flotilla");
        Ok(Self {
            provider,
            tracer,
            per_million: config.samples_per_million,
            runtime: Some(runtime),
        })
    }

    /// A call begins; `None` if there is to be no span of it.
    pub fn sample(&self, headers: &HeaderMap) -> Option<Sampled> {
        let parent =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let caller = parent.span().span_context().clone();
        let is_sampled = match SpanContext::is_valid(&caller) {
            true => caller.is_sampled(),
            false => rand::random_ratio(self.per_million, SAMPLES_PER_MILLION_MAX),
        };
        is_sampled.then(|| Sampled { parent, began: SystemTime::now() })
    }

    /// It has ended. `phases` are names and microseconds, one after the other from its beginning.
    pub fn end(
        &self,
        sampled: Sampled,
        ended: &Ended,
        phases: impl Iterator<Item = (&'static str, u64)>,
    ) {
        let Sampled { parent, began } = sampled;
        let Ended { service, method, code } = ended;
        let attributes = [
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", *service),
            KeyValue::new("rpc.method", *method),
            KeyValue::new("rpc.grpc.status_code", i64::from(*code as i32)),
        ];
        let mut span = self
            .tracer
            .span_builder(format!("{service}/{method}"))
            .with_kind(SpanKind::Server)
            .with_start_time(began)
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &parent);
        // As the conventions have it: what the client did wrong is no error of the server.
        let is_error = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if is_error {
            span.set_status(Status::error(code.description()));
        }
        let around = parent.with_remote_span_context(span.span_context().clone());
        let mut at = began;
        for (name, micros) in phases.filter(|(_, micros)| *micros > 0) {
            let phase = self.tracer.span_builder(name).with_start_time(at);
            let mut phase = phase.start_with_context(&self.tracer, &around);
            at += Duration::from_micros(micros);
            phase.end_with_timestamp(at);
        }
        span.end_with_timestamp(at);
    }

    /// Sends what waits. It takes its time.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(END_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        // It may be dropped by a task, which must not wait for a runtime to end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The metadata of a call, for whoever looks for `traceparent` and `tracestate`.
struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(samples_per_million: u32) -> Spans {
        Spans::start(&DistributedTracing {
            // Nothing is sent: no span ends here.
            address: "localhost:4317".to_owned(),
            service_name: "etcd".to_owned(),
            instance_id: String::new(),
            samples_per_million,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_task_may_drop_them() {
        drop(spans(0));
    }

    #[test]
    fn the_caller_decides_what_is_sampled_and_chance_where_there_is_none() {
        let of = |parent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", parent.parse().unwrap());
            headers
        };
        let sampled = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let unsampled = of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let (never, always) = (spans(0), spans(SAMPLES_PER_MILLION_MAX));
        for spans in [&never, &always] {
            let taken = spans.sample(&sampled).expect("the caller's is sampled");
            let parent = taken.parent.span().span_context().clone();
            assert_eq!(parent.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(parent.span_id().to_string(), "b7ad6b7169203331");
            assert!(spans.sample(&unsampled).is_none());
        }
        for headers in [HeaderMap::new(), of("no parent")] {
            assert!(never.sample(&headers).is_none());
            assert!(always.sample(&headers).is_some());
        }
    }
}
