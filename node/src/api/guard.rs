//! Who may make a call. What a method asks of its client is in the table of methods; what depends on
//! the request, the method asks itself, of the `Client` it is handed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_core::auth::{Caller, Needs, Pass};
use flotilla_core::command::{Command, Outcome};
use flotilla_core::mvcc::Head;
use flotilla_core::{Error, LeaseId};
use tokio::time;

use super::budget::{Budget, Share};
use super::{Context, read};
use crate::auth::Credentials;
use crate::router::Trace;

/// What a method asks of its client while authentication is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    Open,
    /// To be a user, as the cluster knows when the call arrives.
    User,
    /// To be a user, as this node knows: it is answered without a leader.
    UserHere,
    /// To be root, as the cluster knows when the call arrives.
    Root,
    /// To be root, as this node knows: it is answered without a leader.
    RootHere,
    /// What its request says. The method asks.
    Request,
}

/// How long a read waits until this node shows what the users and roles at hand came after, and how
/// often it looks.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
const SHOWN_POLL: Duration = Duration::from_millis(1);
/// Times a read is done again because users, roles or permissions changed meanwhile.
const READS_MAX: u32 = 8;

/// Whoever makes a call.
#[derive(Clone, Debug)]
pub(super) struct Client {
    credentials: Credentials,
    /// None over a Unix socket.
    from: Option<IpAddr>,
    /// Where it is noted what the call waits for; nothing of streams.
    trace: Option<Arc<Trace>>,
    /// What its answer takes of the budget. None: it is small, or a stream.
    share: Option<Arc<Share>>,
}

impl Client {
    pub(super) fn new(credentials: Credentials, from: Option<IpAddr>) -> Self {
        Self { credentials, from, trace: None, share: None }
    }

    /// Counts what it asks for, if its call is one of those that are looked at.
    pub(super) async fn count<'k, K>(&self, context: &Context, keys: impl FnOnce() -> K)
    where
        K: Iterator<Item = &'k [u8]>,
    {
        if self.trace.as_ref().is_some_and(|trace| trace.is_looked_at()) {
            let name = self.name(context).await;
            context.board().usage().hot().see(&name, keys());
        }
    }

    /// As operators are told: its user, if it is one, and its address.
    async fn name(&self, context: &Context) -> String {
        let address = self.from.map_or_else(|| "local".to_owned(), |it| it.to_string());
        if !context.gate().is_enabled() {
            return address;
        }
        match self.caller(context).await {
            Ok(Caller { user: Some(user), .. }) => format!("{user}@{address}"),
            _ => address,
        }
    }

    /// What its answer takes of the budget, if that is looked at.
    pub(super) fn share(&self) -> Option<&Share> {
        self.share.as_deref()
    }

    /// Has its answer take what it needs of the budget.
    pub(super) fn begin_share(&mut self, budget: &Arc<Budget>) -> Arc<Share> {
        self.share.insert(budget.share(self.from)).clone()
    }

    /// Has it noted what its call waits for.
    pub(super) fn trace(&mut self, trace: Arc<Trace>) {
        self.trace = Some(trace);
    }

    /// Has a command carried out for it, with what it was let in with.
    pub(super) async fn submit(&self, context: &Context, pass: Pass, command: Command) -> Outcome {
        context.router.submit_traced(pass, command, self.trace.as_ref()).await
    }

    /// Waits for a ticket for it.
    ///
    /// # Errors
    /// No leader answered in time.
    pub(super) async fn ticket(&self, context: &Context) -> Result<Head, Error> {
        context.router.ticket_traced(self.trace.as_ref()).await
    }

    /// Asks what the table says.
    ///
    /// # Errors
    /// The client is not let in.
    pub(super) async fn admit(&self, context: &Context, guard: Guard) -> Result<(), Error> {
        let is_asked = !matches!(guard, Guard::Open | Guard::Request);
        if !is_asked || !context.gate().is_enabled() {
            return Ok(());
        }
        if matches!(guard, Guard::User | Guard::Root) {
            self.ticket(context).await?;
        }
        let caller = self.caller(context).await?;
        let auth = context.gate().auth();
        match guard {
            Guard::User | Guard::UserHere => auth.check_known(&caller)?,
            Guard::Root | Guard::RootHere => auth.check_root(&caller)?,
            Guard::Open | Guard::Request => return Ok(()),
        };
        Ok(())
    }

    /// Who it is; nobody while authentication is off.
    ///
    /// # Errors
    /// A token that stands for nobody.
    pub(super) async fn caller(&self, context: &Context) -> Result<Caller, Error> {
        let board = context.board();
        context.gate().caller(&self.credentials, || board.commit_index()).await
    }

    /// For root, before anything is done for it. Refused only by what the cluster knows now.
    ///
    /// # Errors
    /// It is nobody or somebody else.
    pub(super) async fn root(&self, context: &Context) -> Result<Caller, Error> {
        let caller = self.caller(context).await;
        let checked = caller.and_then(|caller| {
            context.gate().auth().check_root(&caller)?;
            Ok(caller)
        });
        let Err(refusal) = checked else { return checked };
        self.ticket(context).await.map_err(|_| refusal)?;
        let caller = self.caller(context).await?;
        context.gate().auth().check_root(&caller)?;
        Ok(caller)
    }

    /// For a write: a pass, which is looked at again where the write takes its place in the order.
    /// What this node knows is enough to let it in. Refused only by what the cluster knows now: it
    /// may have been permitted at another node a moment ago.
    ///
    /// # Errors
    /// The client is not let in.
    pub(super) async fn permit(
        &self,
        context: &Context,
        needs: impl FnOnce() -> Needs,
    ) -> Result<Pass, Error> {
        if !context.gate().is_enabled() {
            return Ok(Pass::NOBODY);
        }
        let needs = needs();
        match self.check(context, &needs).await {
            Ok(pass) => Ok(pass),
            Err(refusal) => {
                self.ticket(context).await.map_err(|_| refusal)?;
                self.check(context, &needs).await
            }
        }
    }

    /// Does a read that was let in: `read` is handed what may be read, which is not older than the
    /// users and roles that were asked, and when it is done these must be the same still. A local
    /// read is of what this node knows.
    ///
    /// # Errors
    /// The client is not let in, or the read fails.
    pub(super) async fn read<T, F>(
        &self,
        context: &Context,
        is_local: bool,
        needs: impl Fn() -> Needs,
        read: impl Fn(Head) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        if !is_local {
            self.ticket(context).await?;
        }
        for _ in 0..READS_MAX {
            let (head, pass) = self.permit_read(context, &needs).await?;
            let answer = read(head).await?;
            if context.gate().admits(pass).is_ok() {
                return Ok(answer);
            }
        }
        Err(Error::AuthOldRevision)
    }

    /// For a read, after its ticket: what may be read, and a pass to be looked at again afterwards.
    ///
    /// # Errors
    /// The client is not let in.
    pub(super) async fn permit_read(
        &self,
        context: &Context,
        needs: impl Fn() -> Needs,
    ) -> Result<(Head, Pass), Error> {
        let (pass, since) = if context.gate().is_enabled() {
            let pass = self.check(context, &needs()).await?;
            (pass, pass.number())
        } else {
            (Pass::NOBODY, context.gate().changed_at())
        };
        let deadline = Instant::now() + SHOWN_WITHIN;
        // Who may read since a moment ago, or whom nobody asks since, must not see what was deleted
        // before.
        while context.router.shown_index() < since {
            if Instant::now() >= deadline {
                return Err(Error::TimeoutWaitAppliedIndex);
            }
            time::sleep(SHOWN_POLL).await;
        }
        Ok((context.router.head(), pass))
    }

    async fn check(&self, context: &Context, needs: &Needs) -> Result<Pass, Error> {
        let caller = self.caller(context).await?;
        if needs.leases.is_empty() && needs.listed_leases.is_empty() {
            return context.gate().auth().check(&caller, needs, |_| Ok::<_, Error>(Vec::new()));
        }
        // What is attached to a lease is known to the store, and by whoever attaches at another node.
        self.ticket(context).await?;
        let mut known = BTreeMap::new();
        loop {
            let keys_of = |lease| known.get(&lease).cloned().ok_or(Unchecked::Lacks(lease));
            match context.gate().auth().check(&caller, needs, keys_of) {
                Ok(pass) => return Ok(pass),
                Err(Unchecked::Refused(error)) => return Err(error),
                Err(Unchecked::Lacks(lease)) => {
                    let head = context.router.head();
                    let (_, keys) = read::lease_keys(context, head, lease).await?;
                    known.insert(lease, keys);
                }
            }
        }
    }
}

/// Why a check has come to no good end.
enum Unchecked {
    Refused(Error),
    /// It takes what is attached to this lease.
    Lacks(LeaseId),
}

impl From<Error> for Unchecked {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}
