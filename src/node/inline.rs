//! Small blobs, carried within the lead's news: they cost a follower no round trips of their own.

use std::sync::Arc;

use super::driver::local_failure;
use super::{Node, blocking};
use crate::core::flight::{Failure, FailureKind, Input, Message, Small, Step};
use crate::core::id::NodeId;
use crate::core::ledger::Source;
use crate::core::manifest::Manifest;
use crate::store::StoreError;

impl Node {
    /// Adds the blob to a lead's news, if it is small and all here.
    pub(super) fn add_small(&self, to: &NodeId, message: &mut Message) {
        let Step::Sources(sources) = &mut message.step else { return };
        if sources.failed.is_some() || !self.inner.config.role.shares() {
            return;
        }
        let Some(blob) = self.inner.store.at_hand(&message.blob) else { return };
        let manifest = blob.manifest();
        if manifest.id() != message.manifest || !(1..=Small::MOST).contains(&manifest.size()) {
            return;
        }
        // What is not in memory is fetched the usual way.
        let content = blob.read_cached(0, Small::MOST);
        if let Some(content) = content.filter(|content| content.len() as u64 == manifest.size()) {
            self.inner.dealings.sent(*to, content.len() as u64);
            self.inner.books.served(&self.label(&message.blob), *to, content.len() as u64);
            sources.small = Some(Box::new(Small { manifest: manifest.encoded().clone(), content }));
        }
    }

    /// Stores a small blob that came with a lead's news, and only then passes the news on.
    pub(super) async fn take_small(self, from: NodeId, mut message: Message) {
        let small = match &mut message.step {
            Step::Sources(sources) => sources.small.take(),
            _ => None,
        };
        let blob = message.blob;
        if let Some(small) = small {
            let Small { manifest, content } = *small;
            match Manifest::decode(message.manifest, manifest) {
                Ok(manifest) if manifest.blob() == blob => {
                    self.store_small(from, Arc::new(manifest), content).await;
                }
                _ => self.break_with_liar(&from, "a wrong manifest"),
            }
        }
        self.inner.inputs.send(Input::Message { from, message }).await.ok();
    }

    async fn store_small(&self, from: NodeId, manifest: Arc<Manifest>, content: bytes::Bytes) {
        let (store, laid_out, length) = (self.inner.store.clone(), manifest.clone(), content.len() as u64);
        let blob = manifest.blob();
        let package = self.package_of(&blob);
        let written = blocking(move || {
            let new = store.get(&blob).is_none();
            let target = store.open_in(&laid_out, package.as_ref())?;
            let before = target.held();
            let places = target.write(0, &content)?;
            Ok((target.manifest().clone(), new.then_some(before), target.held(), places))
        });
        let stopped = Failure { why: "the store stopped".into(), kind: FailureKind::Local };
        match written.await {
            Some(Ok((manifest, new, held, places))) => {
                if let Some(reused) = new {
                    self.inner.books.opened(&self.label(&blob), &manifest, reused.iter());
                }
                let chunks: Vec<u32> = (0..manifest.count()).collect();
                let result = Ok((manifest.clone(), held));
                self.inner.inputs.send(Input::Manifest { blob, result }).await.ok();
                self.inner.dealings.inline(from, length);
                self.stored(&self.label(&blob), Source::Peer(from), &manifest, chunks, places).await;
            }
            Some(Err(StoreError::WrongHash(_) | StoreError::NotHeld(_))) => {
                self.break_with_liar(&from, "wrong bytes");
            }
            Some(Err(error)) => {
                let result = Err(local_failure(&error));
                self.inner.inputs.send(Input::Manifest { blob, result }).await.ok();
            }
            None => {
                self.inner.inputs.send(Input::Manifest { blob, result: Err(stopped) }).await.ok();
            }
        }
        self.inner.live.came(&blob);
    }

    fn break_with_liar(&self, from: &NodeId, what: &str) {
        tracing::warn!(node = %from, "sent {what}; disconnecting");
        self.inner.net.ban(from);
    }
}
