//! Promises 5 and 6: a crash loses nothing, and the books balance. An agent is killed a hundred times,
//! at any instant.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{Stage, assert_balanced, free_port, noise, wait_for};

/// Reads what an agent has to say of a package until it breaks off; checks each byte.
fn read_and_check(gateway: SocketAddr, path: &str, right: &[u8]) -> usize {
    let Ok(mut stream) = TcpStream::connect(gateway) else { return 0 };
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    if write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").is_err() {
        return 0;
    }
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok();
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return 0 };
    if !bytes.starts_with(b"HTTP/1.1 200") {
        return 0;
    }
    let body = &bytes[end + 4..];
    assert!(right.starts_with(body), "a wrong byte among the first {}", body.len());
    body.len()
}

/// After so long a kill takes nothing of the books.
const NOTED: Duration = Duration::from_millis(100);
/// What a kill may take of the books, in the mean of all: what these clients get in 10 ms, or in twice that where
/// the machine has no time for it, and a piece that was handed out.
const LOST: Duration = Duration::from_millis(20);
const PIECE: u64 = 128 << 10;

#[test]
fn a_hundred_kills_lose_nothing() {
    let (small, big) = (noise("small", 1_500_000), noise("big", 40_000_000));
    let mut stage = Stage::new("12mbit");
    stage.publish("small", "1", &small);
    stage.publish("big", "1", &big);
    let agent = stage.agent("a", &[]);
    assert!(agent.get("/packages/small/1").body == small);
    std::thread::sleep(NOTED);
    drop(agent);
    let (listen, gateway) = (free_port(), free_port());
    let mut random = 88_172_645_463_325_252u64;
    let (mut read, mut lived) = (0, Duration::ZERO);
    for _ in 0..100 {
        let mut agent = stage.launch("a", listen, gateway, &[]);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let life = Duration::from_millis(20 + random % 500);
        let client = std::thread::spawn({
            let big = big.clone();
            move || {
                for _ in 0..25 {
                    if TcpStream::connect(gateway).is_ok() {
                        return read_and_check(gateway, "/packages/big/1", &big);
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                0
            }
        });
        std::thread::sleep(life);
        agent.process.kill();
        read += client.join().expect("no wrong byte");
        lived += life;
    }
    println!("clients read {read} bytes in between");
    // Without the origin: what was finished is there.
    stage.server = None;
    let agent = stage.agent("a", &[]);
    assert!(agent.get("/packages/small/1").body == small, "a finished blob was lost");
    std::thread::sleep(NOTED);
    drop(agent);
    stage.serve("1gbit");
    let agent = stage.agent("a", &[]);
    assert!(agent.get("/packages/big/1").body == big, "a partial blob did not resume");
    let savings = agent.api("savings");
    assert_balanced(&savings);
    let audit = agent.api("savings/audit");
    assert_eq!((&audit["adds_up"], &audit["totals"]), (&true.into(), &savings["totals"]), "{audit}");
    let delivered = savings["totals"]["delivered"].as_u64().expect("bytes");
    let handed = (read + small.len() * 2 + big.len()) as u64;
    let lost = PIECE + (read as f64 * LOST.as_secs_f64() / lived.as_secs_f64()) as u64;
    assert!(
        delivered + 100 * lost >= handed,
        "clients have {handed} bytes, {delivered} are booked ({lost} a kill)"
    );
    let gaps = savings["gaps"].as_array().expect("a list").len();
    assert!(gaps >= 80, "of a hundred kills, {gaps} are told; some came before the books were open");
    let direct = savings["totals"]["direct"].as_u64().expect("bytes");
    assert_eq!(direct, (small.len() + big.len()) as u64, "one machine needs each file once");
    wait_for("a finished blob", || agent.api("status")["store"]["complete"] == 2);
}
