//! The users as whom the machine's resolvers run: what they look up, they look up for everybody.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Where accounts are listed.
pub const PASSWD: &str = "/etc/passwd";
/// More of it is not read.
const READ_MAX: u64 = 1 << 20;

/// Accounts that distributions make for resolvers. Only root can make one of such a name.
const RESOLVERS: [&str; 16] = [
    "systemd-resolve",
    "dnsmasq",
    "libvirt-dnsmasq",
    "unbound",
    "_unbound",
    "named",
    "bind",
    "nscd",
    "unscd",
    "pdns",
    "pdns-recursor",
    "knot-resolver",
    "stubby",
    "dnscrypt",
    "dnscrypt-proxy",
    "_dnscrypt-proxy",
];

/// Their numbers; none where the list cannot be read.
pub fn of_resolvers(passwd: &Path) -> Vec<u32> {
    let mut text = Vec::new();
    let Ok(file) = File::open(passwd) else { return Vec::new() };
    if file.take(READ_MAX).read_to_end(&mut text).is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&text).lines().filter_map(resolver).collect()
}

/// `name:password:uid:…` of a resolver.
fn resolver(line: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    RESOLVERS.contains(&name).then(|| fields.nth(1)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_known_by_its_account() {
        assert_eq!(resolver("systemd-resolve:x:991:991:systemd Resolver:/:/usr/sbin/nologin"), Some(991));
        for line in ["", "dnsmasq", "dnsmasq:x:", "nobody:x:65534:65534::/:", "my-dnsmasq:x:1000:1000::/:"] {
            assert_eq!(resolver(line), None, "{line}");
        }
        assert!(of_resolvers(Path::new("/nonexistent")).is_empty());
    }
}
