//! The words that cross a machine boundary: etcd's API, our internal messages, and the ids and
//! spans both are written with. Holds no decisions and does no IO; the gRPC clients and servers
//! exist only with the feature `services`.
#![warn(missing_docs)]

mod generated;
pub mod ids;
mod secrets;
pub mod span;

/// What Flotilla's nodes say to each other and write to disk.
pub use generated::flotilla::internal;
/// The health service of the gRPC project.
pub use generated::grpc::health::v1 as health;
/// etcd's client API, under etcd's package names.
pub use generated::{authpb, etcdserverpb, mvccpb, v3electionpb, v3lockpb};
pub use ids::{GroupId, LeaseId, NodeId};
pub use span::Span;

/// Encoded `google.protobuf.FileDescriptorSet` of every .proto file of this crate, without
/// comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.bin"));
