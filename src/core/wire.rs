//! The messages of `proto/`, as generated.

#![allow(missing_docs, clippy::module_inception, reason = "documented in the .proto files")]

/// What a bundle says of itself.
pub mod bundle {
    include!(concat!(env!("OUT_DIR"), "/branchline.bundle.rs"));
}

/// What an origin stores.
pub mod manifest {
    include!(concat!(env!("OUT_DIR"), "/branchline.manifest.rs"));
}

/// What agents say to each other.
pub mod message {
    include!(concat!(env!("OUT_DIR"), "/branchline.wire.rs"));
}

/// How blobs are rebuilt.
pub mod recipe {
    include!(concat!(env!("OUT_DIR"), "/branchline.recipe.rs"));
}

/// What a monitoring system is sent.
pub mod remote_write {
    include!(concat!(env!("OUT_DIR"), "/branchline.remote_write.rs"));
}
