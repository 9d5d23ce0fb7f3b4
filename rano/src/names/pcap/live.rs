//! libpcap on the device `any`, with a filter in the kernel, on a thread of its own.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use pcap::{Active, Capture, Packet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::event::Moment;
use crate::files::Rights;
use crate::names::feed::{Feed, Sender};
use crate::names::packet::{self, Link};
use crate::names::reader::{Reader, Seen};

/// Packets are cut behind so many bytes: room for a `ClientHello` that a device takes in one piece.
const LENGTH_MAX: i32 = 4096;
/// Room in the kernel for packets that were not read yet.
const BUFFER: i32 = 4 << 20;

/// Looks at the clocks, of which the quickest counts.
const LOOKS: usize = 3;

/// Only what may hold a name passes: DNS; the SYN and the first segment of a TLS connection on any port, whatever
/// follows it on port 443 as long as it is small (a hello's second segment, which nothing marks; what uploads send is
/// larger, because devices take it in pieces of up to 64 KiB); requests to proxies (`CONN`; `GET http`, `POST http` and
/// so on; SOCKS 4, and offers and requests of SOCKS 5); Initial packets of QUIC.
///
/// The accessors `tcp[]` and `udp[]` are for IPv4; IPv6 is written out, and packets with extension headers pass.
/// What it misses: the second segment of a hello or a request on another port, fragments.
fn filter() -> String {
    let v4 = segments("tcp", "((tcp[12] & 0xf0) >> 2)", 0);
    let v6 = segments("ip6", "((ip6[52] & 0xf0) >> 2)", 40);
    format!(
        "port 53 \
         or (tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn) or {v4} \
         or (tcp dst port 443 and ip[2:2] < 4096 and ip[2:2] > ((ip[0] & 0xf) << 2) + ((tcp[12] & 0xf0) >> 2)) \
         or (udp[9:4] = 1 and udp[8] & 0xf0 = 0xc0) \
         or (udp[9:4] = 0x6b3343cf and udp[8] & 0xf0 = 0xd0) \
         or (ip6 and (ip6[6] = 0 or ip6[6] = 43 or ip6[6] = 60 \
             or (ip6[6] = 6 and (ip6[53] & 0x12 = 0x02 or {v6} \
                 or (ip6[42:2] = 443 and ip6[4:2] < 4096 and ip6[4:2] > (ip6[52] & 0xf0) >> 2))) \
             or (ip6[6] = 17 and ((ip6[49:4] = 1 and ip6[48] & 0xf0 = 0xc0) \
                 or (ip6[49:4] = 0x6b3343cf and ip6[48] & 0xf0 = 0xd0)))))"
    )
}

/// Segments that begin like something of interest. `header` is how long the TCP header is, which begins `at` bytes
/// behind where `packet` counts from.
fn segments(packet: &str, header: &str, at: u32) -> String {
    let bytes = |from: u32, count: u32| format!("{packet}[{} + {header}:{count}]", at + from);
    let is = |from: u32, text: &[u8; 4]| format!("{} = {:#010x}", bytes(from, 4), u32::from_be_bytes(*text));
    let first = bytes(0, 2);
    let methods = [
        (b"GET ", b"http"),
        (b"PUT ", b"http"),
        (b"POST", b" htt"),
        (b"HEAD", b" htt"),
        (b"PATC", b"H ht"),
        (b"DELE", b"TE h"),
        (b"OPTI", b"ONS "),
    ];
    let methods = methods.map(|(begins, goes_on)| format!("({} and {})", is(0, begins), is(4, goes_on)));
    let numbers = [0x1603, 0x0401, 0x0501, 0x0502, 0x0503].map(|number| format!("{first} = {number:#06x}"));
    format!("({} or {} or {})", numbers.join(" or "), is(0, b"CONN"), methods.join(" or "))
}

pub(super) fn open() -> Result<Feed> {
    let mut capture = Capture::from_device("any")
        .and_then(|any| any.snaplen(LENGTH_MAX).buffer_size(BUFFER).immediate_mode(true).open())
        .context("watch packets (it takes root, or CAP_NET_RAW)")?;
    capture.filter(&filter(), true).context("filter packets")?;
    let number = capture.get_datalink().0;
    let Some(link) = Link::from_number(number) else { bail!("packets come in an unknown form ({number})") };
    let capture = capture.setnonblock().context("watch packets without blocking")?;
    Feed::from_thread(Rights::here(), move |sender| Watcher::new(capture, link).run(&sender))
}

struct Watcher {
    capture: Capture<Active>,
    link: Link,
    reader: Reader,
    /// What was reported as lost.
    lost: u64,
}

impl Watcher {
    fn new(capture: Capture<Active>, link: Link) -> Self {
        Self { capture, link, reader: Reader::default(), lost: 0 }
    }

    fn run(mut self, sender: &Sender) {
        let mut out = Vec::new();
        while !sender.stop.is_raised() && self.wait(sender) {
            let now = Clocks::read();
            loop {
                match self.capture.next_packet() {
                    Ok(packet) => read(&mut self.reader, self.link, &packet, &now, &mut out),
                    Err(pcap::Error::TimeoutExpired) => break,
                    // The device `any` does not go away; what is lost with it cannot be counted.
                    Err(_) => return sender.lost(1),
                }
                for evidence in out.drain(..) {
                    sender.send(evidence);
                }
            }
            self.count(self.reader.unread, sender);
        }
        // Greetings that are not whole now will not be.
        self.count(self.reader.unread(), sender);
    }

    /// Until there is a packet; `false` where that can no longer be told.
    fn wait(&self, sender: &Sender) -> bool {
        // SAFETY: the capture is open as long as `self` is, and so is its descriptor.
        let packets = unsafe { BorrowedFd::borrow_raw(self.capture.as_raw_fd()) };
        let stop = sender.stop.fd();
        let mut fds =
            [PollFd::new(&packets, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        matches!(poll(&mut fds, None), Ok(_) | Err(rustix::io::Errno::INTR))
    }

    fn count(&mut self, unread: u64, sender: &Sender) {
        let dropped = self.capture.stats().map_or(0, |stats| u64::from(stats.dropped));
        let lost = dropped + unread;
        sender.lost(lost.saturating_sub(self.lost));
        self.lost = self.lost.max(lost);
    }
}

fn read(
    reader: &mut Reader,
    link: Link,
    packet: &Packet<'_>,
    now: &Clocks,
    out: &mut Vec<crate::names::Evidence>,
) {
    let Some(segment) = packet::parse(link, packet.data) else { return };
    let unix_us = packet.header.ts.tv_sec * 1_000_000 + packet.header.ts.tv_usec;
    reader.read(now.moment(unix_us.unsigned_abs() * 1000), Seen::OnTheWay, &segment, out);
}

/// Both clocks at the same time. An answer comes a fraction of a millisecond before the connection that it names, and
/// that must stay so.
struct Clocks {
    boot_ns: u64,
    unix_ns: u64,
}

impl Clocks {
    fn read() -> Self {
        let ns = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
        };
        // What comes between two looks makes packets older than they are, rather than younger.
        let looks = std::iter::repeat_with(|| {
            let boot_ns = ns(ClockId::Boottime);
            let unix_ns = ns(ClockId::Realtime);
            (ns(ClockId::Boottime) - boot_ns, Self { boot_ns, unix_ns })
        });
        let best = looks.take(LOOKS).min_by_key(|(took, _)| *took);
        best.map(|(_, clocks)| clocks).expect("it looks at least once")
    }

    fn moment(&self, unix_ns: u64) -> Moment {
        let seen_at = unix_ns.min(self.unix_ns);
        Moment {
            boot_ns: self.boot_ns.saturating_sub(self.unix_ns - seen_at),
            unix_ms: i64::try_from(seen_at / 1_000_000).unwrap_or(i64::MAX),
        }
    }
}
