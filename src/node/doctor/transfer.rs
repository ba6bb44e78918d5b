//! A sample transfer: some MiB from neighbours, the way that chunks come, and nothing that is kept.

use std::io;
use std::time::{Duration, Instant};

use blake3::OutputReader;

use super::Check;
use crate::core::bitrate::Size;
use crate::core::id::NodeId;
use crate::core::wire::message::{ReportRequest, Request, Response, request, response};
use crate::net::{AskError, Contact, Reply};
use crate::node::Node;

const TEST: &str = "transfer";
/// What a member is asked, before a text that both ends make the sample from.
pub(in crate::node) const SAMPLE: &str = "sample/";
/// The sample, in bytes, and the pieces in which it is made.
const BYTES: u64 = 4 << 20;
const PIECE: usize = 128 << 10;
/// So many members are asked, one after the other.
const ASKED: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest text, in bytes.
const LONGEST: usize = 64;

/// Why a sample did not come.
enum Trouble {
    /// The member does not know this question, or is too busy for it, or gives nothing to anybody.
    Unwilling(String),
    /// It broke off after so many bytes.
    Broken(u64, AskError),
    /// It is not what was sent.
    Altered,
}

/// The sample that belongs to a text.
fn sample(text: &str) -> OutputReader {
    blake3::Hasher::new_derive_key("branchline 2026-11 sample transfer")
        .update(text.as_bytes())
        .finalize_xof()
}

/// Answers a member with the sample that it asks for.
pub(in crate::node) async fn give(
    node: &Node,
    to: NodeId,
    text: &str,
    mut reply: Reply<'_>,
) -> io::Result<()> {
    let refused = |status: response::Status| Response { status: status.into(), ..Response::default() };
    if text.len() > LONGEST || !node.inner.standing.role().shares() {
        return reply.header(&refused(response::Status::Refused)).await;
    }
    let Some(_slot) = node.inner.uploads.enter(to) else {
        return reply.header(&refused(response::Status::Busy)).await;
    };
    reply.header(&Response { length: BYTES, ..Response::default() }).await?;
    let mut content = sample(text);
    // Under an upload limit pieces are small, so that none is late.
    let mut piece = vec![0; PIECE.min(node.inner.uploads.piece() as usize)];
    let mut left = BYTES as usize;
    while left > 0 {
        let length = left.min(piece.len());
        let piece = &mut piece[..length];
        content.fill(piece);
        node.inner.uploads.keep_pace(piece.len() as u64).await;
        reply.bytes(piece).await?;
        left -= piece.len();
    }
    Ok(())
}

pub(super) async fn check(node: &Node) -> Check {
    let contacts = node.inner.net.contacts();
    let Some(_) = contacts.first() else {
        return Check::skipped(TEST, "there is no member to bring anything from");
    };
    let (mut came, mut unwilling) = (Vec::new(), None);
    for contact in contacts.iter().take(ASKED) {
        let host = &contact.hello.host;
        let begun = Instant::now();
        match bring(node, contact).await {
            Ok(bytes) => came.push((host.clone(), bytes, begun.elapsed())),
            Err(Trouble::Unwilling(why)) => unwilling = Some(format!("{host}: {why}")),
            Err(trouble) => return failed(host, &trouble),
        }
    }
    let each: Vec<String> = came
        .iter()
        .map(|(host, bytes, took)| {
            let rate = Size((*bytes as f64 / took.as_secs_f64().max(1e-3)) as u64);
            format!("{} from {host} in {} ms ({rate}/s)", Size(*bytes), took.as_millis())
        })
        .collect();
    match (each.is_empty(), unwilling) {
        (false, _) => Check::passed(TEST, each.join(", ")),
        (true, why) => Check::skipped(TEST, why.unwrap_or_default()),
    }
}

/// How many bytes of a sample have come, while there was time.
async fn bring(node: &Node, contact: &Contact) -> Result<u64, Trouble> {
    let text = blake3::Hash::from_bytes(rand::random()).to_hex()[..32].to_owned();
    let request =
        Request { body: Some(request::Body::Report(ReportRequest { path: format!("{SAMPLE}{text}") })) };
    let broken = |came| move |error| Trouble::Broken(came, error);
    let mut answer =
        node.inner.net.ask_for_content(&contact.node, &request, BYTES).await.map_err(broken(0))?;
    match answer.response.status() {
        response::Status::Ok if answer.left() == BYTES => {}
        response::Status::Busy => return Err(Trouble::Unwilling("it is busy with others".into())),
        _ => return Err(Trouble::Unwilling("it gives nothing, or is of an older version".into())),
    }
    let (mut content, mut piece, mut expected) = (sample(&text), vec![0; PIECE], vec![0; PIECE]);
    let begun = Instant::now();
    while answer.left() > 0 {
        let came = BYTES - answer.left();
        if begun.elapsed() > PATIENCE {
            return Ok(came); // as its owner has it, who may have set an upload limit
        }
        answer.read(&mut piece).await.map_err(broken(came))?;
        content.fill(&mut expected);
        if piece != expected {
            return Err(Trouble::Altered);
        }
    }
    answer.done();
    Ok(BYTES)
}

fn failed(host: &str, trouble: &Trouble) -> Check {
    let (seen, cause, remedy) = match trouble {
        Trouble::Altered => (
            format!("what came from {host} is not what it was asked for"),
            "It, or this machine, computes wrongly: what comes over the network is authenticated.",
            "Test the memory of both machines. Branchline hands out nothing that does not match its hash.",
        ),
        Trouble::Broken(0, error) => (
            format!("nothing came from {host}: {error}"),
            "It is connected, and does not answer: it hangs, is overloaded, or just went.",
            "Look at that machine; try again in a minute.",
        ),
        Trouble::Broken(came, error) => (
            format!("{} of {} came from {host}, and then no more: {error}", Size(*came), Size(BYTES)),
            "Small messages get through and much content does not: a link that loses packets, or an MTU that is too large for it (VPNs, tunnels).",
            "Try 'ping -M do -s 1472' to that machine; lower the MTU of the interface if it does not come back.",
        ),
        Trouble::Unwilling(why) => return Check::skipped(TEST, why.clone()),
    };
    Check::failed(TEST, seen, cause, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_made_alike_by_both_ends_and_by_no_others() {
        let of = |text: &str| {
            let mut bytes = [0; 64];
            sample(text).fill(&mut bytes);
            bytes
        };
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
    }
}
