//! What is told of where the time of a call went: a line in the log if it was slow, a trailer if its
//! client asks for one, and, of one call in some, the metrics. Of other calls nothing is formatted and
//! nothing is kept.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Method;
use crate::metrics::requests;
use crate::router::{Phase, Spent, Trace};
use crate::spans::{Ended, Sampled, Spans};

/// The trailer, and the metadata by which a client asks for it.
const PHASES: HeaderName = HeaderName::from_static("flotilla-phases");

/// Tells of a call when its answer is encoded, or given up.
pub(super) struct Report {
    trace: Arc<Trace>,
    method: Method,
    code: Code,
    /// Slower calls are logged.
    limit: Duration,
    /// The client asks for the trailer.
    is_asked: bool,
    is_made: bool,
    span: Option<(Arc<Spans>, Sampled)>,
}

impl Report {
    pub(super) fn new(trace: Arc<Trace>, method: Method, limit: Duration, is_asked: bool) -> Self {
        Self { trace, method, code: Code::Ok, limit, is_asked, is_made: false, span: None }
    }

    /// There is to be a span of it.
    pub(super) fn with_span(self, span: Option<(Arc<Spans>, Sampled)>) -> Self {
        Self { span, ..self }
    }

    /// Follows the answer to its end, if anybody is to be told.
    pub(super) fn follow(
        mut self,
        code: Code,
        mut answer: http::Response<Body>,
    ) -> http::Response<Body> {
        self.code = code;
        // All that there is to it is in the head.
        if answer.headers().contains_key(Status::GRPC_STATUS) {
            self.make(answer.headers_mut());
            return answer;
        }
        let is_slow = self.trace.elapsed() > self.limit;
        let is_for_nobody = !self.is_asked && !self.trace.is_looked_at() && self.span.is_none();
        if !is_slow && is_for_nobody {
            return answer;
        }
        answer.map(|inner| Body::new(Followed { inner, report: self }))
    }

    fn make(&mut self, trailers: &mut HeaderMap) {
        if let Some(spent) = self.end()
            && self.is_asked
        {
            let value = HeaderValue::try_from(text(&spent)).expect("names and numbers are ASCII");
            trailers.insert(PHASES, value);
        }
    }

    /// What the phases took, the first time it is asked for.
    fn end(&mut self) -> Option<Spent> {
        if std::mem::replace(&mut self.is_made, true) {
            return None;
        }
        self.trace.spend(Phase::Encode);
        let spent = self.trace.spent();
        if self.trace.is_looked_at() {
            requests::phases(self.method, &spent);
        }
        if spent.total() > micros(self.limit) {
            self.log(&spent);
        }
        if let Some((spans, sampled)) = self.span.take() {
            let (service, method) = (self.method.service(), self.method.name());
            spans.end(sampled, &Ended { service, method, code: self.code }, spent.iter());
        }
        Some(spent)
    }

    fn log(&self, spent: &Spent) {
        let of = |phase| spent.of(phase);
        tracing::warn!(
            method = self.method.name(),
            service = self.method.service(),
            code = ?self.code,
            took_us = spent.total(),
            limit_us = micros(self.limit),
            queue_us = of(Phase::Queue),
            route_us = of(Phase::Route),
            propose_us = of(Phase::Propose),
            flush_us = of(Phase::Flush),
            replicate_us = of(Phase::Replicate),
            order_us = of(Phase::Order),
            apply_us = of(Phase::Apply),
            encode_us = of(Phase::Encode),
            "a request took long"
        );
    }
}

/// An answer whose end is told of.
struct Followed {
    inner: Body,
    report: Report,
}

impl Drop for Followed {
    fn drop(&mut self) {
        // The client may have gone away before the end.
        self.report.end();
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut next = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut next
            && let Some(trailers) = frame.trailers_mut()
        {
            self.report.make(trailers);
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// As the trailer has it: `queue=12;route=3;...`, in microseconds.
fn text(spent: &Spent) -> String {
    let mut text = String::new();
    for (name, micros) in spent.iter() {
        let separator = if text.is_empty() { "" } else { ";" };
        // A string has no end.
        let _ = write!(text, "{separator}{name}={micros}");
    }
    text
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trailer_names_all_phases() {
        assert_eq!(
            text(&Spent::default()),
            "queue=0;route=0;propose=0;flush=0;replicate=0;order=0;apply=0;encode=0"
        );
    }

    #[test]
    fn an_answer_without_a_body_is_told_of_in_its_head() {
        let limit = Duration::from_secs(3_600);
        for is_asked in [true, false] {
            let trace = Arc::new(Trace::begin());
            trace.spend(Phase::Queue);
            let report = Report::new(trace.clone(), Method::Put, limit, is_asked);
            let answer = Status::not_found("nothing").into_http();
            let answer = report.follow(Code::NotFound, answer);
            let told = answer.headers().get(PHASES).map(|value| value.to_str().expect("text"));
            assert_eq!(told, is_asked.then(|| text(&trace.spent())).as_deref());
        }
    }
}
