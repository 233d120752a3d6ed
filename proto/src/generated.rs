//! The modules written by build.rs, nested as their protobuf packages are because the generated
//! code names other packages by relative paths. Nothing is written by hand here.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_lifetimes,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    reason = "the code generator has its own style"
)]

pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}

pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}

pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
}

pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
}

pub mod grpc {
    pub mod health {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
        }
    }
}

pub mod flotilla {
    pub mod internal {
        include!(concat!(env!("OUT_DIR"), "/flotilla.internal.rs"));
    }
}
