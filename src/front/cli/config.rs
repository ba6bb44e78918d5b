//! The agent's configuration, in two stages: as written (a file, the environment, flags: every key
//! is all three), then resolved, with every error said at once and by name.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;

use super::upkeep;
use crate::core::bitrate::{Rate, Size};
use crate::core::id::SiteName;
use crate::core::lapse::{Interval, Lapse};
use crate::core::orders::Selector;
use crate::core::quota::{PackageQuota, Quotas};
use crate::core::recipe::Prefer;
use crate::net::{Multiaddr, SiteKey};
use crate::node::{self, Home, Role};
use crate::origin::Address;
use crate::origin::push::{PushUrl, Token};
use crate::origin::upstream::Upstream;

/// As far behind other programs as the system lets one be.
const NICEST: i64 = 19;
/// How often sums may be pushed, in seconds.
const PUSH_INTERVALS: RangeInclusive<u64> = 5..=3600;

/// As written. A key's name in the file is its flag's, with `_` for `-`.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// The site's name
    #[arg(long, env = "BRANCHLINE_SITE")]
    site: Option<SiteName>,
    /// The file with the site's key, made by 'branchline site keygen'
    #[arg(long, env = "BRANCHLINE_SITE_KEY", value_name = "FILE")]
    site_key: Option<PathBuf>,
    /// Where packages come from: http(s)://..., s3://BUCKET/PREFIX, or a folder; where there are upstreams,
    /// it may be left out
    #[arg(long, env = "BRANCHLINE_ORIGIN", value_name = "URL")]
    origin: Option<Address>,
    /// The origin's catalog/root.json, given once
    #[arg(long, env = "BRANCHLINE_TRUST", value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Where everything is kept [default: /var/lib/branchline]
    #[arg(long, env = "BRANCHLINE_STATE_DIR", value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Where members reach this node [default: 0.0.0.0:7421]
    #[arg(long, env = "BRANCHLINE_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where clients of this machine reach the gateway [default: 127.0.0.1:7420]
    #[arg(long, env = "BRANCHLINE_GATEWAY", value_name = "ADDR:PORT")]
    pub(super) gateway: Option<SocketAddr>,
    /// A member to reach without multicast, such as /ip4/10.1.0.11/tcp/7421; may be given often
    #[arg(long = "peer", env = "BRANCHLINE_PEER", value_name = "MULTIADDR", value_delimiter = ',')]
    #[serde(default)]
    peer: Vec<Multiaddr>,
    /// Do not look for members by multicast
    #[arg(long, env = "BRANCHLINE_NO_MDNS", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    no_mdns: Option<bool>,
    /// The most that the site takes from the WAN, all its nodes together, such as 20mbit; the
    /// lowest that any node has set holds for all
    #[arg(long, env = "BRANCHLINE_WAN_LIMIT", value_name = "RATE")]
    wan_limit: Option<Rate>,
    /// Give way to other traffic on the WAN with what nobody waits for [default: true]
    #[arg(long, env = "BRANCHLINE_BACKGROUND_YIELD", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    background_yield: Option<bool>,
    /// The most that this node gives to its neighbours, such as 200mbit [default: no limit]
    #[arg(long, env = "BRANCHLINE_UPLOAD_LIMIT", value_name = "RATE")]
    upload_limit: Option<Rate>,
    /// How many answers to neighbours this node gives at a time [default: 32]
    #[arg(long, env = "BRANCHLINE_UPLOAD_SLOTS", value_name = "NUMBER")]
    upload_slots: Option<u16>,
    /// The most that the cache takes [default: 20GiB; a seed's: 100GiB]
    #[arg(long, env = "BRANCHLINE_CACHE_SIZE", value_name = "SIZE")]
    cache_size: Option<Size>,
    /// What stays free on the disk [default: 1GiB]
    #[arg(long, env = "BRANCHLINE_DISK_RESERVE", value_name = "SIZE")]
    disk_reserve: Option<Size>,
    /// The most that all versions of a package take of the cache, such as firefox=2GiB, or *=5GiB for
    /// every one that is not named; may be given often
    #[arg(long, env = "BRANCHLINE_PACKAGE_QUOTA", value_name = "NAME=SIZE", value_delimiter = ',')]
    #[serde(default)]
    package_quota: Vec<PackageQuota>,
    /// How often what is held is read back from the disk and hashed, or never [default: 30d]
    #[arg(long, env = "BRANCHLINE_VERIFY_INTERVAL", value_name = "SPAN")]
    verify_interval: Option<Interval>,
    /// A command that runs when a followed package has arrived, with BRANCHLINE_PACKAGE,
    /// BRANCHLINE_VERSION and BRANCHLINE_URL in its environment; no shell reads it
    #[arg(long, env = "BRANCHLINE_HOOK", value_name = "COMMAND")]
    hook: Option<String>,
    /// Whose rights it has [default: the agent's own]
    #[arg(long, env = "BRANCHLINE_HOOK_USER", value_name = "USER")]
    hook_user: Option<String>,
    /// It is ended after so long [default: 10m]
    #[arg(long, env = "BRANCHLINE_HOOK_TIMEOUT", value_name = "SPAN")]
    hook_timeout: Option<Lapse>,
    /// How often the site asks for a newer catalog while it is in use, in seconds [default: 60]
    #[arg(long, env = "BRANCHLINE_CATALOG_INTERVAL", value_name = "SECONDS")]
    catalog_interval: Option<u64>,
    /// How long past its expiry a catalog is used while the origin is out of reach, such as 7d; 0: not at
    /// all [default: 7d]
    #[arg(long, env = "BRANCHLINE_OFFLINE_GRACE", value_name = "TIME")]
    offline_grace: Option<Lapse>,
    /// What this node is to its site: a seed leads rather than others and keeps more, a leech takes
    /// and gives nothing; a hub is a seed at headquarters whose gateway gives other sites upstreams'
    /// objects by recipe [default: normal]
    #[arg(long, env = "BRANCHLINE_ROLE", value_name = "ROLE")]
    role: Option<Role>,
    /// The link of this machine is paid for by volume: leave leading to others where they can
    #[arg(long, env = "BRANCHLINE_METERED", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    metered: Option<bool>,
    /// How far behind other programs this one gets the processor, 0 to 19 [default: as it was started]
    #[arg(long, env = "BRANCHLINE_NICE", value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(..=NICEST))]
    nice: Option<u8>,
    /// How readily this node leads, in proportion to the others; 0: only if nobody else can
    /// [default: 100]
    #[arg(long, env = "BRANCHLINE_WEIGHT", value_name = "NUMBER")]
    weight: Option<u32>,
    /// A package to keep up to date here, such as firefox@stable; may be given often
    #[arg(long, env = "BRANCHLINE_FOLLOW", value_name = "NAME@CHANNEL", value_delimiter = ',')]
    #[serde(default)]
    follow: Vec<Selector>,
    /// A foreign repository to pull through, such as 'debian apt https://mirror.example/debian': its name, its
    /// kind (apt, pypi, npm, cargo, oci, http), its address, mirrors, options; may be given often
    #[arg(long = "upstream", env = "BRANCHLINE_UPSTREAM", value_name = "SPEC", value_delimiter = ';')]
    #[serde(default)]
    upstream: Vec<Upstream>,
    /// What matters more where a package can come by recipe: few bytes over the WAN, or that nobody waits
    /// longer than for the file as shipped: bytes or time [default: bytes]
    #[arg(long, env = "BRANCHLINE_PREFER", value_name = "WHAT")]
    prefer: Option<Prefer>,
    /// Where the site's sums are pushed, by one of its nodes: a Prometheus remote-write receiver
    #[arg(long, env = "BRANCHLINE_PUSH_URL", value_name = "URL")]
    push_url: Option<PushUrl>,
    /// How often, in seconds, 5 to 3600 [default: 60]
    #[arg(long, env = "BRANCHLINE_PUSH_INTERVAL", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(PUSH_INTERVALS))]
    push_interval: Option<u64>,
    /// The file with the token that the receiver asks for
    #[arg(long, env = "BRANCHLINE_PUSH_TOKEN_FILE", value_name = "FILE")]
    push_token_file: Option<PathBuf>,
    /// How logs are written: text or json [default: text]
    #[arg(long, env = "BRANCHLINE_LOG_FORMAT", value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Resolved.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) node: node::Config,
    pub(super) gateway: SocketAddr,
    /// How far behind other programs, at least.
    pub(super) nice: i32,
}

/// The names of all keys.
fn known_keys() -> Vec<String> {
    let command = Written::augment_args(clap::Command::new("agent"));
    command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
}

/// Reads a config file.
///
/// # Errors
/// Unknown keys are refused, with the nearest known name.
pub(super) fn read(path: &Path) -> anyhow::Result<Written> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Written> {
    let table: toml::Table = text.parse()?;
    let known = known_keys();
    if let Some(key) = table.keys().find(|key| !known.contains(key)) {
        let near =
            known.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let hint = near.filter(|near| strsim::jaro_winkler(near, key) > 0.7);
        let hint = hint.map_or_else(
            || format!("known are {}", known.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        bail!("unknown key {key:?}; {hint}");
    }
    Ok(toml::from_str(text)?)
}

impl Written {
    /// What flags and environment say, over what the file says.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            site: self.site.or(file.site),
            site_key: self.site_key.or(file.site_key),
            origin: self.origin.or(file.origin),
            trust: self.trust.or(file.trust),
            state_dir: self.state_dir.or(file.state_dir),
            listen: self.listen.or(file.listen),
            gateway: self.gateway.or(file.gateway),
            peer: if self.peer.is_empty() { file.peer } else { self.peer },
            no_mdns: self.no_mdns.or(file.no_mdns),
            wan_limit: self.wan_limit.or(file.wan_limit),
            background_yield: self.background_yield.or(file.background_yield),
            upload_limit: self.upload_limit.or(file.upload_limit),
            upload_slots: self.upload_slots.or(file.upload_slots),
            cache_size: self.cache_size.or(file.cache_size),
            disk_reserve: self.disk_reserve.or(file.disk_reserve),
            package_quota: if self.package_quota.is_empty() {
                file.package_quota
            } else {
                self.package_quota
            },
            verify_interval: self.verify_interval.or(file.verify_interval),
            hook: self.hook.or(file.hook),
            hook_user: self.hook_user.or(file.hook_user),
            hook_timeout: self.hook_timeout.or(file.hook_timeout),
            catalog_interval: self.catalog_interval.or(file.catalog_interval),
            offline_grace: self.offline_grace.or(file.offline_grace),
            role: self.role.or(file.role),
            metered: self.metered.or(file.metered),
            nice: self.nice.or(file.nice),
            weight: self.weight.or(file.weight),
            follow: if self.follow.is_empty() { file.follow } else { self.follow },
            upstream: if self.upstream.is_empty() { file.upstream } else { self.upstream },
            prefer: self.prefer.or(file.prefer),
            push_url: self.push_url.or(file.push_url),
            push_interval: self.push_interval.or(file.push_interval),
            push_token_file: self.push_token_file.or(file.push_token_file),
            log_format: self.log_format.or(file.log_format),
        }
    }

    /// # Errors
    /// What is missing or cannot be used, by its name.
    pub(super) fn resolve(self) -> anyhow::Result<Resolved> {
        let (origin, trust) = (self.origin.is_some(), self.trust.is_some());
        let somewhere = origin || trust || self.upstream.is_empty();
        let missing: Vec<&str> = [
            ("--site NAME", self.site.is_none()),
            ("--site-key FILE", self.site_key.is_none()),
            ("--origin URL", !origin && somewhere),
            ("--trust ROOT.json", !trust && somewhere),
        ]
        .into_iter()
        .filter_map(|(flag, missing)| missing.then_some(flag))
        .collect();
        let (Some(site), Some(site_key), []) = (self.site, self.site_key, &missing[..]) else {
            let alone =
                if origin || trust { "" } else { "; in the place of an origin, --upstream alone will do" };
            let missing = missing.join(", ");
            bail!("the agent needs {missing}, as flags, in the environment or in --config FILE{alone}");
        };
        let home = match (self.origin, self.trust) {
            (Some(address), Some(trust)) => Some(Home { address, trust: root(&trust)? }),
            _ => None,
        };
        let nice = self.nice.map(i64::from);
        if let Some(nice) = nice.filter(|nice| *nice > NICEST) {
            bail!("nice = {nice} is more than the system knows; give a number from 0 to {NICEST}");
        }
        let push = push(self.push_url, self.push_interval, self.push_token_file.as_deref())?;
        let role = self.role.unwrap_or_default();
        let cache_size = self.cache_size.unwrap_or(default_cache_size(role));
        let gateway = self.gateway.unwrap_or_else(default_gateway);
        let hook = upkeep::hook(self.hook.as_deref(), self.hook_user.as_deref(), self.hook_timeout, gateway)?;
        Ok(Resolved {
            node: node::Config {
                site,
                site_key: SiteKey::read(&site_key)?,
                home,
                state_dir: self.state_dir.unwrap_or_else(default_state_dir),
                listen: self.listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 7421))),
                peers: self.peer,
                mdns: !self.no_mdns.unwrap_or(false),
                wan_limit: self.wan_limit,
                background_yield: self.background_yield.unwrap_or(true),
                upload_limit: self.upload_limit,
                upload_slots: self.upload_slots.map_or(32, usize::from).max(1),
                cache_size,
                disk_reserve: self.disk_reserve.unwrap_or(Size(1 << 30)),
                catalog_interval: Duration::from_secs(self.catalog_interval.unwrap_or(60)),
                offline_grace: self.offline_grace.unwrap_or(Lapse::days(7)),
                weight: self.weight.unwrap_or(100),
                role,
                metered: self.metered.unwrap_or(false),
                follow: self.follow,
                upstreams: upstreams(self.upstream)?,
                prefer: self.prefer.unwrap_or_default(),
                push,
                package_quotas: Quotas::new(&self.package_quota, cache_size)?,
                verify_interval: self.verify_interval.map_or(Some(upkeep::VERIFY_INTERVAL), |it| it.0),
                hook,
            },
            gateway,
            nice: nice.unwrap_or(0) as i32,
        })
    }
}

/// # Errors
/// It cannot be read.
fn root(trust: &Path) -> anyhow::Result<Bytes> {
    let root = std::fs::read(trust).with_context(|| {
        format!("cannot read the root of trust {}; it is the origin's catalog/root.json", trust.display())
    })?;
    Ok(root.into())
}

/// Each has a name of its own: it stands in the gateway's paths.
fn upstreams(list: Vec<Upstream>) -> anyhow::Result<Vec<Upstream>> {
    let mut names = std::collections::BTreeSet::new();
    match list.iter().find(|upstream| !names.insert(&upstream.name)) {
        Some(twice) => bail!("there are two upstreams of the name {:?}", twice.name),
        None => Ok(list),
    }
}

/// Where to push; `None` if nowhere.
fn push(
    url: Option<PushUrl>,
    interval: Option<u64>,
    token_file: Option<&Path>,
) -> anyhow::Result<Option<node::push::Config>> {
    let Some(url) = url else {
        if token_file.is_some() || interval.is_some() {
            bail!("push_interval and push_token_file say nothing without push_url");
        }
        return Ok(None);
    };
    let interval = interval.unwrap_or(60);
    if !PUSH_INTERVALS.contains(&interval) {
        bail!("push_interval = {interval} is not from 5 to 3600 seconds");
    }
    let token = |path: &Path| {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the push token in {}", path.display()))?;
        Token::parse(&text)
            .with_context(|| format!("{} holds no token: one line without spaces", path.display()))
    };
    let token = token_file.map(token).transpose()?;
    Ok(Some(node::push::Config { url, token, interval: Duration::from_secs(interval) }))
}

/// The most that the cache takes, unless told otherwise.
fn default_cache_size(role: Role) -> Size {
    Size(if role.is_seed() { 100 << 30 } else { 20 << 30 })
}

/// Where the agent keeps its state, unless told otherwise.
pub(super) fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/branchline")
}

/// Where the gateway is, unless told otherwise.
pub(super) fn default_gateway() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7420))
}

/// The flags alone, for tests.
#[cfg(test)]
pub(super) fn from_flags(flags: &[&str]) -> Written {
    use clap::FromArgMatches;
    let command = Written::augment_args(clap::Command::new("agent").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).expect("valid flags");
    Written::from_arg_matches(&matches).expect("valid flags")
}

#[cfg(test)]
mod tests;
