//! The sockets of an actor. An answering server takes requests: a header of two little-endian `u32`, the length of the
//! whole request and the length of the wanted answer, then padding. Over UDP a request and an answer are one datagram
//! each.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;

use super::{Ending, PATIENCE, Service, Totals, Transport, Tuple};

/// Length of a request's header, bytes.
pub const HEADER: usize = 8;
/// What `net.core.somaxconn` allows by default.
const BACKLOG: i32 = 4096;
/// Servers have a thread a connection, and there may be thousands.
const STACK: usize = 64 * 1024;

enum Client {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

struct Connection {
    client: Client,
    totals: Totals,
}

#[derive(Default)]
struct Kept {
    streams: Mutex<Vec<TcpStream>>,
    grew: Condvar,
}

#[derive(Default)]
pub struct Sockets {
    connections: Vec<Option<Connection>>,
    held: Vec<TcpStream>,
    kept: Arc<Kept>,
    /// Kept until the actor ends.
    others: Vec<OwnedFd>,
}

impl Sockets {
    pub fn serve(&self, transport: Transport, at: SocketAddr, service: Service) -> Result<SocketAddr> {
        match transport {
            Transport::Tcp => {
                let listener = TcpListener::bind(at).with_context(|| format!("listen on {at}"))?;
                // A full queue makes a client wait a second for its next try; listening again lengthens it.
                rustix::net::listen(&listener, BACKLOG)?;
                let at = listener.local_addr()?;
                let kept = Arc::clone(&self.kept);
                thread::spawn(move || accept_all(&listener, service, &kept));
                Ok(at)
            }
            Transport::Udp => {
                let socket = UdpSocket::bind(at).with_context(|| format!("bind to {at}"))?;
                let at = socket.local_addr()?;
                thread::spawn(move || answer_datagrams(&socket));
                Ok(at)
            }
        }
    }

    pub fn drop_accepted(&self, count: usize) -> Result<()> {
        let streams = self.kept.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut streams, waited) = self
            .kept
            .grew
            .wait_timeout_while(streams, PATIENCE, |streams| streams.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(!waited.timed_out(), "only {} of {count} were accepted", streams.len());
        streams.clear();
        Ok(())
    }

    pub fn connect(&mut self, transport: Transport, to: SocketAddr) -> Result<(usize, Tuple)> {
        let (client, tuple) = match transport {
            Transport::Tcp => {
                let stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let tuple = tuple_of(&stream)?;
                (Client::Tcp(stream), tuple)
            }
            Transport::Udp => {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).context("bind a datagram socket")?;
                socket.connect(to).with_context(|| format!("connect to {to}"))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                let tuple = Tuple { local: socket.local_addr()?, remote: socket.peer_addr()? };
                (Client::Udp(socket), tuple)
            }
        };
        self.connections.push(Some(Connection { client, totals: Totals::default() }));
        Ok((self.connections.len() - 1, tuple))
    }

    /// A socket that is on its way, refused, or connected: as a rule not known yet.
    pub fn attempt(&mut self, to: SocketAddr) -> Result<(usize, Tuple)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddr::new(to.ip(), 0))?;
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => {}
            Err(errno) => return Err(errno).with_context(|| format!("connect to {to}")),
        }
        let stream = TcpStream::from(socket);
        let tuple = Tuple { local: stream.local_addr()?, remote: to };
        self.connections.push(Some(Connection { client: Client::Tcp(stream), totals: Totals::default() }));
        Ok((self.connections.len() - 1, tuple))
    }

    /// The same socket: an address without a family disconnects it (`inet_stream_connect()`).
    pub fn connect_again(&mut self, connection: usize, to: SocketAddr) -> Result<Tuple> {
        let place =
            self.connections.get_mut(connection).and_then(Option::as_mut).context("no such connection")?;
        let Client::Tcp(stream) = &place.client else { anyhow::bail!("not TCP") };
        rustix::net::connect_unspec(stream)?;
        rustix::net::connect(stream, &to)?;
        place.totals = Totals::default();
        Ok(tuple_of(stream)?)
    }

    /// A full queue of a listener drops further attempts (`tcp_conn_request()`).
    pub fn serve_nobody(&mut self) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        rustix::net::listen(&listener, 0)?;
        let at = listener.local_addr()?;
        // A queue of length 0 holds one.
        self.held.push(TcpStream::connect(at)?);
        self.others.push(listener.into());
        Ok(at)
    }

    pub fn send_to(&mut self, to: SocketAddr) -> Result<(usize, Tuple)> {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.send_to(b"x", to).with_context(|| format!("send to {to}"))?;
        let tuple = Tuple { local: socket.local_addr()?, remote: to };
        self.connections.push(Some(Connection { client: Client::Udp(socket), totals: Totals::default() }));
        Ok((self.connections.len() - 1, tuple))
    }

    pub fn connect_unix(&mut self, to: &Path) -> Result<()> {
        let mut stream = UnixStream::connect(to)?;
        stream.read_exact(&mut [0])?;
        self.others.push(stream.into());
        Ok(())
    }

    pub fn exchange(&mut self, connection: usize, send: usize, receive: usize) -> Result<Totals> {
        ensure!(send >= HEADER, "a request has at least {HEADER} bytes");
        let connection =
            self.connections.get_mut(connection).and_then(Option::as_mut).context("no such connection")?;
        let mut request = Vec::with_capacity(send);
        request.extend(u32::try_from(send)?.to_le_bytes());
        request.extend(u32::try_from(receive)?.to_le_bytes());
        request.resize(send, b'q');
        let mut answer = vec![0; receive];
        match &mut connection.client {
            Client::Tcp(stream) => {
                stream.write_all(&request)?;
                stream.read_exact(&mut answer)?;
            }
            Client::Udp(socket) => {
                ensure!(socket.send(&request)? == send, "the datagram was cut");
                ensure!(socket.recv(&mut answer)? == receive, "the answer was cut");
            }
        }
        connection.totals.sent += u64::try_from(send)?;
        connection.totals.received += u64::try_from(receive)?;
        Ok(connection.totals)
    }

    pub fn close(&mut self, connection: usize, ending: Ending) -> Result<()> {
        let connection =
            self.connections.get_mut(connection).and_then(Option::take).context("no such connection")?;
        match (connection.client, ending) {
            (Client::Tcp(mut stream), Ending::InOrder) => {
                stream.shutdown(std::net::Shutdown::Write)?;
                let rest = io::copy(&mut stream, &mut io::sink())?;
                ensure!(rest == 0, "{rest} bytes came unasked");
            }
            (Client::Tcp(stream), Ending::Reset) => {
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            }
            (Client::Udp(_), _) => {}
        }
        Ok(())
    }

    pub fn hold(&mut self, to: SocketAddr, count: usize) -> Result<Vec<Tuple>> {
        let mut tuples = Vec::with_capacity(count);
        for _ in 0..count {
            let stream = TcpStream::connect(to)
                .with_context(|| format!("connect to {to}, with {} open", tuples.len()))?;
            tuples.push(tuple_of(&stream)?);
            self.held.push(stream);
        }
        Ok(tuples)
    }

    pub fn close_held(&mut self) {
        self.held.clear();
    }
}

pub fn serve_unix(at: &Path) -> Result<()> {
    let listener = UnixListener::bind(at)?;
    thread::spawn(move || {
        let mut accepted = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            // The client waits for this: before, the kernel does not tell where it is connected.
            if stream.write_all(b"!").is_ok() {
                accepted.push(stream);
            }
        }
    });
    Ok(())
}

pub fn short_connections(to: SocketAddr, count: usize, lifetime: Duration) -> Result<Vec<Tuple>> {
    let mut tuples = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = TcpStream::connect(to)?;
        tuples.push(tuple_of(&stream)?);
        // The lifetime is the point of the order, not a wait for something.
        thread::sleep(lifetime);
    }
    Ok(tuples)
}

fn tuple_of(stream: &TcpStream) -> io::Result<Tuple> {
    Ok(Tuple { local: stream.local_addr()?, remote: stream.peer_addr()? })
}

fn accept_all(listener: &TcpListener, service: Service, kept: &Kept) {
    for stream in listener.incoming().map_while(Result::ok) {
        match service {
            Service::Keep => {
                kept.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                kept.grew.notify_all();
            }
            Service::Drain => {
                // What a client sends means nothing, nor does a reset.
                let _ = io::copy(&mut &stream, &mut io::sink());
            }
            Service::Answer => {
                // A connection that gets no thread is closed, and its client notices.
                let _ = thread::Builder::new().stack_size(STACK).spawn(move || answer_stream(stream));
            }
        }
    }
}

/// Ends with the client's end of data, a reset, or nonsense: then the stream is closed, which the client notices.
fn answer_stream(mut stream: TcpStream) -> Result<()> {
    let mut header = [0; HEADER];
    loop {
        if let Err(error) = stream.read_exact(&mut header) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error.into()) };
        }
        let (request, answer) = lengths(header)?;
        let padding = u64::try_from(request.saturating_sub(HEADER))?;
        io::copy(&mut (&stream).take(padding), &mut io::sink())?;
        stream.write_all(&vec![b'a'; answer])?;
    }
}

fn answer_datagrams(socket: &UdpSocket) {
    let mut request = vec![0; 65_536];
    while let Ok((length, client)) = socket.recv_from(&mut request) {
        let header = request.get(..HEADER.min(length)).and_then(|bytes| bytes.try_into().ok());
        if let Some(Ok((_, answer))) = header.map(lengths) {
            // A client that is gone does not end the service.
            let _ = socket.send_to(&vec![b'a'; answer], client);
        }
    }
}

fn lengths(header: [u8; HEADER]) -> Result<(usize, usize)> {
    let both = u64::from_le_bytes(header);
    let (request, answer) = (both & u64::from(u32::MAX), both >> 32);
    ensure!(answer <= 1 << 30, "an answer of {answer} bytes");
    Ok((usize::try_from(request)?, usize::try_from(answer)?))
}
