//! How long the way to the origin and back takes, on a connection of its own.

use std::time::{Duration, Instant};

use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStoreExt};

use super::meter::Sink;
use super::{Address, Origin, OriginError};

/// A small object that every origin has.
const OBJECT: &str = "catalog/timestamp.json";

/// What a probe says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Echo {
    /// The answer took so long.
    After(Duration),
    /// There was an answer, but on a new connection: how long that took is no measure.
    Connected,
    /// None came in time.
    Late,
    /// The origin, or something before it, does not answer such requests.
    Refused(String),
}

/// Asks an origin for the head of one small object, again and again on one connection. What else
/// waits in the queue before the site's link, its answers wait behind too.
#[derive(Debug)]
pub struct Probe {
    origin: Origin,
}

impl Probe {
    /// A probe of this origin, with who is told what it carries; `None` if there is no way to measure:
    /// a folder is no network.
    ///
    /// # Errors
    /// As [`Origin::open`].
    pub fn new(origin: &Origin, sink: Sink) -> Result<Option<Self>, OriginError> {
        if matches!(origin.address(), Address::Folder(_)) {
            return Ok(None);
        }
        Ok(Some(Self { origin: origin.metered(sink)? }))
    }

    /// Asks once, and waits so long for the answer at most.
    pub async fn ask(&self, patience: Duration) -> Echo {
        let (opened, start) = (self.origin.meter().opened(), Instant::now());
        let object = ObjectPath::from(OBJECT);
        let answer = tokio::time::timeout(patience, self.origin.store().head(&object)).await;
        let after = start.elapsed();
        match answer {
            Err(_) => Echo::Late,
            // Also a refusal has gone the way there and back.
            Ok(Ok(_) | Err(Error::NotFound { .. } | Error::PermissionDenied { .. })) => {
                let same = opened == self.origin.meter().opened();
                if same { Echo::After(after) } else { Echo::Connected }
            }
            Ok(Err(error)) => Echo::Refused(super::with_causes(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const ANSWER: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

    /// A server that says this to every request; it closes each connection after so many.
    fn serve(answer: String, requests: usize) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}/", listener.local_addr().expect("bound"));
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut request = [0; 4096];
                for _ in 0..requests {
                    if stream.read(&mut request).unwrap_or(0) == 0 {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).ok();
                }
            }
        });
        address.parse().expect("an address")
    }

    fn probe(address: &Address) -> Option<Probe> {
        let origin = Origin::open(address).expect("an address");
        Probe::new(&origin, std::sync::Arc::new(|_| {})).expect("an address")
    }

    #[tokio::test]
    async fn the_first_answer_is_no_measure_and_the_next_ones_are() {
        let probe = probe(&serve(format!("{ANSWER}\r\n"), usize::MAX)).expect("a network");
        let patience = Duration::from_secs(5);
        assert_eq!(probe.ask(patience).await, Echo::Connected);
        for _ in 0..3 {
            let echo = probe.ask(patience).await;
            assert!(matches!(echo, Echo::After(after) if after < patience), "{echo:?}");
        }
    }

    #[tokio::test]
    async fn connections_that_close_and_refusals_are_told_apart() {
        let closes = probe(&serve(format!("{ANSWER}Connection: close\r\n\r\n"), 1)).expect("a network");
        for _ in 0..3 {
            assert_eq!(closes.ask(Duration::from_secs(5)).await, Echo::Connected);
        }
        let refuses = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let refuses = probe(&serve(refuses.into(), usize::MAX)).expect("a network");
        assert!(matches!(refuses.ask(Duration::from_secs(5)).await, Echo::Refused(_)));
    }

    #[tokio::test]
    async fn a_folder_is_no_network() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(probe(&dir.path().display().to_string().parse().expect("an address")).is_none());
    }
}
