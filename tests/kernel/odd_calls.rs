//! Exchanges by other calls than `write` and `read`: each way to send and receive that a program may use instead.

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::SocketFlags;

use crate::odd_client::{ANSWER, Done, Played, REQUEST, new_socket, request, tuple_of};
use crate::support::PATIENCE;
use crate::support::actor::Tuple;

pub fn io_uring(to: SocketAddr) -> Played {
    let mut ring = match io_uring::IoUring::new(4) {
        Ok(ring) => ring,
        Err(error) => return Ok((Done::refused(format!("no io_uring ({error})")), None)),
    };
    let socket = new_socket(SocketFlags::empty())?;
    let SocketAddr::V4(v4) = to else { bail!("an IPv4 address") };
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>())?;
    let connect = io_uring::opcode::Connect::new(
        io_uring::types::Fd(socket.as_raw_fd()),
        (&raw const address).cast(),
        length,
    );
    by_ring(&mut ring, &connect.build())?;
    let stream = TcpStream::from(socket);
    let mut done = Done::new(Some(tuple_of(&stream)?));
    let (socket, request) = (io_uring::types::Fd(stream.as_raw_fd()), request());
    let (size, mut rest) = (u32::try_from(REQUEST)?, ANSWER);
    let send = io_uring::opcode::Send::new(socket, request.as_ptr(), size).build();
    ensure!(by_ring(&mut ring, &send)? == REQUEST, "the request was cut");
    let mut answer = [0_u8; ANSWER];
    while rest > 0 {
        let receive = io_uring::opcode::Recv::new(socket, answer.as_mut_ptr(), u32::try_from(rest)?).build();
        rest -= by_ring(&mut ring, &receive)?.max(1);
    }
    (done.sent, done.received) = (u64::try_from(REQUEST)?, u64::try_from(ANSWER)?);
    Ok((done, Some(stream.into())))
}

/// What the operation returned. Its memory has to live until then.
fn by_ring(ring: &mut io_uring::IoUring, entry: &io_uring::squeue::Entry) -> Result<usize> {
    // SAFETY: the callers' buffers outlive the operation, whose end is waited for.
    unsafe { ring.submission().push(entry) }?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().context("no completion")?.result();
    usize::try_from(result).with_context(|| format!("io_uring: {}", io::Error::from_raw_os_error(-result)))
}

pub fn send_file(to: SocketAddr) -> Played {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let file = rustix::fs::memfd_create(c"request", rustix::fs::MemfdFlags::CLOEXEC)?;
    ensure!(rustix::io::write(&file, &request())? == REQUEST, "the file was cut");
    let mut offset = 0;
    while usize::try_from(offset)? < REQUEST {
        rustix::fs::sendfile(&stream, &file, Some(&mut offset), REQUEST)?;
    }
    stream.read_exact(&mut [0; ANSWER])?;
    let mut done = Done::new(Some(tuple_of(&stream)?));
    (done.sent, done.received) = (u64::try_from(REQUEST)?, u64::try_from(ANSWER)?);
    Ok((done, Some(stream.into())))
}

pub fn splice(to: SocketAddr) -> Played {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (read, write) = rustix::pipe::pipe()?;
    ensure!(rustix::io::write(&write, &request())? == REQUEST, "the pipe took less");
    let all = |from: &dyn std::os::fd::AsFd, to: &dyn std::os::fd::AsFd, mut rest: usize| -> Result<()> {
        while rest > 0 {
            let flags = rustix::pipe::SpliceFlags::empty();
            rest -= rustix::pipe::splice(from.as_fd(), None, to.as_fd(), None, rest, flags)?.max(1);
        }
        Ok(())
    };
    all(&read, &stream, REQUEST)?;
    all(&stream, &write, ANSWER)?;
    let mut done = Done::new(Some(tuple_of(&stream)?));
    (done.sent, done.received) = (u64::try_from(REQUEST)?, u64::try_from(ANSWER)?);
    Ok((done, Some(stream.into())))
}

pub fn receive_several(to: SocketAddr) -> Played {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    for _ in 0..3 {
        socket.send(&request())?;
    }
    let mut buffers = [[0_u8; ANSWER]; 3];
    let mut received = 0;
    while received < 3 {
        let mut parts: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = Vec::new();
        for part in parts.iter_mut().skip(received) {
            // SAFETY: it is plain data for which zeros are a value.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = std::ptr::from_mut(part);
            message.msg_hdr.msg_iovlen = 1;
            messages.push(message);
        }
        let (count, flags) = (u32::try_from(messages.len())?, libc::MSG_WAITFORONE);
        // SAFETY: the messages, what they point to, and the socket outlive the call.
        let got = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, flags, std::ptr::null_mut())
        };
        ensure!(got > 0, "nothing was received: {}", io::Error::last_os_error());
        received += usize::try_from(got)?;
    }
    let tuple = Tuple { local: socket.local_addr()?, remote: to };
    let (sent, received) = (u64::try_from(3 * REQUEST)?, u64::try_from(3 * ANSWER)?);
    Ok((Done { sent, received, ..Done::new(Some(tuple)) }, Some(socket.into())))
}

pub fn send_several(to: SocketAddr) -> Played {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let SocketAddr::V4(first) = to else { bail!("an IPv4 address") };
    let sin_family = libc::sa_family_t::try_from(libc::AF_INET)?;
    let address = |port: u16| libc::sockaddr_in {
        sin_family,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(first.ip().octets()) },
        sin_zero: [0; 8],
    };
    let mut addresses = [address(first.port()), address(first.port() + 1), address(first.port())];
    let data = [b'd'; 100];
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut messages: Vec<libc::mmsghdr> = Vec::new();
    for address in &mut addresses {
        // SAFETY: it is plain data for which zeros are a value.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_name = (&raw mut *address).cast();
        message.msg_hdr.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_in>())?;
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
        messages.push(message);
    }
    // SAFETY: the messages, what they point to, and the socket outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 3, 0) };
    ensure!(sent == 3, "{sent} of 3 were sent: {}", io::Error::last_os_error());
    let tuple = Tuple { local: socket.local_addr()?, remote: to };
    Ok((Done { sent: 200, ..Done::new(Some(tuple)) }, Some(socket.into())))
}
