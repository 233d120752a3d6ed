//! Users, roles and the rest as rows of the spine's state.

use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;

use super::{Auth, Role, User};
use crate::proto::authpb;
use crate::proto::internal::StoredAuth;

impl Auth {
    /// Of a backup, without users and roles. What is not that of a new cluster was changed when the new
    /// cluster began: its log begins after index 1.
    pub fn restored(is_enabled: bool, revision: u64) -> Self {
        Self { is_enabled, revision, changed_at: 1, ..Self::default() }
    }

    /// All but users and roles.
    pub fn encode(&self) -> Bytes {
        let stored = StoredAuth {
            is_enabled: self.is_enabled,
            revision: self.revision,
            changed_at: self.changed_at,
        };
        stored.encode_to_vec().into()
    }

    /// Takes what `encode` made. `None` when it is damaged.
    pub fn decode(&mut self, value: &[u8]) -> Option<()> {
        let stored = StoredAuth::decode(value).ok()?;
        self.is_enabled = stored.is_enabled;
        self.revision = stored.revision;
        self.changed_at = stored.changed_at;
        Some(())
    }

    /// A user; `None` if there is none of that name.
    pub fn encode_user(&self, name: &str) -> Option<Bytes> {
        let user = self.users.get(name)?;
        let stored = authpb::User {
            name: Bytes::copy_from_slice(name.as_bytes()),
            password: Bytes::copy_from_slice(user.password_hash.as_bytes()),
            roles: user.roles.clone(),
            options: Some(authpb::UserAddOptions { no_password: user.is_without_password }),
        };
        Some(stored.encode_to_vec().into())
    }

    /// Takes a user as it was stored. `None` when that is damaged.
    pub fn decode_user(&mut self, value: &[u8]) -> Option<()> {
        let stored = authpb::User::decode(value).ok()?;
        let user = User {
            password_hash: text(&stored.password)?,
            is_without_password: stored.options.is_some_and(|options| options.no_password),
            roles: stored.roles,
            grants: OnceLock::new(),
        };
        self.users.insert(text(&stored.name)?, user);
        Some(())
    }

    /// A role; `None` if there is none of that name.
    pub fn encode_role(&self, name: &str) -> Option<Bytes> {
        let role = self.roles.get(name)?;
        let name = Bytes::copy_from_slice(name.as_bytes());
        let stored = authpb::Role { name, key_permission: role.permissions.clone() };
        Some(stored.encode_to_vec().into())
    }

    /// Takes a role as it was stored. `None` when that is damaged.
    pub fn decode_role(&mut self, value: &[u8]) -> Option<()> {
        let stored = authpb::Role::decode(value).ok()?;
        self.roles.insert(text(&stored.name)?, Role { permissions: stored.key_permission });
        Some(())
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
