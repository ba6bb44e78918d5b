//! Whether the origin is reached and what it says can be believed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Check, State};
use crate::net::{Obstacle, knock};
use crate::node::Node;
use crate::origin::{Address, Catalog, Doubt, OriginError};

const TEST: &str = "origin";
/// All of it takes no longer: an origin that sends a little now and then is of no use.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(4);

/// What came of asking an origin for its catalog.
pub(super) struct Asked {
    address: Address,
    took: Duration,
    result: Result<Arc<Catalog>, OriginError>,
}

impl Asked {
    pub(super) async fn from(
        address: &Address,
        ask: impl Future<Output = Result<Arc<Catalog>, OriginError>>,
    ) -> Self {
        let begun = Instant::now();
        let result = tokio::time::timeout(PATIENCE, ask).await;
        let result = result.unwrap_or(Err(OriginError::Silent(PATIENCE.as_secs())));
        Self { address: address.clone(), took: begun.elapsed(), result }
    }
}

/// Nothing where no origin is configured.
pub(super) async fn ask(node: &Node) -> Option<Asked> {
    let home = node.inner.config.home.as_ref()?;
    let ask = async {
        node.catalog().try_origin().await?;
        node.catalog().current().ok_or(OriginError::Failed("there is no catalog".into()))
    };
    Some(Asked::from(&home.address, ask).await)
}

/// What it means, with what is known of the disk and the clock.
pub(super) async fn verdict(asked: Option<Asked>, disk: &Check, clock: &Check) -> Check {
    let Some(Asked { address, took, result }) = asked else {
        return Check::skipped(TEST, "none is configured: this agent fetches from upstreams only");
    };
    let error = match result {
        Ok(catalog) => {
            let (ms, version, until) = (took.as_millis(), catalog.version, catalog.expires.strftime("%F"));
            let seen = format!(
                "{address} answers within {ms} ms; its catalog, version {version}, is good until {until}"
            );
            return Check::passed(TEST, seen);
        }
        Err(error) => error,
    };
    match &error {
        OriginError::Doubt(Doubt::Unkept(_)) if disk.state == State::Failed => {
            Check::skipped(TEST, "its catalog cannot be kept on this disk: see disk")
        }
        OriginError::Doubt(Doubt::Expired(_)) if clock.state == State::Failed => {
            Check::skipped(TEST, "whether its catalog has expired cannot be told by this clock: see clock")
        }
        _ => {
            let (cause, remedy) = why(&address, &error).await;
            Check::failed(TEST, format!("{address}: {error}"), cause, remedy)
        }
    }
}

/// The one cause, and what to do.
async fn why(address: &Address, error: &OriginError) -> (String, String) {
    let say = |cause: &str, remedy: &str| (cause.to_owned(), remedy.to_owned());
    match error {
        OriginError::NotFound { .. } => say(
            "A server answers there, and has no origin at this address.",
            "Correct 'origin', or publish there: 'branchline origin init', 'branchline publish'.",
        ),
        OriginError::Denied { .. } => say(
            "The server wants credentials, or other ones.",
            "For a bucket, see the AWS_* variables of the agent; a web server must let this machine read the tree.",
        ),
        OriginError::Silent(_) | OriginError::Failed(_) => unreached(address).await.unwrap_or_else(|| {
            say(
                "A server is there, and does not answer as it should.",
                "Try the same address from this machine with curl; see the server's log.",
            )
        }),
        OriginError::Doubt(doubt) => doubted(doubt),
        OriginError::Invalid(why) => {
            (format!("It cannot be used as it is configured: {why}."), "Correct 'origin' or 'trust'.".into())
        }
        OriginError::Unsupported { .. } | OriginError::TooLong { .. } | OriginError::Conflict => say(
            "The server does not serve the tree as it was published.",
            "Serve it with a web server that answers range requests and changes nothing.",
        ),
    }
}

fn doubted(doubt: &Doubt) -> (String, String) {
    let (cause, remedy) = match doubt {
        Doubt::Expired(_) => {
            ("The time of its catalog is over.", "Run 'branchline origin renew' where the origin's keys are.")
        }
        Doubt::GoesBack(_) => (
            "It has an older catalog than this machine has seen: it was restored from a backup, or is not the same origin.",
            "Publish there once more, so that its catalog is newer.",
        ),
        Doubt::Foreign(_) => (
            "Its catalog was signed by other keys than the root of trust here ('trust') names.",
            "Give 'trust' this origin's catalog/root.json, or correct 'origin'.",
        ),
        Doubt::NoRoot => (
            "The file under 'trust' is no root of trust.",
            "Give it this origin's catalog/root.json, as 'branchline origin init' has made it.",
        ),
        Doubt::Altered | Doubt::Malformed(_) => (
            "Something between, or the server, changes what was published.",
            "Serve the tree as it is, without a proxy that rewrites it; 'branchline publish' writes the catalog anew.",
        ),
        Doubt::Unkept(_) => {
            ("This machine's disk does not take the catalog.", "See 'disk', and who owns 'state_dir'.")
        }
    };
    (cause.to_owned(), remedy.to_owned())
}

/// Where the way to a web server ends; nothing if a connection can be made, or the way is not known.
async fn unreached(address: &Address) -> Option<(String, String)> {
    let Address::Web(url) = address else { return None };
    let (host, port) = (url.host_str()?, url.port_or_known_default()?);
    let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((host.trim_matches(['[', ']']), port)));
    let sockets: Vec<_> = match found.await {
        Ok(Ok(sockets)) => sockets.collect(),
        Ok(Err(error)) => {
            let cause = format!("The name {host} cannot be resolved: {error}.");
            return Some((cause, "Look at this machine's DNS, or correct 'origin'.".to_owned()));
        }
        Err(_) => {
            let cause = format!("The DNS server does not answer when it is asked for {host}.");
            return Some((cause, "Look at this machine's DNS and at the site's WAN.".to_owned()));
        }
    };
    let socket = *sockets.first()?;
    let (cause, remedy) = match knock(socket, CONNECT).await.err()? {
        Obstacle::Refused => {
            (format!("Nothing listens at {socket}."), "Start the web server there, or correct 'origin'.")
        }
        Obstacle::Silent => (
            format!("What is sent to {socket} gets lost: the site's WAN is down, or a firewall drops it."),
            "See whether this machine reaches anything else over the WAN.",
        ),
        Obstacle::NoRoute => (
            format!("There is no route from here to {socket}."),
            "Look at this machine's default route, and at the site's WAN.",
        ),
        Obstacle::Other(error) => {
            (format!("{socket} cannot be connected: {error}."), "Look at this machine's network.")
        }
    };
    Some((cause, remedy.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(address: &str, error: OriginError, disk: &Check, clock: &Check) -> Check {
        let address = address.parse().expect("an address");
        let asked = Asked::from(&address, async { Err(error) }).await;
        verdict(Some(asked), disk, clock).await
    }

    async fn cause(address: &str, error: OriginError) -> String {
        let well = Check::passed("x", "");
        found(address, error, &well, &well).await.cause.expect("a cause")
    }

    #[tokio::test]
    async fn the_way_to_an_origin_ends_somewhere() {
        let failed = || OriginError::Failed("connect".into());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("bound"));
        assert!(cause(&address, failed()).await.contains("does not answer as it should"));
        drop(listener);
        assert!(cause(&address, failed()).await.contains("Nothing listens"));
        let nowhere = cause("http://nowhere.invalid/", failed()).await;
        assert!(nowhere.contains("nowhere.invalid") && !nowhere.contains("Nothing listens"), "{nowhere}");
        assert!(cause(&address, OriginError::NotFound { path: "x".into() }).await.contains("no origin"));
        assert!(cause(&address, Doubt::Foreign("root".into()).into()).await.contains("root of trust"));
    }

    #[tokio::test]
    async fn what_the_disk_or_the_clock_has_done_is_not_the_origins_fault() {
        let (well, ill) = (Check::passed("x", ""), Check::failed("x", "", "", ""));
        let unkept = || OriginError::from(Doubt::Unkept("no room".into()));
        let expired = || OriginError::from(Doubt::Expired("timestamp".into()));
        for (error, disk, clock, state) in [
            (unkept(), &ill, &well, State::Skipped),
            (unkept(), &well, &ill, State::Failed),
            (expired(), &well, &ill, State::Skipped),
            (expired(), &ill, &well, State::Failed),
        ] {
            assert_eq!(found("/srv", error, disk, clock).await.state, state);
        }
    }
}
