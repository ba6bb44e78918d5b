//! What a client asks for next. HTTP/1.1 lets it send requests before it has its answers, and apt does; they
//! are answered in their order, one after the other. So that each does not wait for its own way over the
//! WAN, what is asked for is set out for as soon as it is read from the wire.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::node::upstream::Object;

/// Sets out for what a request's target names, if that is worth it.
pub type Hint = Arc<dyn Fn(&str) -> Option<Object> + Send + Sync>;

/// The longest request that is looked at, in bytes.
const LONGEST: usize = 8 << 10;
/// So many objects of one client are set out for at the same time.
const MOST: usize = 16;

/// A client's connection, of which the requests are seen as they come in.
pub struct Ahead<S> {
    stream: S,
    hint: Option<Hint>,
    heads: Heads,
    /// What was read before the server wanted it.
    early: BytesMut,
    /// As long as they are kept, they are wanted.
    objects: VecDeque<Object>,
}

impl<S> Ahead<S> {
    /// Without a hint it is the stream, and nothing else.
    pub fn new(stream: S, hint: Option<Hint>) -> Self {
        Self { stream, hint, heads: Heads::default(), early: BytesMut::new(), objects: VecDeque::new() }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        let Some(hint) = &self.hint else { return };
        let objects = &mut self.objects;
        let goes_on = self.heads.read(bytes, |target| {
            objects.extend(hint(target));
            if objects.len() > MOST {
                objects.pop_front();
            }
        });
        if !goes_on {
            self.hint = None;
        }
    }
}

impl<S: AsyncRead + Unpin> Ahead<S> {
    /// Reads what has come though nobody wants it yet: the server reads on when it has answered.
    fn read_early(&mut self, context: &mut Context<'_>) {
        while self.hint.is_some() && self.early.len() < LONGEST {
            let mut space = [0; 2048];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.early.extend_from_slice(buffer.filled());
                    self.look_at(buffer.filled());
                }
                // The end, or a failure, is for the server, which is to look for itself.
                Poll::Ready(_) => {
                    self.hint = None;
                    context.waker().wake_by_ref();
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.early.is_empty() {
            let most = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early.split_to(most));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.look_at(&buffer.filled()[before..]);
        result
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // The server comes by here whenever it waits for what it is to answer.
        self.read_early(context);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Requests without bodies, found in a stream.
#[derive(Debug, Default)]
struct Heads(Vec<u8>);

impl Heads {
    /// Reads on, and tells the target of each request. False as soon as something else comes: from there on
    /// it cannot be told where a request begins.
    fn read(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) -> bool {
        self.0.extend_from_slice(bytes);
        loop {
            // Servers put up with empty lines between requests.
            let start = self.0.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.0.drain(..start);
            let Some(end) = self.0.windows(4).position(|window| window == b"\r\n\r\n") else {
                return self.0.len() <= LONGEST;
            };
            let head = String::from_utf8_lossy(&self.0[..end]).into_owned();
            self.0.drain(..end + 4);
            match target(&head) {
                Some(target) => tell(target),
                None => return false,
            }
        }
    }
}

/// What is asked for, by a request that has no body.
fn target(head: &str) -> Option<&str> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let has_body = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        ["content-length", "transfer-encoding", "upgrade"].iter().any(|it| name.eq_ignore_ascii_case(it))
    };
    let plain = matches!(method, "GET" | "HEAD") && version == "HTTP/1.1" && !lines.any(has_body);
    plain.then_some(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut heads, mut found) = (Heads::default(), Vec::new());
        let goes_on = pieces.iter().all(|piece| heads.read(piece, |target| found.push(target.to_owned())));
        (found, goes_on)
    }

    const TWO: &[u8] =
        b"GET /apt/debian/a HTTP/1.1\r\nHost: x\r\n\r\n\r\nGET http://m/b HTTP/1.1\r\nA: b\r\n\r\nGET /c HT";

    #[test]
    fn requests_are_found_however_they_come() {
        let two = vec!["/apt/debian/a".to_owned(), "http://m/b".to_owned()];
        assert_eq!(found(&[TWO]), (two.clone(), true));
        for cut in 0..TWO.len() {
            assert_eq!(found(&[&TWO[..cut], &TWO[cut..]]), (two.clone(), true), "{cut}");
        }
        let bytes: Vec<&[u8]> = TWO.chunks(1).collect();
        assert_eq!(found(&bytes), (two, true));
    }

    #[test]
    fn what_follows_a_body_is_none() {
        for head in [
            "PUT /a HTTP/1.1\r\nContent-Length: 30\r\n\r\n",
            "GET /a HTTP/1.1\r\ncontent-length : 30\r\n\r\n",
            "GET /a HTTP/1.0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "\0\u{1}\r\n\r\n",
        ] {
            assert_eq!(found(&[head.as_bytes(), b"GET /b HTTP/1.1\r\n\r\n"]), (Vec::new(), false), "{head}");
        }
        assert!(!found(&[&[b'a'; LONGEST + 1]]).1, "no end in sight");
    }

    #[tokio::test]
    async fn what_is_read_early_is_not_lost() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = seen.clone();
        let hint: Hint = Arc::new(move |target| {
            told.lock().expect("no panic").push(target.to_owned());
            None
        });
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let mut server = Ahead::new(server, Some(hint));
        let sent = b"GET /1 HTTP/1.1\r\n\r\n".repeat(900);
        client.write_all(&sent).await.expect("room");
        server.flush().await.expect("open");
        assert!((1..900).contains(&seen.lock().expect("no panic").len()), "some, and no more than has room");
        client.write_all(b"PUT /").await.expect("room");
        client.shutdown().await.expect("open");
        let mut read = Vec::new();
        let mut piece = [0; 100];
        while let Ok(length @ 1..) = server.read(&mut piece).await {
            read.extend_from_slice(&piece[..length]);
            server.flush().await.expect("open");
        }
        assert!(read == [&sent[..], b"PUT /"].concat(), "{} bytes of {}", read.len(), sent.len());
        assert_eq!(seen.lock().expect("no panic").len(), 900);
    }

    proptest! {
        #[test]
        fn nothing_that_clients_send_does_harm(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..9)) {
            let (mut heads, mut known) = (Heads::default(), 0);
            for piece in &pieces {
                known += piece.len();
                if !heads.read(piece, |_| ()) {
                    break;
                }
                prop_assert!(heads.0.len() <= LONGEST.min(known));
            }
        }
    }
}
