//! What the system has counted of a TCP connection.

use std::os::fd::AsFd;

/// Counters of one connection since it began, in bytes and packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// Payload that came, in order; also what nobody has read yet.
    pub(super) received: u64,
    /// Payload that was sent, again where it was lost.
    pub(super) sent: u64,
    /// Packets that came; begins anew after the largest number.
    pub(super) packets_in: u32,
    /// Packets that were sent; likewise.
    pub(super) packets_out: u32,
    /// Bytes of TCP's header in each.
    pub(super) header: u64,
    /// Payload of a full segment, in bytes: some 1,400 over most networks, 64 KiB within a machine.
    pub(super) segment: u32,
    /// The round trip as the receiver sees it, in microseconds; 0 while it is not known. As long as its
    /// window lasts, where that is what holds the sender back.
    pub(super) round_trip_us: u64,
    /// The round trip of what was sent, in microseconds, whatever comes back.
    pub(super) sent_round_trip_us: u64,
}

/// TCP's header without options, and what timestamps add to it, in bytes.
const HEADER: u64 = 20;
const TIMESTAMPS: u64 = 12;

/// Reads the counters; `None` where the system does not keep them.
#[cfg(target_os = "linux")]
pub(super) fn tcp_info(socket: impl AsFd) -> Option<TcpInfo> {
    /// Where they are in the kernel's `struct tcp_info` (`linux/tcp.h`), whose layout only ever grows.
    const OPTIONS: usize = 5;
    const SEGMENT: usize = 16;
    const SENT_ROUND_TRIP: usize = 68;
    const ROUND_TRIP: usize = 92;
    const RECEIVED: usize = 128;
    const PACKETS_OUT: usize = 136;
    const PACKETS_IN: usize = 140;
    const SENT: usize = 200;
    const LENGTH: usize = 208;
    const OPTION_TIMESTAMPS: u8 = 1;
    let raw = raw::<LENGTH>(socket)?;
    let long = |at: usize| raw[at..at + 8].try_into().map_or(0, u64::from_ne_bytes);
    let short = |at: usize| raw[at..at + 4].try_into().map_or(0, u32::from_ne_bytes);
    let stamped = raw[OPTIONS] & OPTION_TIMESTAMPS != 0;
    Some(TcpInfo {
        received: long(RECEIVED),
        sent: long(SENT),
        packets_in: short(PACKETS_IN),
        packets_out: short(PACKETS_OUT),
        header: if stamped { HEADER + TIMESTAMPS } else { HEADER },
        segment: short(SEGMENT),
        round_trip_us: short(ROUND_TRIP).into(),
        sent_round_trip_us: short(SENT_ROUND_TRIP).into(),
    })
}

/// Other systems keep no such counters, or others.
#[cfg(not(target_os = "linux"))]
pub(super) fn tcp_info(_: impl AsFd) -> Option<TcpInfo> {
    None
}

/// The kernel's structure as it lies in memory; `None` if the kernel's is shorter.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate without bindgen reads this option; the call is below, whole")]
fn raw<const LENGTH: usize>(socket: impl AsFd) -> Option<[u8; LENGTH]> {
    use std::os::fd::AsRawFd;
    let mut raw = [0u8; LENGTH];
    let mut length = LENGTH as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so open; the kernel writes at most `length` bytes to `raw`,
    // of which any value is valid, and sets `length` to how many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            raw.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == LENGTH).then_some(raw)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn it_agrees_with_what_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut here = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (mut there, _) = listener.accept().expect("it came");
        there.write_all(&[7; 1000]).expect("a buffer");
        here.write_all(&[7; 30]).expect("a buffer");
        here.read_exact(&mut [0; 400]).expect("it was sent");
        there.read_exact(&mut [0; 30]).expect("it was sent");
        let info = tcp_info(&here).expect("Linux tells");
        assert_eq!((info.received, info.sent), (1000, 30), "also what was not read yet");
        assert!(info.packets_in > 0 && info.packets_out > 0, "{info:?}");
        assert!(matches!(info.header, HEADER | 32), "{info:?}");
        assert_eq!(tcp_info(std::fs::File::open("/dev/null").expect("it is there")), None);
    }
}
