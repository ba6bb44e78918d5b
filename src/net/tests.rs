use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::core::wire::message::{Request, Response};

/// What each answer brings, in bytes.
const MUCH: usize = 700_000;

/// Gives the same to everybody.
struct Plenty;

impl Serve for Plenty {
    fn serve<'a>(
        &'a self,
        _: NodeId,
        _: Request,
        mut reply: Reply<'a>,
    ) -> BoxFuture<'a, std::io::Result<()>> {
        Box::pin(async move {
            reply.header(&Response { length: MUCH as u64, ..Response::default() }).await?;
            reply.bytes(&[7; MUCH]).await
        })
    }
}

async fn node(dir: &Path, peers: Vec<Multiaddr>) -> (Net, Receiver<Event>) {
    let config = Config {
        site: "lisbon".parse().expect("a name"),
        key: SiteKey::from_bytes([7; 32]),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        peers,
        mdns: false,
        weight: 100,
        wan_limit: None,
    };
    start(dir, config, Arc::new(Plenty)).await.expect("a free port")
}

/// Asks for content until there is an idle bulk connection.
async fn widened(net: &Net, other: &NodeId) {
    for _ in 0..200 {
        let answer = net.ask_for_content(other, &Request::default(), MUCH as u64).await.expect("it answers");
        let content = answer.read_all(MUCH as u64).await.expect("all of it");
        assert!(content.iter().all(|&byte| byte == 7));
        if net.pool.idle_bulk() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no bulk connection was made");
}

async fn next_weight(events: &mut Receiver<Event>) -> u32 {
    let next = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
    match next.expect("an event within 20 s") {
        Some(Event::Up { hello, .. }) => hello.weight,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_new_weight_is_told_to_members_and_nothing_else_changes() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (first, mut seen_by_first) = node(dirs[0].path(), Vec::new()).await;
    let (second, mut seen_by_second) = node(dirs[1].path(), first.addresses()).await;
    assert_eq!(next_weight(&mut seen_by_second).await, 100);
    assert_eq!(next_weight(&mut seen_by_first).await, 100);
    for weight in [25, 0, 100] {
        first.set_weight(weight).await;
        assert_eq!(next_weight(&mut seen_by_second).await, weight);
        assert_eq!(second.contacts()[0].hello.weight, weight);
    }
    first.set_weight(100).await; // no news
    first.set_weight(7).await;
    assert_eq!(next_weight(&mut seen_by_second).await, 7);
    assert!(seen_by_first.try_recv().is_err(), "its own weight is no event");
}

async fn pair() -> ([tempfile::TempDir; 2], [(Net, Receiver<Event>); 2]) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let (first, mut seen_by_first) = node(dirs[0].path(), Vec::new()).await;
    let (second, mut seen_by_second) = node(dirs[1].path(), first.addresses()).await;
    next_weight(&mut seen_by_second).await;
    next_weight(&mut seen_by_first).await;
    (dirs, [(first, seen_by_first), (second, seen_by_second)])
}

#[tokio::test]
async fn who_brings_much_gets_connections_for_it() {
    let (_dirs, [(first, _one), (second, _two)]) = pair().await;
    let small = second.ask(&first.me(), &Request::default()).await.expect("it answers");
    small.read_all(MUCH as u64).await.expect("all of it");
    assert_eq!(second.pool.idle_bulk(), 0, "nobody asked for content");
    widened(&second, &first.me()).await;
    // The one that was dialed, too, and all batches at a time: none gets another's bytes.
    widened(&first, &second.me()).await;
    second.take_read();
    let holder = first.me();
    let asked = (0..12).map(|_| widened(&second, &holder));
    futures::future::join_all(asked).await;
    assert!((1..=3).contains(&second.pool.idle_bulk()), "{}", second.pool.idle_bulk());
    assert!(second.take_read() >= 12 * MUCH as u64, "they are counted");
}

#[tokio::test]
async fn a_member_that_left_takes_its_bulk_connections_with_it() {
    let (_dirs, [(first, _one), (second, mut seen)]) = pair().await;
    widened(&second, &first.me()).await;
    first.stop().await;
    let gone = async { while !matches!(seen.recv().await, Some(Event::Down { .. })) {} };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is missed");
    assert_eq!(second.pool.idle_bulk(), 0);
    let asked = second.ask_for_content(&first.me(), &Request::default(), MUCH as u64).await;
    assert!(matches!(asked, Err(AskError::Gone)));
}

#[tokio::test]
async fn strangers_and_members_that_are_not_connected_get_no_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let (net, mut events) = node(dir.path(), Vec::new()).await;
    for (key, admitted) in [(8, false), (7, true)] {
        let keypair = libp2p::identity::Keypair::generate_ed25519();
        let me = keypair.public().to_peer_id();
        let site = "lisbon".parse().expect("a name");
        let tls = tls::Tls::new(&keypair).expect("a key");
        let member = member::MemberUpgrade::new(tls, &SiteKey::from_bytes([key; 32]), &site, me);
        let (bulk, _arrived) = bulk::Bulk::new(member, Arc::default());
        let peer = peer_id(&net.me()).expect("a key");
        match bulk.dial(peer, &net.addresses()).await {
            Ok(mut wire) => {
                assert!(admitted, "a stranger was let in");
                use tokio::io::AsyncReadExt;
                assert_eq!(wire.read(&mut [0; 1]).await.unwrap_or(0), 0, "it is no connected member");
            }
            Err(_) => assert!(!admitted, "a member was refused at the door"),
        }
    }
    assert!(events.try_recv().is_err(), "neither is a member of this site");
}
