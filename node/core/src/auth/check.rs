//! Whether a client may do what it asks for, as the state at hand has it.

use super::{Access, Auth, Needs, Pass, User};
use crate::proto::Span;
use crate::{Error, LeaseId};

/// Who a client has shown to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The name; nobody, if the client has shown nothing.
    pub user: Option<String>,
    /// The auth revision that a signed token was made at; other callers are of the present one.
    pub revision: Option<u64>,
}

impl Caller {
    /// Somebody who has shown a name.
    pub fn user(name: impl Into<String>) -> Self {
        Self { user: Some(name.into()), revision: None }
    }
}

impl Auth {
    /// For what any user may do.
    ///
    /// # Errors
    /// Nobody is known.
    pub fn check_known(&self, caller: &Caller) -> Result<Pass, Error> {
        if !self.is_enabled {
            return Ok(Pass::NOBODY);
        }
        match caller.user.as_deref() {
            None | Some("") => Err(Error::UserEmpty),
            Some(_) => Ok(Pass::checked_at(self.changed_at)),
        }
    }

    /// For what only root may do.
    ///
    /// # Errors
    /// Nobody is known, or it is somebody else.
    pub fn check_root(&self, caller: &Caller) -> Result<Pass, Error> {
        let pass = self.check_known(caller)?;
        if self.is_enabled {
            self.check_admin(caller.user.as_deref().unwrap_or_default())?;
        }
        Ok(pass)
    }

    /// For a change of users, roles and permissions, where it takes its place in the order.
    ///
    /// # Errors
    /// Authentication is on, and nobody is named, or the user is no more, or is not root.
    pub fn check_admin(&self, user: &str) -> Result<(), Error> {
        if !self.is_enabled {
            return Ok(());
        }
        if user.is_empty() {
            return Err(Error::UserEmpty);
        }
        match self.users.get(user) {
            Some(user) if user.is_root() => Ok(()),
            Some(_) | None => Err(Error::PermissionDenied),
        }
    }

    /// For what needs permission on keys. `keys_of` tells what is attached to a lease.
    ///
    /// # Errors
    /// Nobody is known, a signed token is older than the last change, or something is not permitted;
    /// or what `keys_of` fails with.
    pub fn check<E: From<Error>>(
        &self,
        caller: &Caller,
        needs: &Needs,
        mut keys_of: impl FnMut(LeaseId) -> Result<Vec<bytes::Bytes>, E>,
    ) -> Result<Pass, E> {
        let pass = self.check_known(caller)?;
        let Some(user) = self.holder(caller)? else { return Ok(pass) };
        let grants = self.grants(user);
        let allow = |span: &Span, access| match grants.allow(span, access) {
            true => Ok(()),
            false => Err(Error::PermissionDenied),
        };
        for (span, access) in &needs.spans {
            allow(span, *access)?;
        }
        let leases = needs.leases.iter().map(|lease| (*lease, Access::Write));
        let listed = needs.listed_leases.iter().map(|lease| (*lease, Access::Read));
        for (lease, access) in leases.chain(listed) {
            for key in keys_of(lease)? {
                allow(&Span::key(key), access)?;
            }
        }
        Ok(pass)
    }

    /// Who must have permission for each key; `None` if nothing is asked, because authentication is
    /// off or the user is root.
    fn holder(&self, caller: &Caller) -> Result<Option<&User>, Error> {
        if !self.is_enabled {
            return Ok(None);
        }
        if caller.revision.is_some_and(|revision| revision < self.revision) {
            return Err(Error::AuthOldRevision);
        }
        let name = caller.user.as_deref().unwrap_or_default();
        match self.users.get(name) {
            None => Err(Error::PermissionDenied),
            Some(user) if user.is_root() => Ok(None),
            Some(user) => Ok(Some(user)),
        }
    }
}
