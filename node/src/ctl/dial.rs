//! Which node is asked, and how it is reached.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use flotilla_proto::etcdserverpb::auth_client::AuthClient;
use flotilla_proto::etcdserverpb::cluster_client::ClusterClient;
use flotilla_proto::etcdserverpb::{AuthenticateRequest, Member, MemberListRequest};
use flotilla_proto::internal::admin_client::AdminClient;
use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::describe;
use crate::channel;
use crate::config::{KeyPair, Tls};
use crate::tls::Connector;

const ENDPOINT_DEFAULT: &str = "http://127.0.0.1:2379";
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) type Client = AdminClient<InterceptedService<Channel, Token>>;

/// Shown with every call, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Token(Option<AsciiMetadataValue>);

impl Interceptor for Token {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// What the flags say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(super) endpoint: String,
    /// Name and password with a colon between them.
    pub(super) user: Option<String>,
    /// Who may sign the node's certificate.
    pub(super) cacert: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Default for Target {
    fn default() -> Self {
        let endpoint = ENDPOINT_DEFAULT.to_owned();
        Self { endpoint, user: None, cacert: None, cert: None, key: None }
    }
}

impl Target {
    /// Takes the value of a flag. None if there is no such flag.
    pub(crate) fn set(&mut self, flag: &str, value: &str) -> Option<()> {
        match flag {
            "--endpoint" if value.contains("://") => value.clone_into(&mut self.endpoint),
            "--endpoint" => self.endpoint = format!("http://{value}"),
            "--user" => self.user = Some(value.to_owned()),
            "--cacert" => self.cacert = Some(value.into()),
            "--cert" => self.cert = Some(value.into()),
            "--key" => self.key = Some(value.into()),
            _ => return None,
        }
        Some(())
    }

    /// The node's address.
    pub(crate) fn url(&self) -> &str {
        &self.endpoint
    }

    /// The way to nodes, with the files read and the user known to the cluster.
    ///
    /// # Errors
    /// Files that are no certificates, a node that is not reached, or a user it does not know.
    pub(crate) async fn dialer(&self) -> anyhow::Result<Dialer> {
        let pair = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(KeyPair { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            _ => anyhow::bail!("--cert and --key go together"),
        };
        let tls = Connector::open(&Tls::of_client(self.cacert.clone(), pair))?;
        let mut dialer = Dialer { tls, token: Token::default() };
        if let Some(user) = &self.user {
            dialer.token = dialer.authenticate(&self.endpoint, user).await?;
        }
        Ok(dialer)
    }
}

/// Connects to nodes.
pub(crate) struct Dialer {
    tls: Connector,
    token: Token,
}

impl Dialer {
    pub(super) async fn connect(&self, url: &str) -> anyhow::Result<Client> {
        Ok(AdminClient::with_interceptor(self.short(url).await?, self.token.clone()))
    }

    /// For answers that take as long as they take.
    pub(crate) async fn streaming(&self, url: &str) -> anyhow::Result<Channel> {
        self.channel(url, None).await
    }

    /// Shown with every call.
    pub(crate) fn token(&self) -> Token {
        self.token.clone()
    }

    async fn short(&self, url: &str) -> anyhow::Result<Channel> {
        self.channel(url, Some(ANSWER_WITHIN)).await
    }

    /// A token of the user, which every node of the cluster knows.
    async fn authenticate(&self, url: &str, user: &str) -> anyhow::Result<Token> {
        let (name, password) = user.split_once(':').context("--user is NAME:PASSWORD")?;
        let (name, password) = (name.to_owned(), password.to_owned());
        let mut client = AuthClient::new(self.short(url).await?);
        let answer = client.authenticate(AuthenticateRequest { name, password }).await;
        Ok(Token(Some(answer.map_err(describe)?.into_inner().token.parse()?)))
    }

    async fn channel(&self, url: &str, within: Option<Duration>) -> anyhow::Result<Channel> {
        let set = |it: Endpoint| match within {
            Some(within) => it.timeout(within),
            None => it,
        };
        Ok(channel::connect(&self.tls, url, set, CONNECT_WITHIN).await?)
    }

    /// The members, as the node at an address knows them.
    ///
    /// # Errors
    /// It is not reached, or does not answer.
    pub(super) async fn members(&self, url: &str) -> anyhow::Result<Vec<Member>> {
        let channel = self.channel(url, Some(ANSWER_WITHIN)).await?;
        let mut client = ClusterClient::with_interceptor(channel, self.token.clone());
        let list = client.member_list(MemberListRequest::default()).await.map_err(describe)?;
        Ok(list.into_inner().members)
    }

    /// A page of a node.
    ///
    /// # Errors
    /// It is not reached, or has no such page.
    pub(super) async fn page(&self, url: &str, path: &str) -> anyhow::Result<String> {
        let (status, text) = channel::get(&self.tls, url, path, CONNECT_WITHIN).await?;
        anyhow::ensure!(status == 200, "{url}{path} is answered with {status}");
        Ok(text)
    }

    pub(super) async fn connect_any(&self, urls: &[String]) -> Option<Client> {
        for url in urls {
            if let Ok(client) = self.connect(url).await {
                return Some(client);
            }
        }
        None
    }
}
