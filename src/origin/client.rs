//! Reading and writing the objects of an origin, whatever it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::buffered::BufWriter;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
};
use tokio::io::AsyncWriteExt;

use super::OriginError;
use super::address::Address;
use super::meter::{Carried, Meter, Sink};
use super::transport::MeteredHttp;
use super::with_causes;
use crate::core::ledger::Wire;

/// Without a byte for so long, a read is given up (and tried again by whoever wanted it).
const SILENCE: Duration = Duration::from_secs(6);
/// Bytes that are read from a folder at a time, where much is read.
const BLOCK: u64 = 1 << 20;
/// Parts of an upload, in bytes.
const PART: usize = 8 << 20;

/// An origin, opened: one pool of connections, with one meter.
#[derive(Debug, Clone)]
pub struct Origin {
    address: Address,
    store: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
}

/// An object of a folder.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Its length.
    pub(super) bytes: u64,
    /// When it was written, in seconds since 1970-01-01 UTC.
    pub(super) changed: i64,
}

impl Origin {
    /// Opens an origin. Makes no connection yet.
    ///
    /// # Errors
    /// [`OriginError::Invalid`] if the folder is not there or the address cannot be used.
    pub fn open(address: &Address) -> Result<Self, OriginError> {
        Self::open_metered(address, Arc::new(|_| {}))
    }

    fn open_metered(address: &Address, sink: Sink) -> Result<Self, OriginError> {
        let meter = Arc::new(Meter::new(sink));
        let http = MeteredHttp::new(meter.clone());
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let invalid = |error: object_store::Error| OriginError::Invalid(format!("{address}: {error}"));
        let store: Arc<dyn ObjectStore> = match address {
            Address::Folder(path) => {
                let missing = || {
                    let make = "make one with 'branchline origin init --root DIR --keys DIR'";
                    OriginError::Invalid(format!("there is no origin in {}: {make}", path.display()))
                };
                let store = LocalFileSystem::new_with_prefix(path).map_err(|_| missing())?;
                Arc::new(store.with_fsync(true))
            }
            Address::Web(url) => {
                let base = url.as_str().trim_end_matches('/');
                let builder = HttpBuilder::new().with_url(base).with_retry(retry);
                Arc::new(builder.with_http_connector(http).build().map_err(invalid)?)
            }
            Address::Bucket { bucket, prefix } => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
                let store = builder.with_http_connector(http).build().map_err(invalid)?;
                if prefix.is_empty() {
                    Arc::new(store)
                } else {
                    Arc::new(PrefixStore::new(store, prefix.as_str()))
                }
            }
        };
        Ok(Self { address: address.clone(), store, meter })
    }

    /// The same origin with connections of its own, and who is told what they carry: also after the
    /// origin was dropped, when its connections end.
    ///
    /// # Errors
    /// As [`Origin::open`].
    pub fn metered(&self, sink: Sink) -> Result<Self, OriginError> {
        Self::open_metered(&self.address, sink)
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The meter of its connections.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    pub(super) fn store(&self) -> &dyn ObjectStore {
        &*self.store
    }

    /// A whole object of at most so many bytes.
    ///
    /// # Errors
    /// [`OriginError`].
    pub async fn read(&self, path: &str, most: u64) -> Result<Bytes, OriginError> {
        self.collect(path, GetOptions::new(), most).await
    }

    /// The last bytes of an object.
    ///
    /// # Errors
    /// [`OriginError`].
    pub async fn read_range(&self, path: &str, range: std::ops::Range<u64>) -> Result<Bytes, OriginError> {
        let most = range.end - range.start;
        self.collect(path, GetOptions::new().with_range(Some(range)), most).await
    }

    async fn collect(&self, path: &str, options: GetOptions, most: u64) -> Result<Bytes, OriginError> {
        let mut stream = self.get(path, options).await?;
        let mut content = BytesMut::new();
        while let Some(piece) = next(&mut stream, path).await? {
            if (content.len() + piece.len()) as u64 > most {
                return Err(OriginError::TooLong { path: path.to_owned(), most });
            }
            content.extend_from_slice(&piece);
        }
        Ok(content.freeze())
    }

    /// A part of an object as it comes. Ends with an error if nothing comes for a while.
    ///
    /// # Errors
    /// [`OriginError`], at once or in the stream.
    pub async fn stream(
        &self,
        path: &str,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, OriginError>>, OriginError> {
        let stream = self.get(path, GetOptions::new().with_range(Some(range))).await?;
        let path = path.to_owned();
        let pieces = futures::stream::try_unfold(stream, move |mut stream| {
            let path = path.clone();
            async move { Ok(next(&mut stream, &path).await?.map(|piece| (piece, stream))) }
        });
        Ok(pieces.boxed())
    }

    /// As [`Origin::stream`], for much content at a time: what a folder has is read in large pieces.
    ///
    /// # Errors
    /// As [`Origin::stream`].
    pub(super) async fn stream_fast(
        &self,
        path: &str,
        range: std::ops::Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, OriginError>>, OriginError> {
        if !matches!(self.address, Address::Folder(_)) {
            return self.stream(path, range).await;
        }
        let (store, object) = (self.store.clone(), ObjectPath::from(path));
        let blocks = futures::stream::try_unfold(range, move |left| {
            let (store, object) = (store.clone(), object.clone());
            async move {
                if left.is_empty() {
                    return Ok(None);
                }
                let end = left.end.min(left.start + BLOCK);
                let block = store.get_range(&object, left.start..end).await;
                let block = block.map_err(|error| explain(error, object.as_ref()))?;
                Ok(Some((block, end..left.end)))
            }
        });
        Ok(blocks.boxed())
    }

    async fn get(
        &self,
        path: &str,
        options: GetOptions,
    ) -> Result<BoxStream<'static, object_store::Result<Bytes>>, OriginError> {
        let object = ObjectPath::from(path);
        let get = self.store.get_opts(&object, options);
        let got =
            tokio::time::timeout(SILENCE, get).await.map_err(|_| OriginError::Silent(SILENCE.as_secs()))?;
        let stream = got.map_err(|error| explain(error, path))?.into_stream();
        if !matches!(self.address, Address::Folder(_)) {
            return Ok(stream);
        }
        let meter = self.meter.clone();
        Ok(stream
            .inspect_ok(move |piece| {
                meter.carried(Carried {
                    wire: Wire { read: piece.len() as u64, ..Wire::default() },
                    crossed: piece.len() as u64,
                    ..Carried::default()
                })
            })
            .boxed())
    }

    // ---- for publishers --------------------------------------------------------------

    /// The objects in a folder of the tree.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Listed>, OriginError> {
        let folder = ObjectPath::from(folder);
        let listing = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await;
        let objects = listing.map_err(|error| explain(error, folder.as_ref()))?;
        let listed = |object: &object_store::ObjectMeta| {
            let (name, changed) = (object.location.filename()?.to_owned(), object.last_modified.timestamp());
            Some(Listed { name, bytes: object.size, changed })
        };
        Ok(objects.iter().filter_map(listed).collect())
    }

    /// Removes an object.
    pub(super) async fn remove(&self, path: &str) -> Result<(), OriginError> {
        self.store.delete(&ObjectPath::from(path)).await.map_err(|error| explain(error, path))
    }

    /// Writes an object that was not there; false if it was.
    pub(super) async fn put_new(&self, path: &str, content: Bytes) -> Result<bool, OriginError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&ObjectPath::from(path), PutPayload::from(content), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(explain(error, path)),
        }
    }

    /// The version mark of an object, for [`Origin::replace`]; `None` if it is not there.
    pub(super) async fn mark(&self, path: &str) -> Result<Option<UpdateVersion>, OriginError> {
        match self.store.head(&ObjectPath::from(path)).await {
            Ok(meta) => Ok(Some(UpdateVersion { e_tag: meta.e_tag, version: meta.version })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(explain(error, path)),
        }
    }

    /// Replaces an object, if it is still the one that was marked (folders are locked instead).
    pub(super) async fn replace(
        &self,
        path: &str,
        content: Bytes,
        mark: Option<UpdateVersion>,
    ) -> Result<(), OriginError> {
        let mode = match (&self.address, mark) {
            (Address::Bucket { .. }, Some(mark)) => PutMode::Update(mark),
            (Address::Bucket { .. }, None) => PutMode::Create,
            _ => PutMode::Overwrite,
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&ObjectPath::from(path), PutPayload::from(content), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. }) => {
                Err(OriginError::Conflict)
            }
            Err(error) => Err(explain(error, path)),
        }
    }

    /// Uploads a file; it appears whole or not at all.
    pub(super) async fn upload(&self, path: &str, file: &Path) -> Result<(), OriginError> {
        let failed = |error: std::io::Error| OriginError::Failed(format!("uploading {path}: {error}"));
        let file = tokio::fs::File::open(file).await.map_err(failed)?;
        let mut reader = tokio::io::BufReader::with_capacity(1 << 20, file);
        let store = self.store.clone();
        let mut writer =
            BufWriter::with_capacity(store, ObjectPath::from(path), PART).with_max_concurrency(2);
        match tokio::io::copy_buf(&mut reader, &mut writer).await {
            Ok(_) => writer.shutdown().await.map_err(failed),
            Err(error) => {
                writer.abort().await.ok();
                Err(failed(error))
            }
        }
    }
}

async fn next(
    stream: &mut BoxStream<'static, object_store::Result<Bytes>>,
    path: &str,
) -> Result<Option<Bytes>, OriginError> {
    match tokio::time::timeout(SILENCE, stream.next()).await {
        Err(_) => Err(OriginError::Silent(SILENCE.as_secs())),
        Ok(None) => Ok(None),
        Ok(Some(piece)) => piece.map(Some).map_err(|error| explain(error, path)),
    }
}

fn explain(error: object_store::Error, path: &str) -> OriginError {
    use object_store::Error;
    let path = path.to_owned();
    match error {
        Error::NotFound { .. } => OriginError::NotFound { path },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => OriginError::Denied { path },
        Error::NotSupported { .. } => OriginError::Unsupported {
            what: "range requests; serve the tree with a web server that does".into(),
        },
        Error::NotImplemented { .. } => {
            let what = "being written to; publish to the folder or the bucket behind it".into();
            OriginError::Unsupported { what }
        }
        error => OriginError::Failed(with_causes(&error)),
    }
}
