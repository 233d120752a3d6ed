//! Users, roles and permissions: who may do what, in etcd's terms. A part of the spine's state.
//!
//! A request is checked on the node that its client talks to (`Auth::check`), against that node's
//! copy of the state. What it was let in with, a `Pass`, travels with it, and wherever it takes its
//! place in the order it is asked again whether the pass still holds (`Admission::admits`). Nothing
//! here knows a password: hashes are made and compared elsewhere.

mod change;
mod check;
mod grants;
mod needs;
mod pass;
mod stored;
mod tokens;
mod users;

#[cfg(test)]
mod tests;

pub use change::Touched;
pub use check::Caller;
pub use grants::{Access, Grants};
pub use needs::Needs;
pub use pass::{Admission, Pass};
pub use tokens::{TOKENS_MAX, Tokens, token_index, token_text};
pub use users::{Auth, Role, User};

use std::sync::Arc;

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// What a node does when the folded state changes who may do what.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Users, roles or permissions are different, or whether they count.
    Changed(Arc<Auth>, Forget),
    /// From now on this token stands for this user.
    Token {
        /// The user.
        user: String,
        /// The token.
        token: String,
    },
}

/// Simple tokens that end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forget {
    /// None.
    Nothing,
    /// Those of a user who was deleted, or has another password.
    User(String),
    /// All: authentication was turned off, or some changes were not seen.
    All,
}
