//! How much a connection's sender may have on its way.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_recv_buffer_size};

/// More than any system grants.
const ASKED: usize = 1 << 30;

/// What the system takes ahead of who reads a socket, in bytes.
///
/// A buffer that becomes smaller than what the sender may send already makes the system throw packets away,
/// and the sender takes that for a full link. So it comes down by what is read, and no faster.
#[derive(Debug, Default)]
pub(super) struct ReceiveWindow {
    /// As it is now; 0 while the system has it as it likes.
    size: usize,
    wanted: usize,
}

impl ReceiveWindow {
    /// Has the system take no more than so many bytes ahead, from now on or soon.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn keep(&mut self, socket: impl AsFd, bytes: usize) -> io::Result<()> {
        // A buffer that was set once grows by itself no more: so it is left alone if it could not be as large.
        if self.size > 0 || bytes <= largest() {
            let size = if self.size > 0 { self.size } else { recv_buffer(&socket)? };
            self.size = size.max(bytes);
            if bytes >= size {
                set_socket_recv_buffer_size(&socket, bytes)?;
            }
        }
        self.wanted = bytes;
        clamp(socket, bytes)
    }

    /// Whether that is so by now.
    pub(super) fn is_kept(&self) -> bool {
        self.size > 0 && self.size <= self.wanted
    }

    /// So many bytes were read.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn read(&mut self, socket: impl AsFd, bytes: usize) -> io::Result<()> {
        if self.size <= self.wanted {
            return Ok(());
        }
        self.size = self.size.saturating_sub(bytes).max(self.wanted);
        if self.size > largest() {
            return Ok(());
        }
        Ok(set_socket_recv_buffer_size(&socket, self.size)?)
    }
}

/// Of what the system grants, half is for its own needs.
fn recv_buffer(socket: impl AsFd) -> io::Result<usize> {
    Ok(socket_recv_buffer_size(socket)? / 2)
}

/// The largest window that [`ReceiveWindow`] can set here, in bytes.
pub(super) fn largest() -> usize {
    static LARGEST: OnceLock<usize> = OnceLock::new();
    let ask = || {
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        set_socket_recv_buffer_size(&socket, ASKED)?;
        recv_buffer(&socket)
    };
    *LARGEST.get_or_init(|| ask().unwrap_or(0))
}

/// Linux takes the window down with the buffer, and does not take it up again (since 6.10): a
/// connection that once had to give way would stay slow.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate sets this option; the call is below, whole")]
fn clamp(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is borrowed, so open; the kernel reads one integer, of the size that it is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_WINDOW_CLAMP,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems have no such option.
#[cfg(not(target_os = "linux"))]
fn clamp(_: impl AsFd, _: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_down_and_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let size = || recv_buffer(&here).expect("a size");
        let (mut window, before) = (ReceiveWindow::default(), size());
        for bytes in [2 * before, before / 4, before] {
            window.keep(&here, bytes).expect("a window");
            let at_first = size();
            assert!(at_first >= bytes, "what may be on its way has room: {at_first}");
            window.read(&here, at_first / 4).expect("it comes down");
            assert_eq!(size(), bytes.max(at_first - at_first / 4));
            window.read(&here, at_first).expect("it comes down");
            assert_eq!(size(), bytes);
        }
        assert!((64 << 10..=ASKED).contains(&largest()), "{}", largest());
        assert!(window.keep(std::fs::File::open("/dev/null").expect("it is there"), 4096).is_err());
    }
}
