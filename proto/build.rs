//! Compiles every .proto file of `etcd/` and `internal/` with a pure-Rust compiler: no `protoc`.
//! Writes into OUT_DIR the Rust modules and the descriptors without their comments. gRPC clients
//! and servers are written only for the feature `services`.

use std::path::{Path, PathBuf};
use std::{env, error, fs};

use prost::Message;

const FOLDERS: [&str; 2] = ["etcd", "internal"];

/// Messages with passwords, hashes or tokens, which no log must have: `src/secrets.rs` says how they
/// are shown.
const WITH_SECRETS: [&str; 7] = [
    "authpb.User",
    "etcdserverpb.AuthenticateRequest",
    "etcdserverpb.AuthenticateResponse",
    "etcdserverpb.AuthUserAddRequest",
    "etcdserverpb.AuthUserChangePasswordRequest",
    "flotilla.internal.AuthToken",
    "flotilla.internal.AuthTokenAnswer",
];

/// File in OUT_DIR that `src/lib.rs` embeds.
const DESCRIPTOR_SET: &str = "descriptor_set.bin";

fn main() -> Result<(), Box<dyn error::Error>> {
    let crate_dir = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let with_services = env::var_os("CARGO_FEATURE_SERVICES").is_some();

    let mut descriptors = protox::compile(proto_files(&crate_dir)?, [&crate_dir])?;
    tonic_prost_build::configure()
        .build_client(with_services)
        .build_server(with_services)
        .bytes(".")
        .btree_map(".")
        .skip_debug(WITH_SECRETS)
        .compile_fds(descriptors.clone())?;

    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out_dir.join(DESCRIPTOR_SET), descriptors.encode_to_vec())?;
    Ok(())
}

/// The .proto files of all folders, sorted so that every build generates the same text.
fn proto_files(crate_dir: &Path) -> Result<Vec<PathBuf>, Box<dyn error::Error>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        // Cargo looks at every file below a folder, new ones included.
        println!("cargo::rerun-if-changed={folder}");
        for entry in fs::read_dir(crate_dir.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
