//! Changes of users, roles and permissions, by etcd's rules and with its refusals.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::{Auth, Forget, ROOT, Role, User};
use crate::Error;
use crate::proto::authpb::Permission;
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{AuthChange, auth_change::What};

/// What a change has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Users that are new, different or gone.
    pub users: BTreeSet<String>,
    /// Roles that are new, different or gone.
    pub roles: BTreeSet<String>,
    /// Tokens that end with it.
    pub forget: Forget,
}

impl Touched {
    fn nothing() -> Self {
        Self { users: BTreeSet::new(), roles: BTreeSet::new(), forget: Forget::Nothing }
    }

    fn user(name: &str) -> Self {
        Self { users: BTreeSet::from([name.to_owned()]), ..Self::nothing() }
    }

    fn role(name: &str) -> Self {
        Self { roles: BTreeSet::from([name.to_owned()]), ..Self::nothing() }
    }
}

impl Auth {
    /// Carries out a change at this index of the spine. `None` if everything was so already.
    ///
    /// # Errors
    /// etcd's; nothing has changed then.
    pub fn change(&mut self, change: &AuthChange, index: u64) -> Result<Option<Touched>, Error> {
        self.check_admin(&change.user)?;
        let touched = match change.what.as_ref().ok_or(Error::UnknownMethod)? {
            What::Enable(_) => self.enable()?,
            What::Disable(_) => self.disable(),
            What::UserAdd(request) => Some(self.add_user(request)?),
            What::UserDelete(request) => Some(self.delete_user(&request.name)?),
            What::UserChangePassword(request) => Some(self.change_password(request)?),
            What::UserGrantRole(request) => self.grant_role(&request.user, &request.role)?,
            What::UserRevokeRole(request) => Some(self.revoke_role(&request.name, &request.role)?),
            What::RoleAdd(request) => Some(self.add_role(&request.name)?),
            What::RoleDelete(request) => Some(self.delete_role(&request.role)?),
            What::RoleGrantPermission(request) => Some(self.grant_permission(request)?),
            What::RoleRevokePermission(request) => Some(self.revoke_permission(request)?),
        };
        if let Some(touched) = &touched {
            self.changed_at = index;
            if !matches!(change.what, Some(What::Enable(_))) {
                self.revision += 1;
            }
            if !touched.roles.is_empty() {
                self.users.values_mut().for_each(|user| user.grants = OnceLock::new());
            }
        }
        Ok(touched)
    }

    fn enable(&mut self) -> Result<Option<Touched>, Error> {
        if self.is_enabled {
            return Ok(None);
        }
        let root = self.users.get(ROOT).ok_or(Error::RootUserNotExist)?;
        if !root.is_root() {
            return Err(Error::RootRoleNotExist);
        }
        self.is_enabled = true;
        Ok(Some(Touched::nothing()))
    }

    fn disable(&mut self) -> Option<Touched> {
        let was_enabled = std::mem::replace(&mut self.is_enabled, false);
        was_enabled.then(|| Touched { forget: Forget::All, ..Touched::nothing() })
    }

    fn add_user(&mut self, request: &pb::AuthUserAddRequest) -> Result<Touched, Error> {
        if request.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Error::UserAlreadyExist);
        }
        let is_without_password = request.options.is_some_and(|options| options.no_password);
        let password_hash = match is_without_password {
            true => String::new(),
            false => request.hashed_password.clone(),
        };
        let user = User { password_hash, is_without_password, ..User::default() };
        self.users.insert(request.name.clone(), user);
        Ok(Touched::user(&request.name))
    }

    fn delete_user(&mut self, name: &str) -> Result<Touched, Error> {
        if self.is_enabled && name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(Error::UserNotFound)?;
        Ok(Touched { forget: Forget::User(name.to_owned()), ..Touched::user(name) })
    }

    /// A user without a password stays so.
    fn change_password(
        &mut self,
        request: &pb::AuthUserChangePasswordRequest,
    ) -> Result<Touched, Error> {
        let user = self.users.get_mut(&request.name).ok_or(Error::UserNotFound)?;
        if !user.is_without_password {
            user.password_hash.clone_from(&request.hashed_password);
        }
        let forget = Forget::User(request.name.clone());
        Ok(Touched { forget, ..Touched::user(&request.name) })
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<Option<Touched>, Error> {
        let is_role = role == ROOT || self.roles.contains_key(role);
        let user = self.users.get_mut(name).ok_or(Error::UserNotFound)?;
        if !is_role {
            return Err(Error::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search_by(|own| own.as_str().cmp(role)) else {
            return Ok(None);
        };
        user.roles.insert(at, role.to_owned());
        user.grants = OnceLock::new();
        Ok(Some(Touched::user(name)))
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<Touched, Error> {
        if self.is_enabled && name == ROOT && role == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        let user = self.users.get_mut(name).ok_or(Error::UserNotFound)?;
        if !user.lose_role(role) {
            return Err(Error::RoleNotGranted);
        }
        Ok(Touched::user(name))
    }

    fn add_role(&mut self, name: &str) -> Result<Touched, Error> {
        if name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Error::RoleAlreadyExist);
        }
        self.roles.insert(name.to_owned(), Role::default());
        Ok(Touched::role(name))
    }

    fn delete_role(&mut self, name: &str) -> Result<Touched, Error> {
        if self.is_enabled && name == ROOT {
            return Err(Error::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(Error::RoleNotFound)?;
        let mut touched = Touched::role(name);
        for (user_name, user) in &mut self.users {
            if user.lose_role(name) {
                touched.users.insert(user_name.clone());
            }
        }
        Ok(touched)
    }

    fn grant_permission(
        &mut self,
        request: &pb::AuthRoleGrantPermissionRequest,
    ) -> Result<Touched, Error> {
        let given = request.perm.as_ref().ok_or(Error::PermissionNotGiven)?;
        if !is_valid_span(given) {
            return Err(Error::InvalidAuthMgmt);
        }
        let role = self.roles.get_mut(&request.name).ok_or(Error::RoleNotFound)?;
        match role.permissions.iter_mut().find(|known| is_of_span(known, given)) {
            Some(known) => known.perm_type = given.perm_type,
            None => {
                let at = role.permissions.partition_point(|known| known.key <= given.key);
                role.permissions.insert(at, given.clone());
            }
        }
        Ok(Touched::role(&request.name))
    }

    fn revoke_permission(
        &mut self,
        request: &pb::AuthRoleRevokePermissionRequest,
    ) -> Result<Touched, Error> {
        let role = self.roles.get_mut(&request.role).ok_or(Error::RoleNotFound)?;
        let (key, range_end) = (request.key.clone(), request.range_end.clone());
        let taken = Permission { key, range_end, ..Permission::default() };
        let count_before = role.permissions.len();
        role.permissions.retain(|known| !is_of_span(known, &taken));
        if role.permissions.len() == count_before {
            return Err(Error::PermissionNotGranted);
        }
        Ok(Touched::role(&request.role))
    }
}

impl User {
    /// Whether the user had the role.
    fn lose_role(&mut self, role: &str) -> bool {
        let count_before = self.roles.len();
        self.roles.retain(|own| own != role);
        self.grants = OnceLock::new();
        self.roles.len() != count_before
    }
}

/// One key, everything from a key on, or a span that has a key.
fn is_valid_span(permission: &Permission) -> bool {
    let (key, range_end) = (&permission.key, &permission.range_end);
    let is_open = range_end[..] == *b"\0";
    !key.is_empty() && (range_end.is_empty() || is_open || key < range_end)
}

fn is_of_span(one: &Permission, other: &Permission) -> bool {
    one.key == other.key && one.range_end == other.range_end
}
