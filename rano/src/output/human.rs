//! Times, sizes and addresses as people write them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::Address;

/// RFC 3339 in UTC with milliseconds, `2026-01-17T19:30:00.123Z`: what JSON and SQLite carry.
pub fn timestamp_millis(unix_ms: i64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// RFC 3339 in UTC in whole seconds, cut and not rounded: what people read.
pub fn timestamp_seconds(unix_ms: i64) -> String {
    timestamp(unix_ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whose clock people read.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    Utc,
    Local(TimeZone),
}

impl Clock {
    /// That of this machine; UTC if it does not say where it is.
    pub fn local() -> Self {
        Self::Local(TimeZone::system())
    }

    /// `19:30:00`, cut and not rounded.
    pub fn time(&self, unix_ms: i64) -> String {
        match self {
            Self::Utc => clock(unix_ms, &TimeZone::UTC),
            Self::Local(zone) => clock(unix_ms, zone),
        }
    }
}

/// The same in another zone, `2026-01-17T20:30:00+01:00`.
pub fn seconds_in(unix_ms: i64, zone: &TimeZone) -> String {
    if *zone == TimeZone::UTC {
        return timestamp_seconds(unix_ms);
    }
    timestamp(unix_ms).to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// The day and the time of day, `01-17 19:30:00`.
pub fn day_and_clock(unix_ms: i64, zone: &TimeZone) -> String {
    timestamp(unix_ms).to_zoned(zone.clone()).strftime("%m-%d %H:%M:%S").to_string()
}

/// The time of day, `19:30:00`.
pub fn clock(unix_ms: i64, zone: &TimeZone) -> String {
    timestamp(unix_ms).to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
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

/// The same in a few columns: `1.2M`, `40M`, `512B`.
pub struct ShortSize(pub u64);

impl fmt::Display for ShortSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let long = Size(self.0).to_string();
        let (number, unit) = long.split_once(' ').unwrap_or((&long, "B"));
        let unit = &unit[..1];
        match number.split_once('.') {
            Some((whole, _)) if whole.len() > 1 => write!(f, "{whole}{unit}"),
            _ => write!(f, "{number}{unit}"),
        }
    }
}

/// A time that passed, in a few columns: `82ms`, `0.1s`, `12.3s`, `4m05s`, `3h12m`, `2d04h`.
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, seconds) = (self.0.as_millis(), self.0.as_secs());
        match seconds {
            0 if ms < 100 => write!(f, "{ms}ms"),
            0..60 => write!(f, "{seconds}.{}s", ms / 100 % 10),
            60..3600 => write!(f, "{}m{:02}s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{}h{:02}m", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        }
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
    fn short_sizes_and_spans_take_few_columns() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (2765, "2.7K"),
            (40 << 20, "40M"),
            ((1 << 20) - 1, "1023K"),
            (u64::MAX, "15E"),
        ] {
            assert_eq!(ShortSize(bytes).to_string(), expected);
        }
        for (ms, expected) in [
            (0, "0ms"),
            (99, "99ms"),
            (100, "0.1s"),
            (59_999, "59.9s"),
            (245_000, "4m05s"),
            (11_520_000, "3h12m"),
            (187_200_000, "2d04h"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), expected);
        }
    }

    #[test]
    fn a_clock_is_utc_unless_another_one_is_asked_for() {
        let noon = 1_768_678_200_999;
        assert_eq!(Clock::Utc.time(noon), "19:30:00");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(Clock::Local(east).time(noon), "21:30:00");
        assert_eq!(Clock::Utc.time(i64::MAX).len(), 8);
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
