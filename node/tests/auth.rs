//! Users, roles and tokens on real processes: who may call what, what etcdctl prints beside a real
//! etcd, and that no node is a way around.

#[path = "auth/around.rs"]
mod around;
#[path = "auth/ctl.rs"]
mod ctl;
mod harness;
#[path = "auth/matrix.rs"]
mod matrix;
#[path = "auth/signed.rs"]
mod signed;
#[path = "auth/wire.rs"]
mod wire;
