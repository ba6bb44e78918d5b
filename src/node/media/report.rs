//! What is told of an export and of an import, as JSON.

use serde::{Deserialize, Serialize};

use crate::core::bundle::Contents;

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its length.
    pub bytes: u64,
    /// Bytes of content in it.
    pub content: u64,
    /// What is in it.
    pub packages: Vec<ExportedPackage>,
}

/// A package in a bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedPackage {
    /// As `NAME@VERSION`.
    pub package: String,
    /// The older version whose chunks are left out.
    pub since: Option<String>,
}

impl Written {
    /// A bundle of that length, with these contents.
    pub fn new(bytes: u64, contents: &Contents) -> Self {
        let packages = contents.packages.iter().map(|entry| ExportedPackage {
            package: entry.label(),
            since: entry.since.as_ref().map(ToString::to_string),
        });
        Self { bytes, content: contents.bytes, packages: packages.collect() }
    }
}

/// What an import has to say on its way: one of these a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// The chunks of each manifest that need not be sent, as gap, length, gap, length, ...
    Held(Vec<Vec<u32>>),
    /// Bytes of content that were read or passed over, and how many there are.
    Progress {
        /// So far.
        bytes: u64,
        /// In all.
        of: u64,
    },
    /// How it ended; the last line.
    Done(Box<Imported>),
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// What became of the bundle's catalog.
    pub catalog: CatalogNews,
    /// The bundle's packages.
    pub packages: Vec<ImportedPackage>,
    /// Bytes of content in the bundle.
    pub bytes: u64,
    /// Bytes of content that are new here.
    pub new_bytes: u64,
    /// From its begin until all was verified and could be fetched.
    pub seconds: f64,
    /// And then, until all of it was safe on the disk.
    pub flush_seconds: f64,
    /// Why it ended before the bundle did, or what is wrong with the bundle.
    pub error: Option<String>,
}

impl Imported {
    /// All packages of the bundle are complete here, and nothing was wrong with it.
    pub fn is_complete(&self) -> bool {
        self.error.is_none() && self.packages.iter().all(|package| package.missing_chunks == 0)
    }
}

/// What became of a bundle's catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogNews {
    /// The version that holds here now.
    pub version: u64,
    /// The bundle's.
    pub in_bundle: u64,
    /// The bundle's was newer, and was taken over.
    pub taken_over: bool,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What became of one package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportedPackage {
    /// As `NAME@VERSION`.
    pub package: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Its chunks.
    pub chunks: u32,
    /// Of them, those that were held before.
    pub held_chunks: u32,
    /// Those that came from the bundle.
    pub new_chunks: u32,
    /// Those that were copied from other packages.
    pub copied_chunks: u32,
    /// Those that were damaged in the bundle.
    pub damaged_chunks: u32,
    /// Those that are missing now.
    pub missing_chunks: u32,
    /// And how many bytes they are.
    pub missing_bytes: u64,
    /// The older version that whoever imports it should have, since its chunks were left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it was not imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}
