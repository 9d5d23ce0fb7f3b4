//! Times, sizes and addresses as people write them.

use std::fmt;

use jiff::Timestamp;

use crate::event::Address;

/// RFC 3339 in UTC with milliseconds, `2026-01-17T19:30:00.123Z`: what JSON and SQLite carry.
pub fn timestamp_millis(unix_ms: i64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// RFC 3339 in UTC in whole seconds, cut and not rounded: what people read.
pub fn timestamp_seconds(unix_ms: i64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn timestamp(unix_ms: i64) -> Timestamp {
    // Outside years -9999..=9999 there is no such time: a broken clock must not end the observation.
    Timestamp::from_millisecond(unix_ms).unwrap_or(if unix_ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// `1.2 MiB`; below 1 KiB whole bytes.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut unit = 0;
        let mut tenths = u128::from(self.0) * 10 / 1024;
        while tenths >= 10_240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

/// `1.2.3.4:443`, `[::1]:443`, or a unix socket's path; the path is raw, escape it before showing.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(std::net::SocketAddr::V6(address)) if address.scope_id() != 0 => {
                write!(f, "[{}%{}]:{}", address.ip(), address.scope_id(), address.port())
            }
            Self::Ip(std::net::SocketAddr::V6(address)) => write!(f, "[{}]:{}", address.ip(), address.port()),
            Self::Ip(std::net::SocketAddr::V4(address)) => write!(f, "{address}"),
            Self::Host(ip) => write!(f, "{ip}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_cut_to_a_tenth() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_258_291, "1.1 MiB"),
            (1_258_292, "1.2 MiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), expected);
        }
    }

    #[test]
    fn times_are_utc_and_survive_broken_clocks() {
        assert_eq!(timestamp_seconds(1_768_678_200_999), "2026-01-17T19:30:00Z");
        assert_eq!(timestamp_millis(1_768_678_200_007), "2026-01-17T19:30:00.007Z");
        assert_eq!(timestamp_millis(-1), "1969-12-31T23:59:59.999Z");
        assert!(timestamp_millis(i64::MAX).starts_with("9999-12-3"));
        assert!(timestamp_millis(i64::MIN).starts_with("-9999"));
    }

    #[test]
    fn ipv6_is_bracketed_and_mapped_addresses_are_ipv4() {
        let mapped = Address::ip("[::ffff:1.2.3.4]:443".parse().expect("an address"));
        assert_eq!(mapped.to_string(), "1.2.3.4:443");
        let six = Address::ip("[fe80::1%3]:80".parse().expect("an address"));
        assert_eq!(six.to_string(), "[fe80::1%3]:80");
        let global = Address::ip("[2001:db8::1]:80".parse().expect("an address"));
        assert_eq!(global.to_string(), "[2001:db8::1]:80");
    }
}
