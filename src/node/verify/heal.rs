//! Making a blob whole again that has lost chunks.

use std::sync::Arc;
use std::time::Duration;

use super::super::Node;
use super::super::report::Damage;
use super::By;
use crate::core::flight::{Input, Urgency};
use crate::core::manifest::Manifest;

/// So long this is tried. What is ordered to be kept is tried again and again beside that.
const PATIENCE: Duration = Duration::from_secs(600);
/// A flight that ended and left something out is begun anew after this.
const AGAIN: Duration = Duration::from_secs(1);

impl Node {
    /// Fetches chunks anew, in the background, and tells what has become of it.
    pub(super) async fn heal(&self, by: By, manifest: &Arc<Manifest>, chunks: Vec<u32>, damage: Damage) {
        let result = tokio::time::timeout(PATIENCE, self.fetch_anew(manifest, chunks)).await;
        let damage = Damage { healing: false, ..damage };
        let damage = match result {
            Ok(Ok(())) => Damage { healed: true, state: "healed".into(), ..damage },
            Ok(Err(why)) => Damage { state: format!("not healed: {why}"), ..damage },
            Err(_) => Damage { state: "not healed yet: nobody had it for 10 minutes".into(), ..damage },
        };
        self.tell_damage(by, damage).await;
    }

    async fn fetch_anew(&self, manifest: &Arc<Manifest>, chunks: Vec<u32>) -> Result<(), String> {
        let blob = manifest.blob();
        let mut ticket = self.inner.live.enter_to_keep(blob, self.inner.inputs.clone());
        ticket.want(manifest.id(), Urgency::Background).await;
        // A flight that is under way believes that they are here.
        let held = self.inner.store.at_hand(&blob).map(|blob| blob.held()).unwrap_or_default();
        for chunk in chunks.into_iter().filter(|chunk| !held.contains(*chunk)) {
            ticket.say(Input::Lost { blob, chunk }).await;
        }
        loop {
            let held = self.inner.store.list().into_iter().find(|held| held.blob == blob);
            match held {
                None => return Err("it was evicted meanwhile".to_owned()),
                Some(held) if held.complete => return Ok(()),
                Some(_) => {}
            }
            let end = ticket.news.borrow_and_update().end.clone();
            match end {
                Some(Err(failure)) => return Err(failure.why),
                Some(Ok(())) => {
                    tokio::time::sleep(AGAIN).await;
                    ticket.want(manifest.id(), Urgency::Background).await;
                }
                None => {
                    ticket.news.changed().await.map_err(|_| "the agent is stopping".to_owned())?;
                }
            }
        }
    }
}
