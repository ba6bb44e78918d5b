//! Blobs that come by recipe: what the lead does instead of pulling chunks as shipped.
//!
//! The first run of a flight decides for all of it ([`weigh`]). If a recipe is cheaper, that run brings the
//! recipe's object ([`bring`]), rebuilds the blob from it ([`rebuild`]) and stores ordinary chunks as they
//! come, in order; the flight's other runs wait for theirs. Followers know nothing of recipes.
//!
//! Whatever goes wrong, the chunks that are missing are pulled as shipped.

pub(super) mod apply;
mod bring;
mod log;
pub(super) mod older;
pub(super) mod rebuild;
mod weigh;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Node;
use super::flow::News;
use super::wan::{Run, WanFlight};
use crate::core::chunkset::ChunkSet;
use crate::core::recipe::Speeds;
use crate::store::Blob;
pub use log::{Outcome, WayWeighed, Weighing};

/// Runs that wait look so often whether their chunks are there.
const LOOK: Duration = Duration::from_millis(100);

/// What the node knows of recipes, for all flights.
#[derive(Debug, Default)]
pub(super) struct Recipes {
    speeds: Mutex<Speeds>,
    log: log::Log,
}

impl Recipes {
    fn speeds(&self) -> MutexGuard<'_, Speeds> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a flight's recipe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is weighed, or it is on its way.
    UnderWay,
    /// It was decided against it, it has failed, or all is there.
    Over,
}

/// By which way the chunks of one flight come.
#[derive(Debug, Default)]
pub(super) struct Course {
    stage: Mutex<Option<watch::Receiver<Stage>>>,
    brought: AtomicBool,
}

/// Who decides for the flight, and who waits.
enum Part {
    Decides(watch::Sender<Stage>),
    Waits(watch::Receiver<Stage>),
}

impl Course {
    fn part(&self) -> Part {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match &*stage {
            Some(watched) => Part::Waits(watched.clone()),
            None => {
                let (sender, watched) = watch::channel(Stage::UnderWay);
                *stage = Some(watched);
                Part::Decides(sender)
            }
        }
    }

    /// Whether chunks have come by recipe, so that runs may have gaps.
    pub(super) fn has_brought(&self) -> bool {
        self.brought.load(Ordering::Relaxed)
    }

    /// Brings all chunks of a run by recipe, if that is the flight's way; false: what is missing of them is
    /// to be pulled as shipped.
    pub(super) async fn brings(
        &self,
        node: &Node,
        wan: &WanFlight,
        blob: &Arc<dyn Blob>,
        run: &Run,
        news: &mut News<'_>,
    ) -> bool {
        let wanted: ChunkSet = run.chunks.iter().copied().collect();
        match self.part() {
            Part::Decides(stage) => {
                self.all(node, wan, blob, run, news).await;
                stage.send_replace(Stage::Over);
            }
            Part::Waits(mut stage) => {
                while *stage.borrow_and_update() == Stage::UnderWay && !is_here(blob, &wanted) {
                    // Whoever decides may be ended: then it is over, too.
                    if let Ok(Err(_)) = tokio::time::timeout(LOOK, stage.changed()).await {
                        break;
                    }
                }
            }
        }
        self.has_brought() && is_here(blob, &wanted)
    }

    /// Decides, and brings all of the blob if it is by recipe.
    async fn all(&self, node: &Node, wan: &WanFlight, blob: &Arc<dyn Blob>, run: &Run, news: &mut News<'_>) {
        let Some(chosen) = weigh::choose(node, wan, run, news).await else { return };
        self.brought.store(true, Ordering::Relaxed);
        // With the last chunk the flight is over, and this with it.
        let ending = Ending { node, blob };
        let brought = bring::bring(node, wan, blob, run, &chosen).await;
        std::mem::forget(ending);
        if let Err(why) = &brought {
            let (package, recipe) = (&wan.label, chosen.way.recipe);
            tracing::warn!(package, %recipe, why, "a recipe failed; what is missing is pulled as shipped");
        }
        node.inner.recipes.log.ended(&run.blob, brought);
    }
}

/// Notes how a recipe has ended that was not waited for.
struct Ending<'a> {
    node: &'a Node,
    blob: &'a Arc<dyn Blob>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let manifest = self.blob.manifest();
        let whole = self.blob.held().len() == manifest.count();
        self.node.inner.recipes.log.left(&manifest.blob(), whole);
    }
}

fn is_here(blob: &Arc<dyn Blob>, wanted: &ChunkSet) -> bool {
    wanted.difference(&blob.held()).is_empty()
}

impl Node {
    /// The folder for what is unpacked on the way. Files in it have no name.
    ///
    /// # Errors
    /// In words.
    fn scratch(&self) -> Result<PathBuf, String> {
        let folder = self.inner.config.state_dir.join("scratch");
        std::fs::create_dir_all(&folder).map_err(|error| format!("no room to open it: {error}"))?;
        Ok(folder)
    }
}
