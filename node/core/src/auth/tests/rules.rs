//! etcd's rules for changes, and its refusals.

use super::*;
use crate::auth::{Forget, ROOT};

/// Every refusal, in a state that calls for it, leaves everything as it was.
#[test]
fn what_cannot_be_is_refused_as_by_etcd() {
    let auth = with_permissions(&[(Type::Read, "a", "b")]);
    let cases = [
        (user_add(""), Error::UserEmpty),
        (user_add("u"), Error::UserAlreadyExist),
        (user_delete("nobody"), Error::UserNotFound),
        (user_delete(ROOT), Error::InvalidAuthMgmt),
        (password("nobody", "h"), Error::UserNotFound),
        (user_grant("nobody", "r"), Error::UserNotFound),
        (user_grant("u", "nothing"), Error::RoleNotFound),
        (user_revoke("nobody", "r"), Error::UserNotFound),
        (user_revoke("u", "nothing"), Error::RoleNotGranted),
        (user_revoke(ROOT, ROOT), Error::InvalidAuthMgmt),
        (role_add(""), Error::RoleEmpty),
        (role_add("r"), Error::RoleAlreadyExist),
        (role_delete("nothing"), Error::RoleNotFound),
        (role_delete(ROOT), Error::InvalidAuthMgmt),
        (role_grant("nothing", Type::Read, "a", ""), Error::RoleNotFound),
        (role_grant("r", Type::Read, "", ""), Error::InvalidAuthMgmt),
        (role_grant("r", Type::Read, "b", "a"), Error::InvalidAuthMgmt),
        (role_grant("r", Type::Read, "b", "b"), Error::InvalidAuthMgmt),
        (role_revoke("nothing", "a", "b"), Error::RoleNotFound),
        (role_revoke("r", "a", "c"), Error::PermissionNotGranted),
        (
            What::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest {
                name: "r".to_owned(),
                perm: None,
            }),
            Error::PermissionNotGiven,
        ),
    ];
    for (what, error) in cases {
        let mut changed = auth.clone();
        let refused = changed.change(&change(ROOT, what.clone()), 99);
        assert_eq!(refused, Err(error), "{what:?}");
        assert_eq!(changed, auth, "{what:?}");
    }
}

#[test]
fn it_takes_root_with_the_role_root_to_enable() {
    let mut auth = Auth::default();
    let enabled = |auth: &mut Auth| auth.change(&change("", enable()), 50);
    assert_eq!(enabled(&mut auth), Err(Error::RootUserNotExist));
    apply(&mut auth, &[user_add(ROOT)]);
    assert_eq!(enabled(&mut auth), Err(Error::RootRoleNotExist));
    // The role need not exist to be granted.
    apply(&mut auth, &[user_grant(ROOT, ROOT)]);
    assert!(enabled(&mut auth).unwrap().is_some());
    assert!(auth.is_enabled());
    // Again, by root, is no change.
    assert_eq!(auth.change(&change(ROOT, enable()), 51), Ok(None));
    assert_eq!(auth.changed_at(), 50);
}

#[test]
fn only_root_changes_anything_once_it_is_on() {
    let mut auth = with_permissions(&[(Type::Readwrite, "\0", "\0")]);
    for what in [disable(), enable(), user_add("x"), role_add("x"), user_grant("u", "root")] {
        let by = |auth: &mut Auth, user: &str| auth.change(&change(user, what.clone()), 99);
        assert_eq!(by(&mut auth, ""), Err(Error::UserEmpty), "{what:?}");
        assert_eq!(by(&mut auth, "u"), Err(Error::PermissionDenied), "{what:?}");
        assert_eq!(by(&mut auth, "nobody"), Err(Error::PermissionDenied), "{what:?}");
    }
    apply(&mut auth, &[disable()]);
    assert!(auth.change(&change("", user_add("x")), 99).unwrap().is_some());
}

/// As a real etcd counts: three users, a role granted, turned on and off again.
#[test]
fn the_auth_revision_rises_as_etcds_does() {
    let mut auth = Auth::default();
    assert_eq!(auth.revision(), 1);
    let users = [user_add(ROOT), user_add("a"), user_add("b"), user_grant(ROOT, ROOT)];
    apply(&mut auth, &users);
    assert_eq!(auth.revision(), 5);
    apply(&mut auth, &[enable()]);
    assert_eq!(auth.revision(), 5, "turning it on does not count");
    assert_eq!(auth.changed_at(), 5, "and is a change all the same");
    apply(&mut auth, &[user_grant(ROOT, ROOT)]);
    assert_eq!(auth.revision(), 5, "granted already");
    apply(&mut auth, &[disable()]);
    assert_eq!(auth.revision(), 6);
    apply(&mut auth, &[disable()]);
    assert_eq!(auth.revision(), 6, "it is off already");
}

#[test]
fn a_role_that_goes_is_taken_from_everybody() {
    let mut auth = with_permissions(&[(Type::Read, "a", "")]);
    assert!(ask(&auth, &Needs::of_range(&get("a", ""))).is_ok());
    let touched = auth.change(&change(ROOT, role_delete("r")), 99).unwrap().unwrap();
    assert!(touched.users.contains("u") && touched.roles.contains("r"));
    assert!(auth.user("u").unwrap().roles().is_empty());
    assert_eq!(ask(&auth, &Needs::of_range(&get("a", ""))), Err(Error::PermissionDenied));
}

#[test]
fn the_same_span_granted_again_changes_its_kind() {
    let mut auth = with_permissions(&[(Type::Read, "a", "c"), (Type::Read, "a", "b")]);
    apply(&mut auth, &[role_grant("r", Type::Write, "a", "c")]);
    let wanted = [permission(Type::Write, "a", "c"), permission(Type::Read, "a", "b")];
    assert_eq!(auth.role("r").unwrap().permissions(), wanted);
    apply(&mut auth, &[role_revoke("r", "a", "c")]);
    assert_eq!(auth.role("r").unwrap().permissions(), &wanted[1..]);
}

#[test]
fn tokens_end_with_the_user_the_password_and_the_whole() {
    let mut auth = with_permissions(&[]);
    let mut forget = |what| {
        let touched = auth.change(&change(ROOT, what), 99).unwrap();
        touched.unwrap().forget
    };
    assert_eq!(forget(role_add("x")), Forget::Nothing);
    assert_eq!(forget(password("u", "h")), Forget::User("u".to_owned()));
    assert_eq!(forget(user_delete("u")), Forget::User("u".to_owned()));
    assert_eq!(forget(disable()), Forget::All);
}

#[test]
fn a_user_without_a_password_stays_so() {
    let mut auth = with_permissions(&[]);
    apply(&mut auth, &[user_add_without_password("np"), password("np", "h"), password("u", "h")]);
    let user = |name| auth.user(name).unwrap();
    assert!(user("np").is_without_password() && user("np").password_hash().is_empty());
    assert_eq!(user("u").password_hash(), "h");
}

#[test]
fn rows_bring_everything_back() {
    let auth = with_permissions(&[(Type::Read, "a", "c"), (Type::Readwrite, "x", "\0")]);
    let mut read = Auth::default();
    read.decode(&auth.encode()).unwrap();
    for name in auth.user_names() {
        read.decode_user(&auth.encode_user(name).unwrap()).unwrap();
    }
    for name in auth.role_names() {
        read.decode_role(&auth.encode_role(name).unwrap()).unwrap();
    }
    assert_eq!(read, auth);
    assert_eq!(read.decode_user(b"\xff\xff"), None);
}

pub(super) fn get(key: &str, range_end: &str) -> pb::RangeRequest {
    let (key, range_end) = (Bytes::from(key.to_owned()), Bytes::from(range_end.to_owned()));
    pb::RangeRequest { key, range_end, ..pb::RangeRequest::default() }
}
