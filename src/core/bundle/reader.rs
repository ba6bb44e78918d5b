//! Reading a bundle, step by step. Whoever reads gives it the bytes that it wants next, from wherever
//! they come; the payload of a run goes past it, or is not read at all.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;

use super::contents::Contents;
use super::head::{HEAD, Head, Kind};
use super::run::Run;
use super::writer::END;
use super::{BundleError, MAGIC, MAX_CATALOG, MAX_CONTENTS, MAX_MANIFESTS};
use crate::core::id::ManifestId;
use crate::core::manifest::MAX_MANIFEST;
use crate::core::wire::message::CatalogBundle;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A part; go on.
    More,
    /// What the bundle contains.
    Contents(Contents),
    /// The files of the signed catalog.
    Catalog(Vec<(String, Bytes)>),
    /// A manifest's encoding, not checked, and what its hash must be.
    Manifest(ManifestId, Bytes),
    /// Chunks: their payload comes next, which the reader does not want to see.
    Run(Run),
    /// Chunks whose payload was left out on the way, since the reader holds them.
    Held(Run),
    /// The end: nothing was cut or altered, but perhaps the payload of runs.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Magic,
    Head,
    Payload(Head),
    Nothing,
}

/// Where it is in a bundle.
#[derive(Debug)]
pub struct Reader {
    expects: Expects,
    digest: blake3::Hasher,
    /// Bytes before the next one that it wants, in the bundle as it was written.
    at: u64,
    records: u64,
    contents: Option<(u64, u64)>,
    catalog: bool,
    manifests: VecDeque<ManifestId>,
    manifest_count: u32,
    manifest_bytes: u64,
    runs: u64,
    bytes: u64,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            expects: Expects::Magic,
            digest: blake3::Hasher::new(),
            at: 0,
            records: 0,
            contents: None,
            catalog: false,
            manifests: VecDeque::new(),
            manifest_count: 0,
            manifest_bytes: 0,
            runs: 0,
            bytes: 0,
        }
    }
}

impl Reader {
    /// How many bytes [`Reader::take`] wants next; 0 at the end.
    pub fn wants(&self) -> usize {
        match self.expects {
            Expects::Magic => MAGIC.len(),
            Expects::Head => HEAD,
            Expects::Payload(head) => head.length as usize,
            Expects::Nothing => 0,
        }
    }

    /// Whether all that comes before the runs was read.
    pub fn is_past_manifests(&self) -> bool {
        self.catalog && self.manifests.is_empty()
    }

    /// Of the content, how many bytes were read or passed over, and of how many.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes, self.contents.map_or(0, |(_, bytes)| bytes))
    }

    /// The stream has ended before the bundle.
    pub fn cut(&self) -> BundleError {
        let (done, all) = self.progress();
        let share = (u128::from(done) * 100).checked_div(u128::from(all)).unwrap_or(0).min(100) as u64;
        BundleError::Cut { at: self.at, share }
    }

    /// The payload of the last run ended early, after so many bytes.
    pub fn cut_in_run(&mut self, run: &Run, came: usize) -> BundleError {
        let missing = u64::from(run.length).saturating_sub(came as u64);
        self.at = self.at.saturating_sub(missing);
        self.bytes = self.bytes.saturating_sub(missing);
        self.cut()
    }

    /// Takes the bytes that it wants; fewer mean that there are no more.
    ///
    /// # Errors
    /// [`BundleError`], whatever the bytes are; there is no going on after one.
    pub fn take(&mut self, bytes: Bytes) -> Result<Step, BundleError> {
        if bytes.len() != self.wants() {
            self.at += bytes.len().min(self.wants()) as u64;
            return Err(if self.expects == Expects::Magic { BundleError::NoBundle } else { self.cut() });
        }
        match self.expects {
            Expects::Nothing => Ok(Step::End),
            Expects::Magic => {
                if bytes[..] != MAGIC[..] {
                    let other = bytes.strip_prefix(b"BRANCHB").and_then(|it| it.first());
                    let newer = other.filter(|digit| digit.is_ascii_digit());
                    return Err(newer.map_or(BundleError::NoBundle, |digit| {
                        BundleError::UnknownFormat(u32::from(digit - b'0'))
                    }));
                }
                self.count(&bytes);
                self.expects = Expects::Head;
                Ok(Step::More)
            }
            Expects::Head => {
                let altered = self.damaged("the head of a record was altered");
                let head = Head::decode(&bytes).ok_or(altered)?;
                self.on_head(head, &bytes)
            }
            Expects::Payload(head) => self.on_payload(head, bytes),
        }
    }

    fn damaged(&self, what: &'static str) -> BundleError {
        BundleError::Damaged { at: self.at, what }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn on_head(&mut self, head: Head, bytes: &[u8]) -> Result<Step, BundleError> {
        let next = match head.kind {
            Kind::Contents => self.contents.is_none() && head.length <= MAX_CONTENTS,
            Kind::Catalog => self.contents.is_some() && !self.catalog && head.length <= MAX_CATALOG,
            Kind::Manifest => {
                self.catalog && !self.manifests.is_empty() && head.length as usize <= MAX_MANIFEST
            }
            Kind::Run | Kind::Held => {
                self.is_past_manifests()
                    && head.manifest < self.manifest_count
                    && self.contents.is_some_and(|(runs, _)| self.runs < runs)
            }
            Kind::End => self.is_past_manifests() && head.length == END,
        };
        if !next {
            return Err(self.damaged("a record that does not belong there, or is too long"));
        }
        match head.kind {
            Kind::Run | Kind::Held => {
                let run = Run::of(&head, self.at)?;
                // As it was written, whether or not the payload was left out since.
                self.count(&run.head(Kind::Run).encode());
                self.at += u64::from(run.length);
                self.bytes += u64::from(run.length);
                (self.records, self.runs) = (self.records + 1, self.runs + 1);
                Ok(if head.kind == Kind::Run { Step::Run(run) } else { Step::Held(run) })
            }
            Kind::End => {
                self.expects = Expects::Payload(head);
                Ok(Step::More)
            }
            Kind::Manifest if self.manifest_bytes + u64::from(head.length) > MAX_MANIFESTS => {
                Err(self.damaged("more manifests than a bundle may have"))
            }
            _ => {
                self.count(bytes);
                self.records += 1;
                self.expects = Expects::Payload(head);
                Ok(Step::More)
            }
        }
    }

    fn on_payload(&mut self, head: Head, bytes: Bytes) -> Result<Step, BundleError> {
        let at = self.at;
        if head.kind == Kind::End {
            return self.on_end(&bytes);
        }
        self.count(&bytes);
        self.expects = Expects::Head;
        match head.kind {
            Kind::Contents => {
                let contents = Contents::decode(bytes, at)?;
                self.contents = Some((contents.runs, contents.bytes));
                self.manifests = contents.manifests().into();
                self.manifest_count = self.manifests.len() as u32;
                Ok(Step::Contents(contents))
            }
            Kind::Catalog => {
                let damaged = BundleError::Damaged { at, what: "no catalog" };
                let catalog = CatalogBundle::decode(bytes).map_err(|_| damaged)?;
                self.catalog = true;
                Ok(Step::Catalog(catalog.files.into_iter().map(|file| (file.name, file.content)).collect()))
            }
            _ => {
                self.manifest_bytes += bytes.len() as u64;
                let id = self.manifests.pop_front().ok_or(BundleError::Damaged { at, what: "a manifest" })?;
                Ok(Step::Manifest(id, bytes))
            }
        }
    }

    fn on_end(&mut self, bytes: &[u8]) -> Result<Step, BundleError> {
        let mut right = self.records.to_le_bytes().to_vec();
        right.extend(self.at.to_le_bytes());
        right.extend(self.digest.finalize().as_bytes());
        if bytes != right || self.contents.is_some_and(|(runs, _)| self.runs != runs) {
            return Err(self.damaged("what came before its end is not what was written"));
        }
        self.expects = Expects::Nothing;
        Ok(Step::End)
    }
}
