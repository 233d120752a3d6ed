//! Users, roles and permissions: etcd's rules for changes, the walk over a request against a naive
//! one, and what a pass is worth later.

mod advisories;
mod naive;
mod order;
mod rules;
mod tokens;

use bytes::Bytes;

use super::{Auth, Caller, Needs, Pass};
use crate::proto::authpb::{Permission, UserAddOptions, permission::Type};
use crate::proto::etcdserverpb as pb;
use crate::proto::internal::{AuthChange, auth_change::What};
use crate::{Error, LeaseId};

fn change(user: &str, what: What) -> AuthChange {
    AuthChange { user: user.to_owned(), what: Some(what) }
}

fn user_add(name: &str) -> What {
    let (name, hashed_password) = (name.to_owned(), format!("hash of {name}"));
    What::UserAdd(pb::AuthUserAddRequest { name, hashed_password, ..Default::default() })
}

fn user_add_without_password(name: &str) -> What {
    let options = Some(UserAddOptions { no_password: true });
    let name = name.to_owned();
    What::UserAdd(pb::AuthUserAddRequest { name, options, ..Default::default() })
}

fn user_delete(name: &str) -> What {
    What::UserDelete(pb::AuthUserDeleteRequest { name: name.to_owned() })
}

fn password(name: &str, hash: &str) -> What {
    let (name, hashed_password) = (name.to_owned(), hash.to_owned());
    What::UserChangePassword(pb::AuthUserChangePasswordRequest {
        name,
        hashed_password,
        ..Default::default()
    })
}

fn user_grant(user: &str, role: &str) -> What {
    let (user, role) = (user.to_owned(), role.to_owned());
    What::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })
}

fn user_revoke(name: &str, role: &str) -> What {
    let (name, role) = (name.to_owned(), role.to_owned());
    What::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role })
}

fn role_add(name: &str) -> What {
    What::RoleAdd(pb::AuthRoleAddRequest { name: name.to_owned() })
}

fn role_delete(role: &str) -> What {
    What::RoleDelete(pb::AuthRoleDeleteRequest { role: role.to_owned() })
}

fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
    let (key, range_end) = (Bytes::from(key.to_owned()), Bytes::from(range_end.to_owned()));
    Permission { perm_type: kind.into(), key, range_end }
}

fn role_grant(name: &str, kind: Type, key: &str, range_end: &str) -> What {
    let perm = Some(permission(kind, key, range_end));
    What::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: name.to_owned(), perm })
}

fn role_revoke(role: &str, key: &str, range_end: &str) -> What {
    let Permission { key, range_end, .. } = permission(Type::Read, key, range_end);
    let role = role.to_owned();
    What::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
}

fn enable() -> What {
    What::Enable(pb::AuthEnableRequest {})
}

fn disable() -> What {
    What::Disable(pb::AuthDisableRequest {})
}

/// Carries out changes of root, each at the next index.
fn apply(auth: &mut Auth, changes: &[What]) {
    for what in changes {
        let index = auth.changed_at() + 1;
        auth.change(&change("root", what.clone()), index).unwrap();
    }
}

/// Authentication is on, and user `u` has a role with these permissions.
fn with_permissions(permissions: &[(Type, &str, &str)]) -> Auth {
    let mut auth = Auth::default();
    let grants = permissions.iter().map(|(kind, key, end)| role_grant("r", *kind, key, end));
    let mut changes = vec![user_add("root"), user_grant("root", "root"), role_add("r")];
    changes.extend(grants);
    changes.extend([user_add("u"), user_grant("u", "r"), enable()]);
    apply(&mut auth, &changes);
    auth
}

/// What user `u` gets for a request when nothing is attached to any lease.
fn ask(auth: &Auth, needs: &Needs) -> Result<Pass, Error> {
    auth.check(&Caller::user("u"), needs, no_keys)
}

fn no_keys(_: LeaseId) -> Result<Vec<Bytes>, Error> {
    Ok(Vec::new())
}
