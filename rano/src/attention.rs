//! What deserves a look first: the same rules for the summary, a report and the page.

use crate::words::Class;

/// Failures that repeat: as many, and no connection.
pub const FAILS_MIN: u64 = 3;

/// A large upload, in bytes, to what is no model and not this machine.
pub const SENT_MIN: u64 = 10 << 20;

/// What is known of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    pub class: Class,
    /// No earlier session of the history has it; false if there is no earlier session.
    pub is_new: bool,
    /// An alert marked one of its connections.
    pub is_alerted: bool,
    pub connects: u64,
    pub fails: u64,
    pub bytes_sent: u64,
}

/// Why an endpoint deserves a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Alert,
    Sent,
    New,
    Unknown,
    Failing,
}

impl Cause {
    pub const ALL: [Self; 5] = [Self::Alert, Self::Sent, Self::New, Self::Unknown, Self::Failing];

    /// As JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Sent => "sent",
            Self::New => "new",
            Self::Unknown => "unknown",
            Self::Failing => "failing",
        }
    }

    /// As a person reads it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Sent => "large upload",
            Self::New => "never seen before",
            Self::Unknown => "unknown endpoint",
            Self::Failing => "never connected",
        }
    }
}

/// All that apply, in the order of [`Cause::ALL`]; most endpoints have none.
pub fn causes(facts: &Facts) -> Vec<Cause> {
    let is_here = matches!(facts.class, Class::Localhost | Class::Ipc);
    let applies = |cause: &Cause| match cause {
        Cause::Alert => facts.is_alerted,
        Cause::Sent => facts.bytes_sent >= SENT_MIN && facts.class != Class::LlmApi && !is_here,
        Cause::New => facts.is_new && !is_here,
        Cause::Unknown => facts.class == Class::Unknown && facts.connects > 0,
        Cause::Failing => facts.connects == 0 && facts.fails >= FAILS_MIN,
    };
    Cause::ALL.into_iter().filter(applies).collect()
}

/// For sorting, the gravest first: a large upload to what nobody knows, then alerts, then the rest; the same by bytes.
pub fn gravity(causes: &[Cause], facts: &Facts) -> (bool, bool, bool, usize, u64, u64) {
    let has = |cause| causes.contains(&cause);
    let is_strange = has(Cause::New) || has(Cause::Unknown);
    let is_large = has(Cause::Sent);
    (is_large && is_strange, has(Cause::Alert), is_large, causes.len(), facts.bytes_sent, facts.fails)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(facts: Facts, expected: &[Cause]) {
        assert_eq!(causes(&facts), expected, "{facts:?}");
    }

    #[test]
    fn a_cause_applies_from_its_bound_on() {
        let model = Facts { class: Class::LlmApi, connects: 5, bytes_sent: 1 << 40, ..Facts::default() };
        check(model, &[]);
        check(Facts { is_new: true, ..model }, &[Cause::New]);
        let host = Facts { class: Class::CodeHost, ..model };
        check(Facts { bytes_sent: SENT_MIN, ..host }, &[Cause::Sent]);
        check(Facts { bytes_sent: SENT_MIN - 1, ..host }, &[]);
        let nobody = Facts { connects: 1, ..Facts::default() };
        check(nobody, &[Cause::Unknown]);
        check(Facts { connects: 0, fails: FAILS_MIN, ..nobody }, &[Cause::Failing]);
        check(Facts { connects: 0, fails: FAILS_MIN - 1, ..nobody }, &[]);
        check(Facts { fails: FAILS_MIN, ..host }, &[Cause::Sent]);
        let here = Facts { class: Class::Localhost, is_new: true, ..model };
        check(here, &[]);
        check(Facts { is_alerted: true, ..here }, &[Cause::Alert]);
    }

    #[test]
    fn a_large_upload_to_nobody_knows_whom_comes_first() {
        let gravity = |facts: Facts| gravity(&causes(&facts), &facts);
        let unknown = Facts { connects: 1, ..Facts::default() };
        let large = Facts { bytes_sent: SENT_MIN, ..unknown };
        let alerted = Facts { is_alerted: true, ..unknown };
        let known = Facts { class: Class::Registry, bytes_sent: SENT_MIN * 9, connects: 1, ..unknown };
        assert!(gravity(large) > gravity(alerted));
        assert!(gravity(alerted) > gravity(known));
        assert!(gravity(known) > gravity(unknown));
    }
}
