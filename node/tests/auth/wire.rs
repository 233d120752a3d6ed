//! Calls as bytes: any method of any service, with any token, and the first answer or the status.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use flotilla_proto::etcdserverpb as pb;
use http::uri::PathAndQuery;
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// A connection to one node.
#[derive(Clone)]
pub(crate) struct Wire(Channel);

/// Why a call was refused: code and text.
pub(crate) type Refusal = (Code, String);

impl Wire {
    pub(crate) async fn connect(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("the harness gives URLs");
        Self(endpoint.connect().await.expect("a ready node takes connections"))
    }

    /// Sends one message to a method of any shape, and takes the first that comes back. A watcher
    /// that is refused in its stream is refused.
    pub(crate) async fn call(
        &self,
        path: &str,
        message: Bytes,
        token: Option<&str>,
    ) -> Result<Bytes, Refusal> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.expect("the connection stands");
        let mut request = Request::new(futures::stream::iter([message]));
        if let Some(token) = token {
            let value = MetadataValue::try_from(token).expect("tokens are ASCII");
            request.metadata_mut().insert("token", value);
        }
        let path = PathAndQuery::try_from(path).expect("a path");
        let is_watch = path.path() == "/etcdserverpb.Watch/Watch";
        let call = async {
            let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
            answers.message().await?.ok_or_else(|| Status::unknown("no answer"))
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, call).await.expect("an answer in time");
        let answer = answer.map_err(|status| (status.code(), status.message().to_owned()))?;
        if is_watch {
            let created = pb::WatchResponse::decode(answer.clone()).expect("a response");
            if created.canceled {
                return Err((Code::Unknown, created.cancel_reason));
            }
        }
        Ok(answer)
    }

    /// A method of etcd by its message types.
    pub(crate) async fn ask<Req: Message, Res: Message + Default>(
        &self,
        path: &str,
        request: &Req,
        token: Option<&str>,
    ) -> Result<Res, Refusal> {
        let answer = self.call(path, request.encode_to_vec().into(), token).await?;
        Ok(Res::decode(answer).expect("the method's answer"))
    }

    pub(crate) async fn authenticate(&self, name: &str, password: &str) -> Result<String, Refusal> {
        let request =
            pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        let path = "/etcdserverpb.Auth/Authenticate";
        let answer: pb::AuthenticateResponse = self.ask(path, &request, None).await?;
        Ok(answer.token)
    }

    /// Root, and a user `u` who may read and write from `a` to `b`; then authentication is turned on.
    /// Passwords are the names and `-password`.
    pub(crate) async fn set_up(&self) {
        let auth = |method: &str| format!("/etcdserverpb.Auth/{method}");
        for name in ["root", "u", "nothing"] {
            let (name, password) = (name.to_owned(), format!("{name}-password"));
            let user = pb::AuthUserAddRequest { name, password, ..Default::default() };
            let _: pb::AuthUserAddResponse =
                self.ask(&auth("UserAdd"), &user, None).await.expect("a user");
        }
        let role = pb::AuthRoleAddRequest { name: "ab".to_owned() };
        let _: pb::AuthRoleAddResponse =
            self.ask(&auth("RoleAdd"), &role, None).await.expect("a role");
        self.grant(None).await;
        for (user, role) in [("root", "root"), ("u", "ab")] {
            let (user, role) = (user.to_owned(), role.to_owned());
            let grant = pb::AuthUserGrantRoleRequest { user, role };
            let _: pb::AuthUserGrantRoleResponse =
                self.ask(&auth("UserGrantRole"), &grant, None).await.expect("granted");
        }
        let enable = pb::AuthEnableRequest {};
        let _: pb::AuthEnableResponse =
            self.ask(&auth("AuthEnable"), &enable, None).await.expect("turned on");
    }

    /// Role `ab` may read and write from `a` to `b`.
    pub(crate) async fn grant(&self, token: Option<&str>) {
        let perm = Some(flotilla_proto::authpb::Permission {
            perm_type: flotilla_proto::authpb::permission::Type::Readwrite.into(),
            key: Bytes::from_static(b"a"),
            range_end: Bytes::from_static(b"b"),
        });
        let grant = pb::AuthRoleGrantPermissionRequest { name: "ab".to_owned(), perm };
        let path = "/etcdserverpb.Auth/RoleGrantPermission";
        let _: pb::AuthRoleGrantPermissionResponse =
            self.ask(path, &grant, token).await.expect("granted");
    }

    pub(crate) async fn revoke(&self, token: Option<&str>) {
        let (key, range_end) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let revoke = pb::AuthRoleRevokePermissionRequest { role: "ab".to_owned(), key, range_end };
        let path = "/etcdserverpb.Auth/RoleRevokePermission";
        let _: pb::AuthRoleRevokePermissionResponse =
            self.ask(path, &revoke, token).await.expect("revoked");
    }

    pub(crate) async fn put(
        &self,
        key: &str,
        token: Option<&str>,
    ) -> Result<pb::PutResponse, Refusal> {
        let (key, value) = (Bytes::from(key.to_owned()), Bytes::from_static(b"v"));
        let request = pb::PutRequest { key, value, ..Default::default() };
        self.ask("/etcdserverpb.KV/Put", &request, token).await
    }

    pub(crate) async fn get(
        &self,
        key: &str,
        token: Option<&str>,
    ) -> Result<pb::RangeResponse, Refusal> {
        let request = pb::RangeRequest { key: Bytes::from(key.to_owned()), ..Default::default() };
        self.ask("/etcdserverpb.KV/Range", &request, token).await
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
