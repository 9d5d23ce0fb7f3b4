//! Times and spans as a user types them: `30m`, `7d`, `03:00`, `2026-01-17`, `2026-01-17T19:30:00+01:00`.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time, date};
use jiff::tz::TimeZone;

const DAY_MS: i64 = 86_400_000;

/// Why a text is no time, in words that follow the name of the option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeError(String);

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TimeError {}

/// A moment in Unix milliseconds: so long before `now_ms` (`30m`, `1h`, `24h`, `7d`, `1w`), the latest such time of day
/// (`03:00`), a date (its midnight), both in `zone`, or RFC 3339 with an offset.
pub fn parse_moment(text: &str, now_ms: i64, zone: &TimeZone) -> Result<i64, TimeError> {
    let text = text.trim();
    if let Some(span) = relative(text) {
        let span = i64::try_from(span?.as_millis()).ok();
        return span
            .and_then(|span| now_ms.checked_sub(span))
            .filter(|moment| *moment >= -62_167_219_200_000)
            .ok_or_else(|| TimeError(format!("'{text}' lies before the year 0")));
    }
    if looks_like_clock(text) {
        return latest(text, now_ms, zone);
    }
    if looks_like_date(text) {
        let day: Date = text.parse().map_err(|_| TimeError(format!("'{text}': there is no such day")))?;
        if *zone != TimeZone::UTC
            && let Ok(midnight) = day.to_zoned(zone.clone())
        {
            return Ok(midnight.timestamp().as_millisecond());
        }
        let days = day.since(date(1970, 1, 1)).expect("the difference of two dates in days").get_days();
        return Ok(i64::from(days) * DAY_MS);
    }
    match text.parse::<Timestamp>() {
        Ok(moment) if text.len() > 10 && text.as_bytes()[4] == b'-' => Ok(moment.as_millisecond()),
        Ok(_) | Err(_) => Err(not_a_time(text)),
    }
}

/// A length of time: `30m`, `24h`, `7d`, `1w`.
pub fn parse_span(text: &str) -> Result<Duration, TimeError> {
    let text = text.trim();
    relative(text)
        .unwrap_or_else(|| Err(TimeError(format!("'{text}' is no span of time (use 30m, 24h, 7d or 1w)"))))
}

/// In the largest unit that leaves no rest: `7d` for a week and for 168 hours.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
    let (length, unit) = unit.unwrap_or((1, 's'));
    format!("{}{unit}", seconds / length)
}

/// `None` where it is not a number with one letter.
fn relative(text: &str) -> Option<Result<Duration, TimeError>> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || unit.is_ascii_digit() {
        return None;
    }
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Some(Err(TimeError(format!("'{text}': unknown unit '{unit}' (use s, m, h, d or w)")))),
    };
    let span = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(seconds));
    Some(span.map(Duration::from_secs).ok_or_else(|| TimeError(format!("'{text}' is too long a time"))))
}

/// `3:00`, `03:00`, `03:00:30`.
fn looks_like_clock(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let is_number =
        |part: &&str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (2..=3).contains(&parts.len()) && parts.iter().all(is_number)
}

/// The latest time of that name up to now. A day on which the clocks are put forward may lack it: then it is the moment
/// at which they are.
fn latest(text: &str, now_ms: i64, zone: &TimeZone) -> Result<i64, TimeError> {
    let none = || TimeError(format!("'{text}': there is no such time of day"));
    let mut parts = text.split(':').map(|part| part.parse::<i8>().map_err(|_| none()));
    let mut next = || parts.next().unwrap_or(Ok(0));
    let time = Time::new(next()?, next()?, next()?, 0).map_err(|_| none())?;
    let now = Timestamp::from_millisecond(now_ms).map_err(|_| none())?.to_zoned(zone.clone());
    let at = |day: Date| day.to_datetime(time).to_zoned(zone.clone()).map_err(|_| none());
    let today = at(now.date())?;
    let found = if today <= now { today } else { at(now.date().yesterday().map_err(|_| none())?)? };
    Ok(found.timestamp().as_millisecond())
}

fn looks_like_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
}

fn not_a_time(text: &str) -> TimeError {
    let forms = "30m, 24h, 7d, 1w, 03:00, a date as 2026-01-17, or RFC 3339 as 2026-01-17T19:30:00Z";
    let lacks_offset = text.len() > 10 && text.parse::<jiff::civil::DateTime>().is_ok();
    if lacks_offset {
        return TimeError(format!("'{text}' lacks an offset from UTC (add Z, or as +01:00)"));
    }
    TimeError(format!("'{text}' is no time (use {forms})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-17T19:30:00Z.
    const NOW: i64 = 1_768_678_200_000;
    const MIDNIGHT: i64 = 1_768_608_000_000;

    fn check(text: &str, expected: i64) {
        assert_eq!(parse_moment(text, NOW, &TimeZone::UTC), Ok(expected), "{text}");
    }

    fn check_refused(text: &str, words: &str) {
        let error = parse_moment(text, NOW, &TimeZone::UTC).expect_err(text).to_string();
        assert!(error.contains(words), "{text}: {error}");
    }

    #[test]
    fn every_form_of_the_contract_is_a_moment() {
        check("30m", NOW - 30 * 60_000);
        check("1h", NOW - 3_600_000);
        check("24h", NOW - DAY_MS);
        check("7d", NOW - 7 * DAY_MS);
        check("1w", NOW - 7 * DAY_MS);
        check("0s", NOW);
        check("2026-01-17", MIDNIGHT);
        check("2026-01-17T19:30:00Z", NOW);
        check("2026-01-17t19:30:00z", NOW);
        check("2026-01-17T20:30:00+01:00", NOW);
        check("2026-01-17 19:30:00.250Z", NOW + 250);
        check(" 1h ", NOW - 3_600_000);
    }

    #[test]
    fn a_time_of_day_is_the_latest_one() {
        let at = |hours: i64, minutes: i64| MIDNIGHT + (hours * 60 + minutes) * 60_000;
        check("03:00", at(3, 0));
        check("3:12", at(3, 12));
        check("19:30", NOW);
        check("19:30:01", NOW + 1000 - DAY_MS);
        check("23:59:59", MIDNIGHT - 1000);
        check_refused("24:00", "no such time of day");
        check_refused("12:60", "no such time of day");
        check_refused("1:2:3:4", "is no time");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(parse_moment("03:00", NOW, &zone), Ok(at(1, 0)));
        assert_eq!(parse_moment("22:00", NOW, &zone), Ok(at(20, 0) - DAY_MS));
        assert_eq!(parse_moment("2026-01-17", NOW, &zone), Ok(MIDNIGHT - 2 * 3_600_000));
    }

    #[test]
    fn days_at_the_edges_of_the_calendar_are_days() {
        check("2024-02-29", 1_709_164_800_000);
        check("1970-01-01", 0);
        check("1969-12-31", -DAY_MS);
        check("9999-12-31", 253_402_214_400_000);
        check("0001-01-01", -62_135_596_800_000);
    }

    #[test]
    fn what_is_no_time_is_refused_with_its_reason() {
        check_refused("2026-02-29", "there is no such day");
        check_refused("2026-13-01", "there is no such day");
        check_refused("yesterday", "is no time (use 30m");
        check_refused("", "is no time");
        check_refused("5x", "unknown unit 'x'");
        check_refused("5é", "unknown unit 'é'");
        check_refused("-5m", "is no time");
        check_refused("5", "is no time");
        check_refused("1.5h", "is no time");
        check_refused("99999999999999999999w", "too long");
        check_refused("9999999999w", "before the year 0");
        check_refused("2026-01-17T19:30:00", "lacks an offset");
        check_refused("2026-01-17T25:00:00Z", "is no time");
        check_refused("10000-01-01", "is no time");
        check_refused("2026-1-7", "is no time");
    }

    #[test]
    fn a_span_is_only_relative() {
        assert_eq!(parse_span("2d"), Ok(Duration::from_hours(48)));
        assert!(parse_span("2026-01-17").is_err());
        assert!(parse_span("d").is_err());
    }
}
