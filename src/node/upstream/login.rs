//! A client's own login at an upstream that has none configured.
//!
//! What anybody may have is fetched as anybody, and shared with all. Where the upstream refuses that, the
//! client's `Authorization` is sent there, to nobody else, and what it brings is known under a key that is made
//! of it ([`Wanted::key`]): who sends another, or none, finds nothing. Members with clients of the same login
//! share it: each can be its home, since it can ask the upstream itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Came, Object, ObjectError, Wanted};
use crate::core::ledger::Front;
use crate::core::upstream::ObjectKey;
use crate::core::upstream::record::Record;
use crate::node::Node;
use crate::origin::upstream::{Client, Credentials, Fetch, Kind, UpstreamError};

/// A login that no client of this node has used for so long is forgotten.
const UNUSED: Duration = Duration::from_secs(3600);
/// So many are known; the one that was used longest ago makes room.
const MOST: usize = 256;

/// Logins that clients of this node have used of late, by their realm. In memory alone.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<HashMap<[u8; 32], (Credentials, Instant)>>);

impl Logins {
    fn note(&self, realm: [u8; 32], login: &Credentials, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, used)| now.saturating_duration_since(*used) < UNUSED);
        if known.len() >= MOST && !known.contains_key(&realm) {
            let oldest = known.iter().min_by_key(|(_, (_, used))| *used).map(|(realm, _)| *realm);
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(realm, (login.clone(), now));
    }

    /// What a member wants that knows it by this key, with the login that makes that key.
    pub(super) fn of_key(&self, wanted: &Wanted, key: &ObjectKey) -> Option<Wanted> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut with = known.into_values().map(|(login, _)| wanted.clone().with_login(login));
        with.find(|wanted| wanted.key() == *key)
    }
}

impl Node {
    /// Begins to read an object, and waits for what is said of it. Where its upstream does not give it to
    /// anybody, and no credentials are configured for it, it is asked for with the client's login.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn object_for(
        &self,
        wanted: Wanted,
        front: Front,
        login: Option<Credentials>,
    ) -> Result<(Object, Arc<Record>, Came), ObjectError> {
        let own = login.and_then(|login| self.with_login(&wanted, login));
        let wanted = match own {
            Some(own) if self.inner.upstreams.knows(&own) => own,
            Some(own) => {
                let found = self.opened(wanted, front).await;
                if !found.as_ref().is_err_and(is_for_some) {
                    return found;
                }
                own
            }
            None => wanted,
        };
        self.opened(wanted, front).await
    }

    async fn opened(&self, wanted: Wanted, front: Front) -> Result<(Object, Arc<Record>, Came), ObjectError> {
        let mut object = self.object(wanted.clone(), front);
        let (record, came) = match object.about().await {
            // It was on its way from another upstream that knows this digest.
            Err(error) if !super::is_of(&error, &wanted) => {
                object = self.object(wanted, front);
                object.about().await?
            }
            found => found?,
        };
        Ok((object, record, came))
    }

    /// Whether this login may be good at an upstream of this kind that clients log in to: one of them at least
    /// does not refuse it, or cannot be asked.
    pub async fn is_good_login(&self, kind: Kind, login: &Credentials) -> bool {
        let asked =
            |(_, client): &(&String, &Client)| client.upstream().kind == kind && client.upstream().logins;
        let refused = self.inner.upstreams.clients().filter(asked).map(|(_, client)| async {
            let fetch = Fetch { path: "v2/".to_owned(), login: Some(login.clone()), ..Fetch::default() };
            matches!(client.get(&fetch).await, Err(UpstreamError::Status { status: 401, .. }))
        });
        futures::future::join_all(refused).await.contains(&false)
    }

    /// What is wanted, asked for with this login; none if other credentials are configured.
    pub(super) fn with_login(&self, wanted: &Wanted, login: Credentials) -> Option<Wanted> {
        let upstream = self.upstream(&wanted.upstream)?;
        let own = upstream.credentials.is_none().then(|| wanted.clone().with_login(login))?;
        let (realm, login) = (own.realm?, own.login.as_ref()?);
        self.inner.upstreams.logins.note(realm, login, Instant::now());
        Some(own)
    }
}

/// Whether an upstream may give to some what it has refused. Many say of what is private that it is not there.
pub(super) fn is_for_some(error: &ObjectError) -> bool {
    matches!(error, ObjectError::Upstream(UpstreamError::Status { status: 401 | 403 | 404, .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> Credentials {
        Credentials::verbatim(text).expect("valid")
    }

    #[test]
    fn a_key_is_of_one_login_at_one_upstream() {
        let wanted = |upstream: &str| Wanted::mutable(upstream, "x", 60);
        let (ann, bob) =
            (wanted("a").with_login(login("Basic ann")), wanted("a").with_login(login("Basic bob")));
        let elsewhere = wanted("b").with_login(login("Basic ann"));
        let digest = Some("sha256:".to_owned() + &"00".repeat(32)).and_then(|it| it.parse().ok());
        let same =
            |upstream: &str| Wanted::immutable(upstream, "x", digest).with_login(login("Basic ann")).key();
        assert_ne!(same("a"), same("b"), "the same content, and another upstream's word");
        let logins = Logins::default();
        for known in [&ann, &elsewhere] {
            logins.note(known.realm.expect("a realm"), &login("Basic ann"), Instant::now());
        }
        assert_eq!(logins.of_key(&wanted("a"), &ann.key()), Some(ann.clone()));
        assert_eq!(logins.of_key(&wanted("a"), &bob.key()), None);
        assert_eq!(logins.of_key(&wanted("a"), &wanted("a").key()), None);
        assert!(!serde_json::to_string(&ann).expect("JSON").contains("ann"), "it goes over no wire");
    }

    #[test]
    fn logins_are_forgotten() {
        let (logins, start) = (Logins::default(), Instant::now());
        let note =
            |n: u32, at: Instant| logins.note(*blake3::hash(&n.to_le_bytes()).as_bytes(), &login("x"), at);
        (0..2 * MOST as u32).for_each(|n| note(n, start + Duration::from_secs(n.into())));
        assert_eq!(logins.0.lock().expect("no panic").len(), MOST);
        note(0, start + 2 * UNUSED);
        assert_eq!(logins.0.lock().expect("no panic").len(), 1);
    }
}
