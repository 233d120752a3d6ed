//! From an HTTP request to the method or the page it names.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

use super::call::Call;
use super::codec::{ToProst, ToRangeStream, ToWatchResponse};
use super::guard::Client;
use super::inside::{Inside, RequestBody};
use super::policy::{self, Wishes};
use super::{
    Context, Method, Origin, admin, auth, cluster, election, health, http as pages, kv, lease,
    lock, maintenance, method, range_stream, snapshot, watch,
};
use crate::auth::Credentials;
use crate::watch::Hub;

/// Serves the connections of one worker.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) context: Arc<Context>,
    pub(super) hub: Hub,
    pub(super) origin: Origin,
}

pub(super) type Answer =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        if !self.origin.door.serves_grpc() || !is_grpc(&request) {
            let service = self.clone();
            return Box::pin(async move { Ok(pages::answer(&service, request).await) });
        }
        if let Some(status) = refuse_compressed(&request) {
            return Box::pin(async move { Ok(status.into_http()) });
        }
        match Method::find(request.uri().path()) {
            Some(method) => self.carry_out(method, request.map(RequestBody::Network)),
            None => {
                let text = method::unknown(request.uri().path());
                Box::pin(async move { Ok(Status::unimplemented(text).into_http()) })
            }
        }
    }
}

impl Service {
    /// The same for calls that no certificate stands for.
    pub(super) fn without_name(&self) -> Self {
        let origin = Origin { common_name: None, ..self.origin };
        Self { origin, ..self.clone() }
    }

    /// Each method has a future of its own size.
    pub(super) fn carry_out(&self, method: Method, request: http::Request<RequestBody>) -> Answer {
        let context = self.context.clone();
        context.meters.count_client(method, policy::client_api_version(request.headers()));
        let wishes = Wishes::read(request.headers());
        let common_name = self.origin.common_name.clone().map(Arc::from);
        let client =
            Client::new(Credentials::read(request.headers(), common_name), self.origin.from);
        let call = Call { context, method, wishes, client };
        /// Unary methods that never are a local read, which is all but one.
        macro_rules! unary {
            ($method:path) => {
                unary!($method, |_| false)
            };
            ($method:path, $is_local_read:expr) => {
                Box::pin(async move {
                    let method = |context: Arc<Context>, _: Client, request| async move {
                        $method(&context, request).await
                    };
                    Ok(call.unary(request, $is_local_read, method).await)
                })
            };
        }
        /// Unary methods that ask the client themselves.
        macro_rules! asking {
            ($method:path) => {
                asking!($method, |_| false)
            };
            ($method:path, $is_local_read:expr) => {
                Box::pin(async move {
                    let method = |context: Arc<Context>, client: Client, request| async move {
                        $method(&context, &client, request).await
                    };
                    Ok(call.unary(request, $is_local_read, method).await)
                })
            };
        }
        /// Unary methods that are made of calls of others.
        macro_rules! composed {
            ($method:path) => {{
                let inside = Inside::new(self.clone(), request.headers().clone());
                Box::pin(async move {
                    let method =
                        |_: Arc<Context>, _: Client, request| $method(inside.clone(), request);
                    Ok(call.unary(request, |_| false, method).await)
                })
            }};
        }
        macro_rules! server_stream {
            ($method:path) => {
                server_stream!($method, ToProst<_>)
            };
            ($method:path, $encoder:ty) => {
                Box::pin(async move {
                    Ok(call.server_stream::<$encoder, _, _, _>(request, $method).await)
                })
            };
        }
        match method {
            Method::Range => asking!(kv::range, kv::is_local_read),
            Method::RangeStream => server_stream!(range_stream::range_stream, ToRangeStream),
            Method::Put => asking!(kv::put),
            Method::DeleteRange => asking!(kv::delete_range),
            Method::Txn => asking!(kv::txn),
            Method::Compact => asking!(kv::compact),
            Method::Watch => {
                let hub = self.hub.clone();
                let watch = move |context, client, requests| {
                    watch::watch(&hub, context, client, requests, wishes.needs_leader)
                };
                Box::pin(async move {
                    Ok(call.bidi_stream::<ToWatchResponse, _, _, _>(request, watch).await)
                })
            }
            Method::LeaseGrant => asking!(lease::grant),
            Method::LeaseRevoke => asking!(lease::revoke),
            Method::LeaseKeepAlive => Box::pin(async move {
                Ok(call.bidi_stream::<ToProst<_>, _, _, _>(request, lease::keep_alive).await)
            }),
            Method::LeaseTimeToLive => asking!(lease::time_to_live),
            Method::LeaseLeases => asking!(lease::leases),
            Method::MemberAdd => asking!(cluster::add),
            Method::MemberRemove => asking!(cluster::remove),
            Method::MemberUpdate => asking!(cluster::update),
            Method::MemberList => asking!(cluster::list),
            Method::MemberPromote => asking!(cluster::promote),
            Method::Alarm => asking!(maintenance::alarm),
            Method::Status => unary!(maintenance::status),
            Method::Defragment => unary!(maintenance::defragment),
            Method::Hash => unary!(maintenance::hash),
            Method::HashKv => unary!(maintenance::hash_kv),
            Method::Snapshot => server_stream!(snapshot::snapshot),
            Method::MoveLeader => asking!(maintenance::move_leader),
            Method::Downgrade => unary!(maintenance::downgrade),
            Method::Lock => composed!(lock::lock),
            Method::Unlock => composed!(lock::unlock),
            Method::Campaign => composed!(election::campaign),
            Method::Proclaim => composed!(election::proclaim),
            Method::Leader => composed!(election::leader),
            Method::Observe => {
                let inside = Inside::new(self.clone(), request.headers().clone());
                Box::pin(async move {
                    let observe =
                        |_, _: Client, request| election::observe(inside.clone(), request);
                    Ok(call.server_stream::<ToProst<_>, _, _, _>(request, observe).await)
                })
            }
            Method::Resign => composed!(election::resign),
            Method::AuthEnable => asking!(auth::enable),
            Method::AuthDisable => asking!(auth::disable),
            Method::AuthStatus => asking!(auth::status),
            Method::Authenticate => unary!(auth::authenticate),
            Method::UserAdd => asking!(auth::user_add),
            Method::UserGet => asking!(auth::user_get),
            Method::UserList => asking!(auth::user_list),
            Method::UserDelete => asking!(auth::user_delete),
            Method::UserChangePassword => asking!(auth::user_change_password),
            Method::UserGrantRole => asking!(auth::user_grant_role),
            Method::UserRevokeRole => asking!(auth::user_revoke_role),
            Method::RoleAdd => asking!(auth::role_add),
            Method::RoleGet => asking!(auth::role_get),
            Method::RoleList => asking!(auth::role_list),
            Method::RoleDelete => asking!(auth::role_delete),
            Method::RoleGrantPermission => asking!(auth::role_grant_permission),
            Method::RoleRevokePermission => asking!(auth::role_revoke_permission),
            Method::HealthCheck => unary!(health::check),
            Method::HealthWatch => server_stream!(health::watch),
            Method::HealthList => unary!(health::list),
            Method::RangeList => unary!(admin::range_list),
            Method::Split => unary!(admin::split),
            Method::Transfer => unary!(admin::transfer),
            Method::MoveReplica => unary!(admin::move_replica),
            Method::WantReplicas => unary!(admin::want_replicas),
            Method::Drain => unary!(admin::drain),
            Method::Decisions => unary!(admin::decisions),
            Method::Merge => unary!(admin::merge),
            Method::Hot => unary!(admin::hot),
        }
    }
}

fn is_grpc(request: &http::Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE);
    request.version() == http::Version::HTTP_2
        && content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Like etcd, this node has no compression.
fn refuse_compressed(request: &http::Request<Incoming>) -> Option<Status> {
    const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
    let encoding = request.headers().get(GRPC_ENCODING)?;
    if encoding == "identity" {
        return None;
    }
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
    Some(Status::unimplemented(text))
}
