//! Who a client is: the node's copy of users and roles, tokens and who they stand for, passwords
//! and the threads that hash them. What somebody may do is decided in the core (`flotilla_core::auth`).

mod credentials;
mod gate;
mod jwt;
mod passwords;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use credentials::Credentials;
pub use gate::Gate;
pub use passwords::{HASHES_AT_ONCE, HASHES_WAITING_MAX, Password};
