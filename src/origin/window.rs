//! How much a connection's sender may have on its way.

use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// More than any system grants.
const ASKED: usize = 1 << 30;

/// Has the system take no more than so many bytes ahead of who reads the socket.
///
/// # Errors
/// The system refuses.
pub(super) fn keep_window(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    // What was read ahead once cannot be unset, but may be made large again.
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    clamp(socket, bytes)
}

/// The largest window that [`keep_window`] can set here, in bytes.
pub(super) fn largest() -> usize {
    static LARGEST: OnceLock<usize> = OnceLock::new();
    let ask = || {
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, ASKED)?;
        // What is granted is twice what was asked for, for the system's own needs.
        Ok::<_, io::Error>(rustix::net::sockopt::socket_recv_buffer_size(&socket)? / 2)
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
        for bytes in [16 << 10, 4 << 10, 64 << 10] {
            keep_window(&here, bytes).expect("a window");
            let size = rustix::net::sockopt::socket_recv_buffer_size(&here).expect("a size");
            assert!((bytes..=2 * bytes).contains(&size), "{size}");
        }
        assert!((64 << 10..=ASKED).contains(&largest()), "{}", largest());
        assert!(keep_window(std::fs::File::open("/dev/null").expect("it is there"), 4096).is_err());
    }
}
