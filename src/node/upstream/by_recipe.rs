//! An object by recipe, from a hub: rebuilt here, and then as any other that comes over the WAN.
//!
//! The hub names the object's segments before the recipe. Each is held against its name as soon as it is
//! rebuilt, so that nothing wrong is shown to anybody; and whatever goes wrong, the rest comes as shipped.

use std::io::{self, Write};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::pull::Pull;
use super::{ObjectError, label};
use crate::core::id::BlobId;
use crate::core::recipe::{Prefer, Reference};
use crate::core::upstream::hub::{Ask, LONGEST_TOLD, MOST_HELD, Told};
use crate::core::upstream::record::{MOST_SEGMENTS, Record, Segment};
use crate::core::upstream::{alike, segment};
use crate::node::Node;
use crate::node::passage::Passage;
use crate::node::recipes::apply::{self, Source};
use crate::node::recipes::older;
use crate::node::recipes::rebuild::{Busy, Target};
use crate::node::recipes::{Outcome, WayWeighed, Weighing};
use crate::origin::upstream::Answer;
use crate::recipe::{RecipeError, Span};

/// Segments that wait to be taken in.
const WAITING: usize = 2;

/// Why it does not come by recipe.
enum Lost {
    /// The recipe is no good, or does not come: as shipped it may.
    Recipe(String),
    /// Nor would it as shipped.
    Object(ObjectError),
}

impl From<String> for Lost {
    fn from(why: String) -> Self {
        Self::Recipe(why)
    }
}

impl Pull<'_> {
    /// What a hub is to know, if the object may come from it by recipe.
    pub(super) fn asks_hub(&self, came: u64) -> Option<String> {
        let is_hub = self.way.client.upstream().is_hub && self.wanted.login.is_none();
        let is_hub = is_hub && came == 0 && !self.as_shipped;
        if !is_hub || !alike::may_be_opened(&self.wanted.path) {
            return None;
        }
        let older = self.node.inner.upstreams.shelf.like(self.wanted);
        let ask = Ask {
            holds: older.take(MOST_HELD).map(|record| record.content()).collect(),
            prefer: self.node.inner.config.prefer,
            rate: self.node.inner.allowance.limit(),
            speeds: self.node.recipe_speeds(),
        };
        serde_json::to_string(&ask).ok()
    }

    /// Rebuilds the object from what a hub answers.
    ///
    /// # Errors
    /// [`ObjectError`]. If the recipe was the cause, `as_shipped` is set: it is to be asked for again.
    pub(super) async fn rebuild(&mut self, answer: Answer, passage: Passage) -> Result<(), ObjectError> {
        let label = label(&self.wanted.upstream);
        let buffer = BytesMut::new();
        let mut coming = Coming { node: self.node, label, passage, answer, buffer, known: 0 };
        let mut content = None;
        let brought = self.bring(&mut coming, &mut content).await;
        let outcome = match &brought {
            Ok(()) => Ok(()),
            Err(Lost::Recipe(why)) => Err(why.clone()),
            Err(Lost::Object(error)) => Err(error.to_string()),
        };
        if let Some(content) = content {
            self.node.recipe_ended(&content, outcome);
        }
        match brought {
            Ok(()) => self.end().await,
            Err(Lost::Object(error)) => Err(error),
            Err(Lost::Recipe(why)) => {
                tracing::warn!(
                    path = self.wanted.path,
                    why,
                    "a hub's recipe failed; the rest comes as shipped"
                );
                self.as_shipped = true;
                Err(ObjectError::Failed(why))
            }
        }
    }

    async fn bring(&mut self, coming: &mut Coming<'_>, content: &mut Option<BlobId>) -> Result<(), Lost> {
        let told = coming.told().await?;
        let record = Record { segments: told.segments.clone(), ..Record::default() };
        let (size, name) = (size(&told.segments)?, record.content());
        self.note(&told, name);
        *content = Some(name);
        let head = apply::head(coming).await?;
        if head.blob != name || head.size != size {
            return Err("it is for another object".to_owned().into());
        }
        let old = match &head.against {
            Some(against) => Some(self.older(against).await?),
            None => None,
        };
        self.expect(size);
        let (give, mut given) = mpsc::channel::<Bytes>(WAITING);
        let busy = Busy::default();
        let target =
            Segments { expected: told.segments.into_iter(), buffer: Vec::new(), give, busy: busy.clone() };
        let (books, label) = (self.node.inner.books.clone(), coming.label.clone());
        let node = self.node;
        let mut failed = None;
        let taking = async {
            while let Some(bytes) = given.recv().await {
                books.rebuilt(&label, bytes.len() as u64);
                if let Err(error) = self.take_in(&bytes).await {
                    failed = Some(error);
                    given.close();
                }
            }
        };
        let took = apply::rebuild(coming, head, old, target, busy, taking).await;
        if let Some(error) = failed {
            return Err(Lost::Object(error));
        }
        node.learn(&told.work, took?);
        Ok(())
    }

    /// The contents of the object that the recipe takes for granted.
    async fn older(&self, against: &Reference) -> Result<Span, String> {
        let held = self.node.inner.upstreams.shelf.of_content(&against.blob);
        let held = held.ok_or("the object that it is against is not known here any more")?;
        let blobs: Vec<_> = held.segments.iter().map(|segment| (segment.blob, segment.manifest)).collect();
        older::opened(self.node, &blobs, true, against).await
    }

    fn note(&self, told: &Told, content: BlobId) {
        let file = alike::place(&self.wanted.path).rsplit('/').next().unwrap_or_default();
        let ways = told.choice.ways.iter().enumerate();
        let patch = |at: usize| told.patches.get(at).copied().unwrap_or_default();
        let against = |at: usize| patch(at).then(|| "an older one that the hub has, too".to_owned());
        self.node.note_weighing(Weighing {
            blob: content,
            package: format!("{file}@{}", self.wanted.upstream),
            at: Timestamp::now(),
            wan_rate: self.node.inner.allowance.limit(),
            prefer: if self.node.inner.config.prefer == Prefer::Time { "time" } else { "bytes" }.to_owned(),
            ways: ways.map(|(at, way)| WayWeighed { against: against(at), weighed: way.clone() }).collect(),
            chosen: told.choice.chosen,
            outcome: Outcome::UnderWay,
        });
    }
}

/// The length of an object with these segments, if it was cut as objects are.
fn size(segments: &[Segment]) -> Result<u64, String> {
    let odd = || "the hub has cut the object in another way".to_owned();
    let whole = segments.len().checked_sub(1).filter(|_| segments.len() <= MOST_SEGMENTS).ok_or_else(odd)?;
    let fits = |(number, it): (usize, &Segment)| {
        let length = segment::length(number) as u64;
        it.size == length || (number == whole && it.size > 0 && it.size < length)
    };
    if !segments.iter().enumerate().all(fits) {
        return Err(odd());
    }
    Ok(segments.iter().map(|segment| segment.size).sum())
}

/// What comes from the hub.
struct Coming<'a> {
    node: &'a Node,
    label: String,
    passage: Passage,
    answer: Answer,
    buffer: BytesMut,
    known: u64,
}

impl Coming<'_> {
    async fn told(&mut self) -> Result<Told, String> {
        let length = self.take(4).await?;
        let length = length[..].try_into().map(u32::from_be_bytes).map_err(|_| "it is cut off")? as usize;
        if length > LONGEST_TOLD {
            return Err("what the hub says before it is too long".to_owned());
        }
        let told = self.take(length).await?;
        serde_json::from_slice(&told).map_err(|error| format!("what the hub says before it: {error}"))
    }
}

impl Source for Coming<'_> {
    async fn take(&mut self, length: usize) -> Result<Bytes, String> {
        while self.buffer.len() < length {
            let piece = self.answer.next().await.map_err(|error| error.to_string())?;
            let piece = piece.ok_or("it ended early")?;
            let crossed = self.answer.came() - std::mem::replace(&mut self.known, self.answer.came());
            self.passage.pass(crossed).await;
            self.node.inner.books.recipe(&self.label, crossed);
            self.buffer.extend_from_slice(&piece);
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn meanwhile<T: Send>(&mut self, work: impl Future<Output = T> + Send) -> T {
        work.await
    }
}

/// Cuts what is rebuilt into the segments that the hub has named.
struct Segments {
    expected: std::vec::IntoIter<Segment>,
    buffer: Vec<u8>,
    give: mpsc::Sender<Bytes>,
    busy: Busy,
}

impl Segments {
    fn give(&mut self) -> io::Result<()> {
        while let Some(next) = self.expected.as_slice().first()
            && self.buffer.len() as u64 >= next.size
        {
            let rest = self.buffer.split_off(next.size as usize);
            let bytes = std::mem::replace(&mut self.buffer, rest);
            if BlobId::of(&bytes) != next.blob {
                return Err(io::Error::other("it gives something else than the hub says"));
            }
            self.expected.next();
            self.give
                .blocking_send(bytes.into())
                .map_err(|_| io::Error::other("nobody takes it any more"))?;
        }
        self.busy.set(Some(Instant::now()));
        Ok(())
    }
}

impl Write for Segments {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.give()?;
        if self.expected.as_slice().is_empty() && !self.buffer.is_empty() {
            return Err(io::Error::other("it gives more than the object"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Segments {
    fn finish(self) -> Result<(), RecipeError> {
        match self.expected.as_slice().is_empty() {
            true => Ok(()),
            false => Err(RecipeError::Malformed("it gives less than the object")),
        }
    }
}
