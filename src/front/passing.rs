//! A file that goes along with a request over the admin socket: the open file itself, not its bytes.
//!
//! A bundle of gigabytes would be copied four times on its way through a socket. So `branchline import` and
//! `export` hand the agent the file that they have opened (`SCM_RIGHTS`), and it reads or writes there. Whoever
//! hands over a file could open it, so the agent's own rights are no way around the file system's.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// Files that a client may hand over at a time; what is more the system closes.
const MOST: usize = 1;

/// The file that came over a connection last.
#[derive(Debug, Clone, Default)]
pub struct Passed(Arc<Mutex<Option<File>>>);

impl Passed {
    /// Takes the file, if one came and it is a regular one: a pipe could hold up whoever reads it.
    pub fn take(&self) -> Option<File> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        file.filter(is_regular)
    }
}

/// Whether it makes sense to hand over this file.
pub fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|it| it.is_file())
}

/// The agent's end of a connection.
#[derive(Debug)]
pub struct Receiving {
    stream: UnixStream,
    passed: Passed,
}

impl Receiving {
    /// A connection over which files may come.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, passed: Passed::default() }
    }

    /// What comes over it.
    pub fn passed(&self) -> Passed {
        self.passed.clone()
    }

    fn receive(&self, target: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(target)];
        let message = recvmsg(&self.stream, slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for files in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = files
                && let Some(file) = files.last()
            {
                *self.passed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.into());
            }
        }
        Ok(message.bytes)
    }
}

impl AsyncRead for Receiving {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            let space = target.initialize_unfilled();
            match self.stream.try_io(Interest::READABLE, || self.receive(space)) {
                Ok(bytes) => {
                    target.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A client's end of a connection: its first bytes carry the file.
#[derive(Debug)]
pub struct Sending {
    stream: UnixStream,
    file: Option<File>,
}

impl Sending {
    /// Hands over the file, if there is one, with whatever is written first.
    pub fn new(stream: UnixStream, file: Option<File>) -> Self {
        Self { stream, file }
    }

    fn send(&self, file: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        Ok(sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    }
}

impl AsyncRead for Sending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, target)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        while let Some(file) = &self.file {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, || self.send(file.as_fd(), bytes)) {
                Ok(sent) => {
                    self.file = None;
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncWrite for Receiving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_file_goes_along_and_is_the_same_one() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let mut file = tempfile::tempfile().expect("a file");
        let mut sending = Sending::new(near, Some(file.try_clone().expect("a handle")));
        let mut receiving = Receiving::new(far);
        let passed = receiving.passed();
        sending.write_all(b"with it").await.expect("room");
        sending.write_all(b", without").await.expect("room");
        let mut text = [0; 16];
        receiving.read_exact(&mut text).await.expect("both");
        assert_eq!(&text, b"with it, without");
        let mut other = passed.take().expect("it came");
        assert!(passed.take().is_none(), "once");
        other.write_all(b"from afar").expect("room");
        file.rewind().expect("a file");
        let mut found = String::new();
        file.read_to_string(&mut found).expect("text");
        assert_eq!(found, "from afar");
        receiving.write_all(b"thanks").await.expect("room");
        let mut thanks = [0; 6];
        sending.read_exact(&mut thanks).await.expect("an answer");
        assert_eq!(&thanks, b"thanks");
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_not_taken() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let null = File::open("/dev/null").expect("a device");
        let (mut sending, mut receiving) = (Sending::new(near, Some(null)), Receiving::new(far));
        sending.write_all(b"x").await.expect("room");
        receiving.read_u8().await.expect("a byte");
        assert!(receiving.passed().take().is_none());
    }
}
