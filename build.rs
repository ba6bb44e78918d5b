//! Generates the protobuf messages of `proto/` with a compiler written in Rust, so that a build
//! needs no `protoc`.

use std::error::Error;

const FILES: [&str; 5] = [
    "proto/bundle.proto",
    "proto/manifest.proto",
    "proto/recipe.proto",
    "proto/remote_write.proto",
    "proto/wire.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
