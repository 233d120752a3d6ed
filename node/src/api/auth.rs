//! Auth: users, roles and permissions, and tokens for passwords. Changes are commands, which the
//! order refuses unless root has sent them; nothing is asked here that the order does not ask again,
//! but for the price of a hash.

use flotilla_core::Error;
use flotilla_core::auth::{Auth, Caller, Pass, ROOT};
use flotilla_core::command::{Answer, Command};
use flotilla_core::proto::authpb::{Permission, permission};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::internal::{AuthChange, AuthToken, auth_change::What};

use super::guard::Client;
use super::{Context, header};
use crate::auth::Password;
use crate::router::expect_answer;

/// Times a password is looked at again because users, roles or permissions changed meanwhile.
const PASSWORD_LOOKS_MAX: u32 = 8;

macro_rules! changes {
    ($($name:ident: $request:ident => $what:ident, $response:ident;)*) => {
        $(
            pub(super) async fn $name(
                context: &Context,
                client: &Client,
                request: pb::$request,
            ) -> Result<pb::$response, Error> {
                change(context, client, What::$what(request)).await?;
                Ok(pb::$response { header: header::complete(context, None) })
            }
        )*
    };
}

changes! {
    enable: AuthEnableRequest => Enable, AuthEnableResponse;
    disable: AuthDisableRequest => Disable, AuthDisableResponse;
    user_delete: AuthUserDeleteRequest => UserDelete, AuthUserDeleteResponse;
    user_grant_role: AuthUserGrantRoleRequest => UserGrantRole, AuthUserGrantRoleResponse;
    user_revoke_role: AuthUserRevokeRoleRequest => UserRevokeRole, AuthUserRevokeRoleResponse;
    role_add: AuthRoleAddRequest => RoleAdd, AuthRoleAddResponse;
    role_delete: AuthRoleDeleteRequest => RoleDelete, AuthRoleDeleteResponse;
    role_grant_permission: AuthRoleGrantPermissionRequest
        => RoleGrantPermission, AuthRoleGrantPermissionResponse;
    role_revoke_permission: AuthRoleRevokePermissionRequest
        => RoleRevokePermission, AuthRoleRevokePermissionResponse;
}

pub(super) async fn user_add(
    context: &Context,
    client: &Client,
    request: pb::AuthUserAddRequest,
) -> Result<pb::AuthUserAddResponse, Error> {
    let pb::AuthUserAddRequest { name, password, options, .. } = request;
    let password = Password::from(password);
    client.root(context).await?;
    let hashed_password = match options.is_some_and(|options| options.no_password) {
        true => String::new(),
        false => context.gate().hash(password).await?,
    };
    let request = pb::AuthUserAddRequest { name, options, hashed_password, ..Default::default() };
    change(context, client, What::UserAdd(request)).await?;
    Ok(pb::AuthUserAddResponse { header: header::complete(context, None) })
}

pub(super) async fn user_change_password(
    context: &Context,
    client: &Client,
    request: pb::AuthUserChangePasswordRequest,
) -> Result<pb::AuthUserChangePasswordResponse, Error> {
    let pb::AuthUserChangePasswordRequest { name, password, .. } = request;
    let password = Password::from(password);
    client.root(context).await?;
    let hashed_password = context.gate().hash(password).await?;
    let request = pb::AuthUserChangePasswordRequest { name, hashed_password, ..Default::default() };
    change(context, client, What::UserChangePassword(request)).await?;
    Ok(pb::AuthUserChangePasswordResponse { header: header::complete(context, None) })
}

async fn change(context: &Context, client: &Client, what: What) -> Result<(), Error> {
    let user = client.caller(context).await?.user.unwrap_or_default();
    let command = Command::AuthChange(AuthChange { user, what: Some(what) });
    // Whether that user may do it is asked where it takes its place in the order.
    client.submit(context, Pass::NODE, command).await?;
    Ok(())
}

/// Whoever has a password is told whether it is right, after as long a time as it takes either way.
pub(super) async fn authenticate(
    context: &Context,
    request: pb::AuthenticateRequest,
) -> Result<pb::AuthenticateResponse, Error> {
    let pb::AuthenticateRequest { name, password } = request;
    let password = Password::from(password);
    context.router.ticket().await?;
    for _ in 0..PASSWORD_LOOKS_MAX {
        let auth = context.gate().check_password(&name, password.clone()).await?;
        match token(context, &auth, &name).await {
            Ok(token) => {
                let header = header::complete(context, None);
                return Ok(pb::AuthenticateResponse { header, token });
            }
            Err(Error::AuthOldRevision) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::AuthOldRevision)
}

async fn token(context: &Context, auth: &Auth, name: &str) -> Result<String, Error> {
    let Some(letters) = context.gate().draw_letters() else {
        return context.gate().sign(name, auth.revision());
    };
    let pass = auth.check_known(&Caller::user(name))?.number();
    let command = Command::AuthToken(AuthToken { user: name.to_owned(), letters, pass });
    let answer = context.router.submit(Pass::NODE, command).await?;
    let answer = expect_answer(answer, |answer| match answer {
        Answer::AuthToken(answer) => Some(answer),
        _ => None,
    });
    Ok(answer.token)
}

/// Anybody may ask; but a token must be good.
pub(super) async fn status(
    context: &Context,
    client: &Client,
    _: pb::AuthStatusRequest,
) -> Result<pb::AuthStatusResponse, Error> {
    client.ticket(context).await?;
    client.caller(context).await?;
    let auth = context.gate().auth();
    Ok(pb::AuthStatusResponse {
        header: header::complete(context, None),
        enabled: auth.is_enabled(),
        auth_revision: auth.revision(),
    })
}

pub(super) async fn user_get(
    context: &Context,
    client: &Client,
    request: pb::AuthUserGetRequest,
) -> Result<pb::AuthUserGetResponse, Error> {
    let (auth, caller) = now(context, client).await?;
    if let Err(refusal) = auth.check_root(&caller)
        && caller.user.as_ref().is_none_or(|user| *user != request.name)
    {
        return Err(refusal);
    }
    let user = auth.user(&request.name).ok_or(Error::UserNotFound)?;
    let roles = user.roles().to_vec();
    Ok(pb::AuthUserGetResponse { header: header::complete(context, None), roles })
}

pub(super) async fn user_list(
    context: &Context,
    client: &Client,
    _: pb::AuthUserListRequest,
) -> Result<pb::AuthUserListResponse, Error> {
    let (auth, caller) = now(context, client).await?;
    auth.check_root(&caller)?;
    let users = auth.user_names().cloned().collect();
    Ok(pb::AuthUserListResponse { header: header::complete(context, None), users })
}

pub(super) async fn role_get(
    context: &Context,
    client: &Client,
    request: pb::AuthRoleGetRequest,
) -> Result<pb::AuthRoleGetResponse, Error> {
    let (auth, caller) = now(context, client).await?;
    if let Err(refusal) = auth.check_root(&caller) {
        let user = caller.user.as_deref().and_then(|user| auth.user(user));
        if user.is_none_or(|user| !user.has_role(&request.role)) {
            return Err(refusal);
        }
    }
    let role = auth.role(&request.role).ok_or(Error::RoleNotFound)?;
    let perm = match request.role == ROOT {
        true => vec![everything()],
        false => role.permissions().to_vec(),
    };
    Ok(pb::AuthRoleGetResponse { header: header::complete(context, None), perm })
}

pub(super) async fn role_list(
    context: &Context,
    client: &Client,
    _: pb::AuthRoleListRequest,
) -> Result<pb::AuthRoleListResponse, Error> {
    let (auth, caller) = now(context, client).await?;
    auth.check_root(&caller)?;
    let roles = auth.role_names().cloned().collect();
    Ok(pb::AuthRoleListResponse { header: header::complete(context, None), roles })
}

/// Everything that was acknowledged before the call, and who makes it.
async fn now(context: &Context, client: &Client) -> Result<(std::sync::Arc<Auth>, Caller), Error> {
    client.ticket(context).await?;
    let caller = client.caller(context).await?;
    Ok((context.gate().auth(), caller))
}

/// What root may do, as etcd shows it.
fn everything() -> Permission {
    let range_end = bytes::Bytes::from_static(b"\0");
    let perm_type = permission::Type::Readwrite.into();
    Permission { perm_type, key: bytes::Bytes::new(), range_end }
}
