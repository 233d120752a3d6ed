//! The users and roles, and whether they count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use super::{Admission, Grants, ROOT};
use crate::proto::authpb::Permission;

/// Users, roles and permissions after some prefix of the spine.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    pub(super) is_enabled: bool,
    pub(super) revision: u64,
    pub(super) changed_at: u64,
    pub(super) users: BTreeMap<String, User>,
    pub(super) roles: BTreeMap<String, Role>,
}

/// A user.
#[derive(Clone, Default)]
pub struct User {
    /// Bcrypt's text; empty for a user without a password.
    pub(super) password_hash: String,
    pub(super) is_without_password: bool,
    /// In order.
    pub(super) roles: Vec<String>,
    /// What the roles come to, once somebody has asked.
    pub(super) grants: OnceLock<Grants>,
}

/// A named set of permissions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Role {
    /// In the order of their keys.
    pub(super) permissions: Vec<Permission>,
}

impl Default for Auth {
    /// That of a new cluster.
    fn default() -> Self {
        Self {
            is_enabled: false,
            revision: 1,
            changed_at: 0,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl Auth {
    /// Whether requests need a user.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// etcd's auth revision: counts changes of users, roles and permissions, and how often
    /// authentication was turned off, from 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Spine index of the last change, turning authentication on included; 0 before the first.
    pub fn changed_at(&self) -> u64 {
        self.changed_at
    }

    /// What is asked where requests take their place in the order.
    pub fn admission(&self) -> Admission {
        Admission { is_enabled: self.is_enabled, changed_at: self.changed_at }
    }

    /// By name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// By name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// The names of all users, in order.
    pub fn user_names(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    /// The names of all roles, in order.
    pub fn role_names(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// What a user's roles grant. Roles that do not exist grant nothing.
    pub fn grants<'a>(&self, user: &'a User) -> &'a Grants {
        user.grants.get_or_init(|| {
            let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
            Grants::new(roles.flat_map(|role| &role.permissions))
        })
    }
}

impl User {
    /// Bcrypt's text of the password's hash; empty for a user without a password.
    pub fn password_hash(&self) -> &str {
        &self.password_hash
    }

    /// The user has no password, and is known by a certificate or a signed token only.
    pub fn is_without_password(&self) -> bool {
        self.is_without_password
    }

    /// The names of the user's roles, in order.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Whether the user may do everything.
    pub fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }

    /// Whether the user has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        let Self { password_hash, is_without_password, roles, grants: _ } = self;
        *password_hash == other.password_hash
            && *is_without_password == other.is_without_password
            && *roles == other.roles
    }
}

impl fmt::Debug for User {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("User").field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Role {
    /// In the order of their keys. Those of the role `root` do not count: it may do everything.
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }
}
