//! DNS messages (RFC 1035): which address was asked for, and where the answer's chain of aliases ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::name::{Label, ToLabelIter};
use domain::base::{self, Message, MessageBuilder, ParsedName, ParsedRecord, Ttl};
use domain::rdata::{A, Aaaa, Cname};

use super::host_name;

/// Records of an answer that are looked at.
const RECORDS_MAX: usize = 256;
/// Aliases on the way from the name to an address.
const CHAIN_MAX: usize = 16;
/// What is longer is no TTL (RFC 2181, section 8).
const TTL_MAX: Duration = Duration::from_secs(i32::MAX as u64);

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub id: u16,
    pub name: Arc<str>,
    pub family: Family,
}

/// Which kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// A
    V4,
    /// AAAA
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Asked(Question),
    /// Without addresses where there are none.
    Answered(Question, Vec<(IpAddr, Duration)>),
    /// Of no interest here: another type, class or operation.
    Other,
    /// No DNS, or a name that is no host name.
    Unread,
}

/// A question for the addresses of a name, as a message; `None` for what is no name.
pub fn question(id: u16, name: &str, family: Family) -> Option<Vec<u8>> {
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(id);
    message.header_mut().set_rd(true);
    let mut questions = message.question();
    let name: base::Name<Vec<u8>> = name.parse().ok()?;
    let kind = match family {
        Family::V4 => Rtype::A,
        Family::V6 => Rtype::AAAA,
    };
    questions.push((name, kind)).ok()?;
    Some(questions.finish())
}

pub fn read(bytes: &[u8]) -> Said {
    said(bytes).unwrap_or(Said::Unread)
}

fn said(bytes: &[u8]) -> Option<Said> {
    let message = Message::from_slice(bytes).ok()?;
    let header = message.header();
    if header.opcode() != Opcode::QUERY || message.header_counts().qdcount() != 1 {
        return Some(Said::Other);
    }
    let asked = message.sole_question().ok()?;
    let family = match asked.qtype() {
        Rtype::A => Family::V4,
        Rtype::AAAA => Family::V6,
        _ => return Some(Said::Other),
    };
    if asked.qclass() != Class::IN {
        return Some(Said::Other);
    }
    let name = host_name::from_labels(asked.qname().iter_labels().map(Label::as_slice))?;
    let question = Question { id: header.id(), name, family };
    if !header.qr() {
        return Some(Said::Asked(question));
    }
    if header.rcode() != Rcode::NOERROR {
        return Some(Said::Answered(question, Vec::new()));
    }
    let records = Records::read(message, family)?;
    Some(Said::Answered(question, records.follow(*asked.qname())))
}

type Name<'a> = ParsedName<&'a [u8]>;

#[derive(Default)]
struct Records<'a> {
    aliases: Vec<(Name<'a>, Name<'a>, Duration)>,
    addresses: Vec<(Name<'a>, IpAddr, Duration)>,
}

impl<'a> Records<'a> {
    /// `None` where the answer is malformed. One that was cut by its sender (TC) holds as far as it goes: some clients
    /// use it, and what it says was said.
    fn read(message: &'a Message<[u8]>, family: Family) -> Option<Self> {
        let cut = message.header().tc();
        let mut found = Self::default();
        for record in message.answer().ok()?.take(RECORDS_MAX) {
            let taken = record.ok().and_then(|record| found.take(&record, family));
            if taken.is_none() {
                return cut.then_some(found);
            }
        }
        Some(found)
    }

    fn take(&mut self, record: &ParsedRecord<'a, [u8]>, family: Family) -> Option<()> {
        if record.class() != Class::IN {
            return Some(());
        }
        let ttl = ttl(record.ttl());
        match (record.rtype(), family) {
            (Rtype::CNAME, _) => {
                let alias = record.to_record::<Cname<_>>().ok()??;
                self.aliases.push((record.owner(), alias.into_data().into_cname(), ttl));
            }
            (Rtype::A, Family::V4) => {
                let address = record.to_record::<A>().ok()??;
                self.addresses.push((record.owner(), address.data().addr().into(), ttl));
            }
            (Rtype::AAAA, Family::V6) => {
                let address = record.to_record::<Aaaa>().ok()??;
                self.addresses.push((record.owner(), address.data().addr().to_canonical(), ttl));
            }
            _ => {}
        }
        Some(())
    }

    /// The addresses at the end of the chain that begins at `name`; what is not on it is not believed.
    fn follow(&self, mut name: Name<'a>) -> Vec<(IpAddr, Duration)> {
        let mut smallest = TTL_MAX;
        for _ in 0..CHAIN_MAX {
            let Some((_, next, ttl)) = self.aliases.iter().find(|(owner, _, _)| *owner == name) else {
                break;
            };
            smallest = smallest.min(*ttl);
            name = *next;
        }
        let mut addresses: Vec<(IpAddr, Duration)> = Vec::new();
        for (owner, address, ttl) in &self.addresses {
            let usable = *owner == name && !address.is_unspecified();
            if usable && !addresses.iter().any(|(known, _)| known == address) {
                addresses.push((*address, smallest.min(*ttl)));
            }
        }
        addresses
    }
}

fn ttl(ttl: Ttl) -> Duration {
    let ttl = ttl.into_duration();
    if ttl > TTL_MAX { Duration::ZERO } else { ttl }
}

#[cfg(test)]
pub(super) mod tests {
    use domain::base::MessageBuilder;
    use domain::base::Name as WholeName;
    use domain::base::message_builder::AnswerBuilder;

    use super::*;

    /// A record of an answer, with its TTL.
    pub(in crate::rooms::names) enum Record<'a> {
        Alias(&'a str, &'a str, u32),
        Address(&'a str, IpAddr, u32),
    }

    fn name(text: &str) -> WholeName<Vec<u8>> {
        text.parse().expect("a name")
    }

    pub(in crate::rooms::names) fn question(id: u16, asked: &str) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec().question();
        builder.header_mut().set_id(id);
        builder.push((name(asked), Rtype::A)).expect("room");
        builder.into_message().into_octets()
    }

    /// To a question for A, or for AAAA where the records are.
    pub(in crate::rooms::names) fn answer(id: u16, asked: &str, records: &[Record<'_>]) -> Vec<u8> {
        build(id, asked, records).into_message().into_octets()
    }

    fn build(id: u16, asked: &str, records: &[Record<'_>]) -> AnswerBuilder<Vec<u8>> {
        let six = records.iter().any(|record| matches!(record, Record::Address(_, IpAddr::V6(_), _)));
        let mut builder = MessageBuilder::new_vec().question();
        builder.header_mut().set_id(id);
        builder.header_mut().set_qr(true);
        builder.push((name(asked), if six { Rtype::AAAA } else { Rtype::A })).expect("room");
        let mut builder = builder.answer();
        for record in records {
            let pushed = match record {
                Record::Alias(owner, target, ttl) => {
                    builder.push((name(owner), *ttl, Cname::new(name(target))))
                }
                Record::Address(owner, IpAddr::V4(ip), ttl) => builder.push((name(owner), *ttl, A::new(*ip))),
                Record::Address(owner, IpAddr::V6(ip), ttl) => {
                    builder.push((name(owner), *ttl, Aaaa::new(*ip)))
                }
            };
            pushed.expect("room");
        }
        builder
    }

    fn addresses(said: &Said) -> Vec<(String, u64)> {
        match said {
            Said::Answered(_, addresses) => {
                addresses.iter().map(|(ip, ttl)| (ip.to_string(), ttl.as_secs())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn known(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(ip, ttl)| ((*ip).to_owned(), *ttl)).collect()
    }

    #[test]
    fn a_chain_of_aliases_ends_at_its_addresses_with_the_smallest_ttl() {
        let said = read(&answer(
            1,
            "Www.Example.com",
            &[
                Record::Address("edge.cdn.example", ip("192.0.2.2"), 300),
                Record::Alias("www.example.com", "Cdn.example", 900),
                Record::Alias("cdn.example", "edge.cdn.example", 20),
                Record::Address("edge.cdn.EXAMPLE", ip("192.0.2.1"), 10),
                Record::Address("other.example", ip("192.0.2.66"), 300),
                Record::Address("cdn.example", ip("192.0.2.67"), 300),
            ],
        ));
        let Said::Answered(question, _) = &said else { panic!("{said:?}") };
        assert_eq!((&*question.name, question.id, question.family), ("www.example.com", 1, Family::V4));
        assert_eq!(
            addresses(&said),
            known(&[("192.0.2.2", 20), ("192.0.2.1", 10)]),
            "others are not on the chain"
        );
    }

    #[test]
    fn addresses_over_ipv6_are_read() {
        let records =
            [Record::Address("a.b", ip("2001:db8::1"), 5), Record::Address("a.b", ip("::ffff:192.0.2.1"), 5)];
        assert_eq!(
            addresses(&read(&answer(1, "a.b", &records))),
            known(&[("2001:db8::1", 5), ("192.0.2.1", 5)])
        );
    }

    #[test]
    fn a_circle_of_aliases_ends() {
        let records = [
            Record::Alias("a.b", "c.d", 1),
            Record::Alias("c.d", "a.b", 1),
            Record::Address("e.f", ip("192.0.2.1"), 1),
        ];
        assert_eq!(addresses(&read(&answer(1, "a.b", &records))), []);
    }

    #[test]
    fn failures_and_other_questions_name_nothing() {
        let mut failed = answer(1, "a.b", &[Record::Address("a.b", ip("192.0.2.1"), 5)]);
        failed[3] |= 3;
        assert_eq!(addresses(&read(&failed)), []);
        let blocked = answer(1, "a.b", &[Record::Address("a.b", ip("0.0.0.0"), 5)]);
        assert_eq!(addresses(&read(&blocked)), []);
        let mut builder = MessageBuilder::new_vec().question();
        builder.push((name("a.b"), Rtype::TXT)).expect("room");
        assert_eq!(read(&builder.into_message().into_octets()), Said::Other);
        let mut update = question(1, "a.b");
        update[2] |= 5 << 3;
        assert_eq!(read(&update), Said::Other);
    }

    #[test]
    fn a_cut_answer_holds_as_far_as_it_goes_and_a_broken_one_not_at_all() {
        let records =
            [Record::Address("a.b", ip("192.0.2.1"), 5), Record::Address("a.b", ip("192.0.2.2"), 5)];
        let mut builder = build(1, "a.b", &records);
        let whole = builder.as_slice().to_vec();
        assert_eq!(read(&whole[..whole.len() - 1]), Said::Unread);
        builder.header_mut().set_tc(true);
        let cut = builder.into_message().into_octets();
        assert_eq!(addresses(&read(&cut[..cut.len() - 1])), known(&[("192.0.2.1", 5)]));
    }

    #[test]
    fn names_that_read_like_others_are_not_taken() {
        let mut dotted = question(1, "axb.example");
        let at = dotted.windows(3).position(|bytes| bytes == b"axb").expect("there");
        dotted[at + 1] = b'.';
        assert_eq!(read(&dotted), Said::Unread);
        dotted[at + 1] = 0x1b;
        assert_eq!(read(&dotted), Said::Unread);
    }

    #[test]
    fn names_that_point_at_themselves_end() {
        let mut message = question(1, "a.b");
        let at = 12;
        message.truncate(at);
        message.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(read(&message), Said::Unread);
    }
}
