//! `/etc/resolv.conf` (resolv.conf(5)) and `/etc/hosts` (hosts(5)).

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType};

use crate::names::host_name;

/// glibc's `MAXNS`.
const SERVERS_MAX: usize = 3;
/// Bytes of a file that are read: lists of blocked hosts go into megabytes, but those lead to no address.
const READ_MAX: u64 = 1 << 20;
const HOSTS_MAX: usize = 4096;
const DNS_PORT: u16 = 53;

/// What can be read of a file, nothing where it cannot.
pub(super) fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is as good as a shorter file.
        let _ = file.take(READ_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The servers in their order; one on this machine where none is named, as resolv.conf(5) has it.
pub(super) fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(server)
        })
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from(([127, 0, 0, 1], DNS_PORT)));
    }
    servers
}

/// An address, of link-local ones with the interface (`fe80::1%eth0`).
fn server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS_PORT));
    }
    let (address, interface) = text.split_once('%')?;
    let scope = match interface.parse() {
        Ok(index) => index,
        Err(_) => interface_index(interface)?,
    };
    Some(SocketAddr::V6(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, scope)))
}

fn interface_index(name: &str) -> Option<u32> {
    let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::name_to_index(any, name).ok()
}

/// The first name of each address.
pub(super) fn hosts(text: &str) -> HashMap<IpAddr, Arc<str>> {
    let mut hosts = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(name)) = (words.next(), words.next()) else { continue };
        let (Ok(address), Some(name)) = (address.parse::<IpAddr>(), host_name::from_text(name.as_bytes()))
        else {
            continue;
        };
        if hosts.len() < HOSTS_MAX && !address.is_unspecified() {
            hosts.entry(address.to_canonical()).or_insert(name);
        }
    }
    hosts
}

/// The addresses of a name, whichever of a line's names it is.
pub(super) fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse::<IpAddr>().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then(|| address.to_canonical())
    };
    text.lines().filter_map(address).take(HOSTS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_manual_page_has_it() {
        let text = "# comment\nsearch example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver x\n\
                    nameserver fe80::1%7\nnameserver 192.0.2.2\noptions edns0\n";
        let servers: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
        let [named] = super::servers("nameserver fe80::2%lo")[..] else { panic!("an interface by its name") };
        assert_eq!(named.to_string(), "[fe80::2%1]:53");
        assert_eq!(super::servers("")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn every_name_of_a_line_leads_to_its_address() {
        let text =
            "192.0.2.7 api.example auth.example # old.example\n2001:db8::7\tAUTH.example\nx auth.example\n";
        let found = |name: &str| addresses(text, name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("auth.example"), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(found("old.example"), [""; 0]);
    }

    #[test]
    fn the_first_name_of_an_address_counts() {
        let text = "127.0.0.1 localhost\n203.0.113.7\tAPI.example. api # the api\n203.0.113.7 later\n0.0.0.0 ads.example\n\
                    203.0.113.8 bad\u{1b}name\nnonsense\n::ffff:203.0.113.9 mapped\n";
        let hosts = hosts(text);
        let name = |address: &str| hosts.get(&address.parse::<IpAddr>().unwrap()).map(|name| &**name);
        assert_eq!(name("203.0.113.7"), Some("api.example"));
        assert_eq!((name("0.0.0.0"), name("203.0.113.8")), (None, None));
        assert_eq!(name("203.0.113.9"), Some("mapped"));
    }
}
