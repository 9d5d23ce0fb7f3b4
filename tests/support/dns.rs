//! A DNS server in a test's network namespace, and a rano that asks it.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Ptr};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use super::namespace::Place;
use super::rano::Launch;

/// Where it listens.
const SERVER: &str = "127.0.0.1:53";

/// What a server says.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    /// Name of each address, as a PTR record has it.
    pub names: HashMap<IpAddr, &'static str>,
    /// Addresses of names.
    pub addresses: HashMap<&'static str, IpAddr>,
    /// It hears everything and says nothing.
    pub is_mute: bool,
}

/// A running server; ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(place: &Place, zone: Zone) -> Result<Self> {
        Self::serve(place, SERVER, move |question| {
            let (asked, answer) = answer(question, &zone)?;
            Some((asked, if zone.is_mute { Vec::new() } else { vec![answer] }))
        })
    }

    /// Gives each name the addresses that `resolve` says, for an hour.
    pub fn start_with(
        place: &Place,
        at: &str,
        resolve: impl Fn(&str) -> Vec<Ipv4Addr> + Send + 'static,
    ) -> Result<Self> {
        Self::serve(place, at, move |question| {
            let message = Message::from_octets(question).ok()?;
            let asked = message.sole_question().ok()?;
            let name = asked.qname().to_string();
            let mut answer = MessageBuilder::new_vec().start_answer(&message, Rcode::NOERROR).ok()?;
            for address in resolve(name.trim_end_matches('.')) {
                answer.push((asked.qname(), Ttl::from_secs(3600), A::new(address))).ok()?;
            }
            Some((name, vec![answer.finish()]))
        })
    }

    /// Answers nothing that it is asked, but tells that `name` has `address` in every way that must not be believed.
    pub fn start_hostile(place: &Place, at: &str, name: &'static str, address: [u8; 4]) -> Result<Self> {
        Self::serve(place, at, move |question| forged(question, name, address.into()))
    }

    fn serve(
        place: &Place,
        at: &str,
        answers: impl Fn(&[u8]) -> Option<(String, Vec<Vec<u8>>)> + Send + 'static,
    ) -> Result<Self> {
        let socket = place.udp_socket(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, asking) = (Arc::clone(&stop), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                serve(&socket, &answers, &asking);
            }
        });
        Ok(Self { stop, asked, thread: Some(thread) })
    }

    /// The questions so far, as `7.113.0.203.in-addr.arpa PTR`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    socket: &UdpSocket,
    answers: &impl Fn(&[u8]) -> Option<(String, Vec<Vec<u8>>)>,
    asked: &Mutex<Vec<String>>,
) {
    let mut buffer = [0; 512];
    let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
    let Some((question, answers)) = answers(&buffer[..length]) else { return };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(question);
    for answer in answers {
        let _ = socket.send_to(&answer, from);
    }
}

fn forged(question: &[u8], name: &'static str, address: Ipv4Addr) -> Option<(String, Vec<Vec<u8>>)> {
    let asked = Message::from_octets(question).ok()?.sole_question().ok()?;
    let zone = Zone { addresses: HashMap::from([(name, IpAddr::V4(address))]), ..Zone::default() };
    let wanted: Name<Vec<u8>> = name.parse().ok()?;
    let ask = |id: u16| {
        let mut message = MessageBuilder::new_vec().question();
        message.header_mut().set_id(id);
        message.push((&wanted, Rtype::A)).ok()?;
        Some(message.finish())
    };
    let id = u16::from_be_bytes([question[0], question[1]]);
    // A name that was not asked for, under the right number and a wrong one.
    let other = answer(&ask(id)?, &zone)?.1;
    let strange = answer(&ask(id.wrapping_add(1))?, &zone)?.1;
    // The right question, and a record of another name.
    let mut beside =
        MessageBuilder::new_vec().start_answer(&Message::from_octets(question).ok()?, Rcode::NOERROR).ok()?;
    beside.push((&wanted, Ttl::from_secs(300), A::new(address))).ok()?;
    // Cut in the middle of the address, a count of records that are not there, nothing but a header.
    let cut = other[..other.len() - 2].to_vec();
    let mut empty = question[..12].to_vec();
    empty[2] |= 0x80;
    empty[7] = 200;
    Some((asked.qname().to_string(), vec![other, strange, beside.finish(), cut, empty]))
}

fn answer(message: &[u8], zone: &Zone) -> Option<(String, Vec<u8>)> {
    let message = Message::from_octets(message).ok()?;
    let question = message.sole_question().ok()?;
    let name = question.qname().to_string().to_lowercase();
    let reverse =
        |address: &IpAddr| Name::<Vec<u8>>::reverse_from_addr(*address).map(|name| name.to_string());
    let pointer = zone.names.iter().find(|(address, _)| reverse(address).is_ok_and(|found| found == name));
    let address = zone.addresses.get(name.as_str());
    let rcode = if pointer.is_none() && address.is_none() { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut answer = MessageBuilder::new_vec().start_answer(&message, rcode).ok()?;
    let ttl = Ttl::from_secs(300);
    match (question.qtype(), pointer, address) {
        (Rtype::PTR, Some((_, target)), _) => {
            let target: Name<Vec<u8>> = target.parse().ok()?;
            answer.push((question.qname(), ttl, Ptr::new(target))).ok()?;
        }
        (Rtype::A, _, Some(IpAddr::V4(address))) => {
            answer.push((question.qname(), ttl, A::new(*address))).ok()?;
        }
        _ => {}
    }
    Some((format!("{name} {}", question.qtype()), answer.finish()))
}

/// Makes rano take `127.0.0.1` for its resolver, and no hosts; as root only.
pub fn ask_here(mut launch: Launch, directory: &Path) -> Result<Launch> {
    let mut mounts = Vec::new();
    for (name, content, target) in
        [("resolv.conf", "nameserver 127.0.0.1\n", "/etc/resolv.conf"), ("hosts", "", "/etc/hosts")]
    {
        let path = directory.join(name);
        fs::write(&path, content)?;
        // Where it is a link, it is the file behind it that another is put over.
        let target = fs::canonicalize(target).with_context(|| format!("find {target}"))?;
        let c_string = |path: &Path| CString::new(path.as_os_str().as_bytes());
        mounts.push((c_string(&path)?, c_string(&target)?));
    }
    // SAFETY: between fork and exec only system calls are made; nothing allocates or locks.
    unsafe { launch.command().pre_exec(move || put_over(&mounts)) };
    Ok(launch)
}

fn put_over(mounts: &[(CString, CString)]) -> io::Result<()> {
    // SAFETY: CLONE_FILES is not among the flags, so descriptor tables stay as they are.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for (from, to) in mounts {
        mount_bind(from, to)?;
    }
    Ok(())
}
