//! Ordering what is to be kept.

use std::collections::BTreeMap;

use super::super::errands::{Outcome, Outcomes};
use super::super::{Node, blocking};
use crate::core::bitrate::Size;
use crate::core::id::{BlobId, PackageName};
use crate::core::orders::{OrderError, Orders, Pin, Seed, Selector};

impl Node {
    /// Orders the site to bring a package in and to keep copies of it; or to do so no more.
    ///
    /// # Errors
    /// [`OrderError`]: also if there is no such package.
    pub async fn order_seed(
        &self,
        by: String,
        package: Selector,
        seed: Option<Seed>,
    ) -> Result<Outcomes, OrderError> {
        match &seed {
            Some(_) => self.must_exist(&package).await?,
            None => must_stand(self.orders().now().get::<Seed>(&package).is_some(), &package, "seeded")?,
        }
        self.give_order(by, package, seed).await
    }

    /// Orders all nodes of the site, or this one alone, to have a package and to keep it; or to do so no
    /// more.
    ///
    /// # Errors
    /// [`OrderError`]: also if there is no such package, or no room for it here.
    pub async fn order_pin(
        &self,
        by: String,
        package: Selector,
        pin: bool,
        site: bool,
    ) -> Result<Outcomes, OrderError> {
        let orders = if site { self.orders() } else { self.own_orders() };
        if pin {
            self.must_exist(&package).await?;
        } else {
            must_stand(orders.now().get::<Pin>(&package).is_some(), &package, "pinned")?;
        }
        if site {
            return self.give_order(by, package, pin.then_some(Pin {})).await;
        }
        if pin && let Some(why) = self.no_room(Some(&package)) {
            return Err(OrderError::Invalid(why));
        }
        let (node, told) = (self.clone(), package.clone());
        let given = blocking(move || node.own_orders().give(&by, &package, pin.then_some(&Pin {}))).await;
        given.ok_or_else(|| OrderError::Invalid("the agent is stopping".into()))??;
        let text = if pin {
            format!("{told} is kept on this node, and fetched if it is not here; see 'branchline status'")
        } else {
            format!("{told} may be evicted again, unless something else keeps it")
        };
        let outcome = Outcome { node: self.me().to_string(), ..Outcome::done(text, 0) };
        Ok(Outcomes { nodes: vec![outcome], unanswered: Vec::new() })
    }

    async fn must_exist(&self, package: &Selector) -> Result<(), OrderError> {
        let wanted = package.wanted.as_ref().map(|wanted| wanted.as_str());
        let found = self.catalog().resolve(package.name.as_str(), wanted).await;
        found.map(drop).map_err(|error| OrderError::Invalid(error.to_string()))
    }

    /// Why what is pinned here, this included, can't all be: it is more than the cache takes.
    pub(in crate::node) fn no_room(&self, another: Option<&Selector>) -> Option<String> {
        let (site, own) = (self.orders().now(), self.own_orders().now());
        let pins = |orders: &Orders| orders.all::<Pin>().map(|(key, _, _)| key).collect::<Vec<_>>();
        let all = pins(&site).into_iter().chain(pins(&own)).chain(self.inner.config.follow.iter().cloned());
        let meant = all.chain(another.cloned()).filter_map(|selector| self.catalog().means(&selector).ok());
        let sizes: BTreeMap<BlobId, (u64, PackageName)> =
            meant.map(|it| (it.published.blob, (it.published.size, it.name))).collect();
        if let Some(why) = self.beyond_package_quota(sizes.values()) {
            return Some(why);
        }
        let (takes, quota) =
            (sizes.values().map(|(size, _)| size).sum::<u64>(), self.inner.config.cache_size.0);
        (takes > quota).then(|| {
            let (takes, quota) = (Size(takes), Size(quota));
            format!(
                "what is pinned here would take {takes}, and the cache takes {quota}: unpin something, or raise cache_size"
            )
        })
    }
}

impl Node {
    /// Why what is pinned of some package can't all be: it is more than that package takes here.
    fn beyond_package_quota<'a>(
        &self,
        pinned: impl Iterator<Item = &'a (u64, PackageName)>,
    ) -> Option<String> {
        let mut takes: BTreeMap<&str, u64> = BTreeMap::new();
        for (size, name) in pinned {
            *takes.entry(name.as_str()).or_default() += size;
        }
        takes.into_iter().find_map(|(package, takes)| {
            let quota = self.inner.config.package_quotas.of(package).filter(|quota| takes > *quota)?;
            let (takes, quota) = (Size(takes), Size(quota));
            Some(format!(
                "what is pinned of {package} here would take {takes}, and its package_quota is {quota}: unpin a version, or raise it"
            ))
        })
    }
}

fn must_stand(stands: bool, package: &Selector, what: &str) -> Result<(), OrderError> {
    let why = || OrderError::Invalid(format!("{package} is not {what}; 'branchline orders' shows what is"));
    stands.then_some(()).ok_or_else(why)
}
