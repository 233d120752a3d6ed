//! How messages with passwords, hashes or tokens are shown: without them.

use std::fmt;

use crate::{authpb, etcdserverpb as pb, internal};

macro_rules! without_secrets {
    ($($message:ty: $($field:ident)*;)*) => {
        $(
            impl fmt::Debug for $message {
                fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                    let name = stringify!($message);
                    let name = name.rsplit("::").next().unwrap_or(name).trim();
                    out.debug_struct(name)
                        $(.field(stringify!($field), &self.$field))*
                        .finish_non_exhaustive()
                }
            }
        )*
    };
}

without_secrets! {
    authpb::User: name roles options;
    pb::AuthenticateRequest: name;
    pb::AuthenticateResponse: header;
    pb::AuthUserAddRequest: name options;
    pb::AuthUserChangePasswordRequest: name;
    internal::AuthToken: user;
    internal::AuthTokenAnswer: ;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = "pässword";
        let (name, password) = ("alice".to_owned(), secret.to_owned());
        let hashed_password = password.clone();
        let add = pb::AuthUserAddRequest { name, password, hashed_password, options: None };
        let token = pb::AuthenticateResponse { header: None, token: secret.to_owned() };
        let user = authpb::User { password: secret.into(), ..authpb::User::default() };
        let (user_name, letters) = ("alice".to_owned(), secret.to_owned());
        let given = internal::AuthToken { user: user_name, letters, pass: 1 };
        let what = Some(internal::auth_change::What::UserAdd(add.clone()));
        let change = internal::AuthChange { user: "root".to_owned(), what };
        let shown = format!("{add:?} {token:?} {user:?} {given:?} {change:?}");
        assert!(shown.contains("alice"), "{shown}");
        assert!(!shown.contains("ssword"), "{shown}");
    }
}
