//! Writing a bundle, record by record. Whoever writes sends the bytes on as they come.

use bytes::Bytes;
use prost::Message;

use super::contents::Contents;
use super::head::{HEAD, Head, Kind};
use super::run::Run;
use super::{BundleError, MAGIC, MAX_CATALOG, MAX_CONTENTS};
use crate::core::manifest::Manifest;
use crate::core::wire::message::{CatalogBundle, CatalogFile};

/// What of a bundle was written.
#[derive(Debug, Clone)]
pub struct Writer {
    digest: blake3::Hasher,
    at: u64,
    records: u64,
}

impl Writer {
    /// The beginning: magic, contents and catalog.
    ///
    /// # Errors
    /// [`BundleError::TooMuch`].
    pub fn begin(
        contents: &Contents,
        catalog: impl IntoIterator<Item = (String, Bytes)>,
    ) -> Result<(Self, Vec<u8>), BundleError> {
        let mut writer = Self { digest: blake3::Hasher::new(), at: MAGIC.len() as u64, records: 0 };
        writer.digest.update(MAGIC);
        let file = |(name, content)| CatalogFile { name, content };
        let catalog = CatalogBundle { files: catalog.into_iter().map(file).collect() };
        let (contents, catalog) = (contents.encode(), catalog.encode_to_vec());
        if contents.len() > MAX_CONTENTS as usize || catalog.len() > MAX_CATALOG as usize {
            return Err(BundleError::TooMuch("its list of contents or its catalog is too long"));
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(writer.record(Kind::Contents, &contents));
        bytes.extend(writer.record(Kind::Catalog, &catalog));
        Ok((writer, bytes))
    }

    /// A manifest.
    pub fn manifest(&mut self, manifest: &Manifest) -> Vec<u8> {
        self.record(Kind::Manifest, manifest.encoded())
    }

    /// The head of a run; its payload must follow.
    pub fn run(&mut self, run: &Run) -> [u8; HEAD] {
        let head = run.head(Kind::Run).encode();
        self.digest.update(&head);
        self.records += 1;
        self.at += (HEAD + run.length as usize) as u64;
        head
    }

    /// The end.
    pub fn end(self) -> Vec<u8> {
        let mut bytes = Head::of(Kind::End, END).encode().to_vec();
        bytes.extend(self.records.to_le_bytes());
        bytes.extend(self.at.to_le_bytes());
        bytes.extend(self.digest.finalize().as_bytes());
        bytes
    }

    fn record(&mut self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Head::of(kind, payload.len() as u32).encode().to_vec();
        bytes.extend(payload);
        self.digest.update(&bytes);
        self.records += 1;
        self.at += bytes.len() as u64;
        bytes
    }
}

/// Bytes of the payload of the end.
pub(super) const END: u32 = 48;
