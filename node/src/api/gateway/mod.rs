//! The JSON gateway: a POST under /v3/ with JSON becomes the gRPC call it stands for, and its answers
//! JSON again. Shapes and texts are those of grpc-gateway 2 in etcd.

mod routes;

mod decode;
mod encode;

mod answers;
mod requests;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use flotilla_core::proto::DESCRIPTOR_SET;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, Method as Verb, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::Status;
use tonic::body::Body;

use super::inside::{self, Inside};
use super::method::{Method, Streaming, unknown};
use super::service::Service;

/// Bytes of JSON that a message may take for each of its own: base64, names, and spaces.
const JSON_BYTES_PER_BYTE: usize = 2;
/// What a header is called that is to become metadata of the call.
const METADATA_PREFIX: &str = "grpc-metadata-";

static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR_SET).expect("the build wrote them"));

/// Whether a path is the gateway's.
pub(super) fn has(path: &str) -> bool {
    routes::is_under(path)
}

/// Answers a request whose path is the gateway's.
pub(super) async fn answer(service: &Service, request: Request<Incoming>) -> Response<Body> {
    let Some(path) = routes::find(request.uri().path()) else {
        return answers::refusal(&Status::not_found("Not Found"));
    };
    if request.method() != Verb::POST {
        return answers::refusal(&Status::unimplemented("Method Not Allowed"));
    }
    let Some(method) = Method::find(path) else {
        return answers::refusal(&Status::unimplemented(unknown(path)));
    };
    let shape = shape(method);
    let (head, body) = request.into_parts();
    let bytes_max = service.context.limits.message_bytes_max.saturating_mul(JSON_BYTES_PER_BYTE);
    // Nobody is known by a certificate here, as with etcd, whose gateway is a client itself.
    let inside = Inside::new(service.without_name(), metadata(&head.headers));
    if method.streaming() == Streaming::Both {
        let requests = Body::new(requests::frames(body, shape.input(), bytes_max));
        return answers::lines(inside.stream(method, requests).await, shape.output()).await;
    }
    let message = match Limited::new(body, bytes_max).collect().await {
        Ok(body) => decode::one(&shape.input(), &body.to_bytes()),
        Err(error) => Err(error.to_string()),
    };
    let message = match message {
        Ok(message) => message.encode_to_vec(),
        Err(text) => return answers::refusal(&Status::invalid_argument(text)),
    };
    if method.streaming() == Streaming::Server {
        let request = Body::new(Full::new(inside::frame(&message)));
        return answers::lines(inside.stream(method, request).await, shape.output()).await;
    }
    answers::one(inside.call_encoded(method, &message).await, &shape.output())
}

fn shape(method: Method) -> MethodDescriptor {
    let service = DESCRIPTORS.get_service_by_name(method.service());
    let service = service.expect("every method that is served is in the descriptors");
    let mut methods = service.methods();
    methods.find(|shape| shape.name() == method.name()).expect("as above")
}

/// The metadata of the call: the token, and what is marked as such.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX) else { continue };
        if let Ok(name) = HeaderName::try_from(name) {
            metadata.append(name, value.clone());
        }
    }
    if let Some(token) = headers.get(AUTHORIZATION) {
        metadata.insert(AUTHORIZATION, token.clone());
    }
    metadata
}
