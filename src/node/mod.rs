//! The agent: drives the coordinator. Effects become calls, results become inputs.
//!
//! One task ([`driver`]) owns the coordinator and never waits for anything but its next input;
//! whatever takes time runs in tasks of its own ([`wan`], [`peers`]) that report back through a
//! bounded queue. Clients read through a [`reader`], which only ever waits for chunks to be in
//! the store: who brings them, and how, is none of its business.

mod allowance;
pub mod books;
pub mod catalog;
pub mod condition;
mod dealings;
pub mod doctor;
mod driver;
mod durable;
pub mod errands;
pub mod figures;
mod flow;
mod gc;
mod home;
pub mod hook;
pub mod hub;
mod hurry;
mod inline;
mod keeping;
mod live;
pub mod media;
mod month;
mod neighbours;
pub mod orders;
mod passage;
mod peers;
pub mod push;
pub mod reader;
pub mod recipes;
mod relay;
pub mod report;
mod retired;
mod save;
mod serve;
mod standing;
mod throttle;
mod toll;
mod uploads;
pub mod upstream;
mod verify;
mod wan;
pub mod windows;
mod yielding;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::core::bitrate::{Rate, Size};
use crate::core::flight::{self, FlightView, Input};
use crate::core::id::{BlobId, NodeId, SiteName};
use crate::core::lapse::Lapse;
use crate::core::orders::Selector;
use crate::core::quota::Quotas;
use crate::core::recipe::Prefer;
use crate::net::{self, Multiaddr, Net, NetError, SiteKey, SiteKeyError};
use crate::origin::upstream::Upstream;
use crate::origin::{Keeper, OriginError};
use crate::store::{DiskStore, Limits, Store, StoreError};

use allowance::Allowance;
use books::Books;
use catalog::CatalogService;
pub use gc::Gc;
pub use home::Home;
use live::Live;
pub use standing::Role;
use standing::Standing;
use uploads::Uploads;

/// What an agent needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The site's name.
    pub site: SiteName,
    /// What its members share.
    pub site_key: SiteKey,
    /// Where packages come from; none: there are upstreams only.
    pub home: Option<Home>,
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// The swarm port.
    pub listen: SocketAddr,
    /// Members to reach without multicast.
    pub peers: Vec<Multiaddr>,
    /// Find members by multicast.
    pub mdns: bool,
    /// The most that the site takes from the WAN, all its nodes together.
    pub wan_limit: Option<Rate>,
    /// What nobody waits for gives way to other traffic on the WAN.
    pub background_yield: bool,
    /// The most that this node gives to members.
    pub upload_limit: Option<Rate>,
    /// Answers to members at a time.
    pub upload_slots: usize,
    /// The most that the cache takes.
    pub cache_size: Size,
    /// What stays free on the disk.
    pub disk_reserve: Size,
    /// What the versions of a package take of the cache, at the most.
    pub package_quotas: Quotas,
    /// How often what is held is read back from the disk and hashed; none: never by itself.
    pub verify_interval: Option<Lapse>,
    /// What runs when a followed package has arrived.
    pub hook: Option<hook::Config>,
    /// How often the site asks for a newer catalog.
    pub catalog_interval: Duration,
    /// So long past its time a catalog is used while the origin is out of reach.
    pub offline_grace: Lapse,
    /// This node's weight in the ranking of leads, before its role and its condition change it.
    pub weight: u32,
    /// What it is to its site.
    pub role: Role,
    /// Its link is paid for by volume.
    pub metered: bool,
    /// What is kept up to date here without a client asking.
    pub follow: Vec<Selector>,
    /// The foreign repositories that clients may reach through this node.
    pub upstreams: Vec<Upstream>,
    /// What matters more where a package can come in several ways.
    pub prefer: Prefer,
    /// Where the site's sums are pushed.
    pub push: Option<push::Config>,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The origin or the root of trust.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// The site key.
    #[error(transparent)]
    SiteKey(#[from] SiteKeyError),
    /// The ledger.
    #[error("the ledger cannot be opened: {0}")]
    Books(String),
    /// What is known of upstreams.
    #[error("what is known of upstreams cannot be opened: {0}")]
    Upstreams(String),
}

/// A running agent. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    me: NodeId,
    net: Net,
    store: Arc<dyn Store>,
    books: Arc<Books>,
    orders: orders::OrderBook,
    own_orders: orders::OrderBook,
    keeping: keeping::View,
    upstreams: upstream::Upstreams,
    quotas: gc::View,
    verifier: verify::Verifier,
    hooks: Arc<hook::Hooks>,
    catalog: Arc<CatalogService>,
    live: Arc<Live>,
    uploads: Arc<Uploads>,
    allowance: Arc<Allowance>,
    giving_way: Arc<yielding::GivingWay>,
    windows: Arc<windows::Windows>,
    standing: Arc<Standing>,
    dealings: dealings::Ledger,
    recipes: recipes::Recipes,
    hub: hub::Hub,
    surveys: neighbours::Surveys,
    feed: report::Feed,
    speeds: report::Speeds,
    examined: report::Examined,
    doctor: doctor::Doctor,
    push: push::State,
    /// One bundle is imported at a time.
    importing: Arc<tokio::sync::Mutex<()>>,
    inputs: mpsc::Sender<Input>,
    views: Arc<std::sync::Mutex<Vec<FlightView>>>,
    started: Instant,
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("me", &self.inner.me).finish_non_exhaustive()
    }
}

/// Under a WAN limit, runs at a time: one that waits for its answer, one that brings bytes. Each reads
/// a little ahead of what it may.
const RUNS_UNDER_LIMIT: usize = 2;
/// Inputs that wait for the driver.
const INPUTS: usize = 1024;

impl Node {
    /// Starts an agent.
    ///
    /// # Errors
    /// [`StartError`]: what is wrong, and what to do about it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        std::fs::create_dir_all(&config.state_dir).map_err(|error| {
            StoreError::Unusable(format!(
                "cannot use the state directory {}: {error}",
                config.state_dir.display()
            ))
        })?;
        let limits = Limits {
            quota: config.cache_size.0,
            reserve: config.disk_reserve.0,
            packages: config.package_quotas.clone(),
        };
        let dir = config.state_dir.clone();
        let store = tokio::task::spawn_blocking(move || open_store(&dir, limits)).await;
        let store = store.map_err(|error| StoreError::Unusable(error.to_string()))??;
        let books = Arc::new(Books::open(&config.state_dir.join("ledger")).map_err(StartError::Books)?);
        let upstreams =
            upstream::Upstreams::open(&config.state_dir.join("upstream"), &config.upstreams, &books);
        let upstreams = upstreams.map_err(StartError::Upstreams)?;
        let held: HashSet<BlobId> = store.list().into_iter().map(|held| held.blob).collect();
        books.retain(|blob| held.contains(blob));
        let origin = config.open_origin()?;
        let trust = config.home.as_ref().map(|home| home.trust.clone());
        let keeper = Keeper::open(&config.state_dir.join("catalog"), trust).await?;
        let standing = Arc::new(Standing::new(&config));
        let (look, disk) = (standing.clone(), store.clone());
        blocking(move || look.look(Path::new("/"), &*disk)).await;
        let weight = standing.effective_weight();
        let mut settings = flight::Config {
            weight,
            shares: config.role.shares(),
            settle: settle(&config),
            ..flight::Config::default()
        };
        if config.wan_limit.is_some() {
            settings.wan_runs = RUNS_UNDER_LIMIT;
        }
        let server = Arc::new(serve::Server::default());
        let network = net::Config {
            site: config.site.clone(),
            key: config.site_key.clone(),
            listen: config.listen,
            peers: config.peers.clone(),
            mdns: config.mdns,
            weight,
            wan_limit: config.wan_limit,
        };
        let (net, events) = net::start(&config.state_dir, network, server.clone()).await?;
        let (inputs, queue) = mpsc::channel(INPUTS);
        let rank = standing.clone();
        let catalog =
            CatalogService::new(keeper, origin.as_ref(), net.clone(), books.clone(), &config, rank)?;
        let me = net.me();
        let order_book = |name| orders::OrderBook::open(me, config.state_dir.join(name));
        let node = Self {
            inner: Arc::new(Inner {
                me,
                net,
                store,
                books: books.clone(),
                orders: order_book("orders.json"),
                own_orders: order_book("own-orders.json"),
                keeping: keeping::View::default(),
                upstreams,
                quotas: gc::View::default(),
                verifier: verify::Verifier::open(&config.state_dir),
                hooks: Arc::new(hook::Hooks::open(&config.state_dir, config.hook.clone(), &config.follow)),
                catalog: Arc::new(catalog),
                live: Arc::default(),
                uploads: Arc::new(Uploads::new(config.upload_slots, config.upload_limit)),
                allowance: Arc::default(),
                giving_way: Arc::new(yielding::GivingWay::new()),
                windows: Arc::default(),
                standing,
                dealings: dealings::Ledger::default(),
                recipes: recipes::Recipes::default(),
                hub: hub::Hub::new(&config),
                surveys: neighbours::Surveys::default(),
                feed: report::Feed::default(),
                speeds: report::Speeds::default(),
                examined: report::Examined::default(),
                doctor: doctor::Doctor::default(),
                push: push::State::default(),
                importing: Arc::default(),
                inputs,
                views: Arc::default(),
                started: Instant::now(),
                tasks: std::sync::Mutex::default(),
                config,
            }),
        };
        node.inner.windows.read(&node.orders().now());
        server.attach(&node);
        if node.inner.config.background_yield
            && let Some(probe) = yielding::probe(&node, origin.as_ref())?
        {
            node.keep(tokio::spawn(yielding::keep(node.clone(), probe)));
        }
        let driver = driver::Driver::new(&node, settings, origin);
        node.keep(tokio::spawn(driver.run(queue, events)));
        node.keep(tokio::spawn(books::keep(books, node.inner.net.clone())));
        node.keep(tokio::spawn(save::keep(node.clone())));
        node.keep(tokio::spawn(standing::keep(node.clone())));
        node.keep(tokio::spawn(keeping::keep(node.clone())));
        node.keep(tokio::spawn(windows::keep(node.clone())));
        node.keep(tokio::spawn(month::keep(node.clone())));
        node.keep(tokio::spawn(gc::keep(node.clone())));
        node.keep(tokio::spawn(verify::keep(node.clone())));
        node.keep(tokio::spawn(node.inner.hooks.clone().keep()));
        if let Some(push) = node.inner.config.push.clone() {
            node.keep(tokio::spawn(push::keep(node.clone(), push)));
        }
        let catalog = node.inner.catalog.clone();
        // So that the first client need not wait for it.
        node.keep(tokio::spawn(catalog.keep()));
        Ok(node)
    }

    fn keep(&self, task: JoinHandle<()>) {
        if let Ok(mut tasks) = self.inner.tasks.lock() {
            tasks.retain(|task| !task.is_finished());
            tasks.push(task);
        }
    }

    /// Stops: says goodbye to the site, and writes down what is only remembered.
    pub async fn stop(&self) {
        self.inner.verifier.stop();
        self.inner.net.stop().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Ok(mut tasks) = self.inner.tasks.lock() {
            tasks.drain(..).for_each(|task| task.abort());
        }
        let node = self.clone();
        blocking(move || {
            node.inner.books.close();
            node.save();
        })
        .await;
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.inner.me
    }

    /// A secret of the site's for one purpose: the same at all its nodes.
    pub fn site_secret(&self, purpose: &str) -> [u8; 32] {
        self.inner.config.site_key.derive(purpose, &self.inner.config.site)
    }

    /// Whether it has had time to find the others.
    pub fn is_ready(&self) -> bool {
        self.inner.started.elapsed() >= settle(&self.inner.config)
    }

    /// The signed catalog.
    pub fn catalog(&self) -> &Arc<CatalogService> {
        &self.inner.catalog
    }

    /// The ledger.
    pub fn books(&self) -> &Books {
        &self.inner.books
    }
}

/// Opens the store, and hashes what was not complete when it was last used: later the event loop
/// would have to wait for that.
fn open_store(dir: &Path, limits: Limits) -> Result<Arc<dyn Store>, StoreError> {
    let store: Arc<dyn Store> = Arc::new(Arc::new(DiskStore::open(dir, limits)?));
    for partial in store.list().iter().filter(|held| !held.complete) {
        store.get(&partial.blob);
    }
    Ok(store)
}

/// How long others have to appear before this node pulls. Multicast answers within milliseconds;
/// nodes that start together need a little longer.
fn settle(config: &Config) -> Duration {
    if config.mdns || !config.peers.is_empty() { flight::Config::default().settle } else { Duration::ZERO }
}

/// Runs blocking work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// A place to put what can only be made later.
type Later<T> = OnceLock<T>;
