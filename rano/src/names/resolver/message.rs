//! The two questions of a reverse look-up, and what counts as their answer (RFC 1035).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::name::{Label, ToLabelIter as _};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Aaaa, Ptr};

use crate::names::host_name;

/// Addresses that are read of an answer.
const ADDRESSES_MAX: usize = 64;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    name: Name<Vec<u8>>,
    kind: Rtype,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Name {
        name: Arc<str>,
        lasts: Duration,
    },
    Addresses(Vec<IpAddr>),
    /// There is nothing of the kind.
    Nothing,
    /// Another server may know more.
    Refused,
}

impl Question {
    pub(super) fn name_of(address: IpAddr) -> Self {
        let name = Name::reverse_from_addr(address).expect("a vector takes any name");
        Self { name, kind: Rtype::PTR }
    }

    /// Those of the family of `like`.
    pub(super) fn addresses_of(name: &str, like: IpAddr) -> Self {
        let kind = if like.is_ipv4() { Rtype::A } else { Rtype::AAAA };
        // A host name has a wire form; the root has no addresses.
        Self { name: name.parse().unwrap_or_else(|_| Name::root_vec()), kind }
    }

    /// `None` where it cannot be written.
    pub(super) fn message(&self, number: u16) -> Option<Vec<u8>> {
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(number);
        message.header_mut().set_rd(true);
        let mut question = message.question();
        question.push((&self.name, self.kind)).ok()?;
        Some(question.finish())
    }

    /// `None` where the message is no answer to the question.
    pub(super) fn read(&self, message: &[u8]) -> Option<Answered> {
        let message = Message::from_octets(message).ok()?;
        let asked = message.sole_question().ok()?;
        let is_answer = message.header().qr()
            && *asked.qname() == self.name
            && asked.qtype() == self.kind
            && asked.qclass() == Class::IN;
        if !is_answer {
            return None;
        }
        match message.header().rcode() {
            Rcode::NOERROR => {}
            Rcode::NXDOMAIN => return Some(Answered::Nothing),
            _ => return Some(Answered::Refused),
        }
        let answer = message.answer().ok()?;
        // Behind an alias (RFC 2317) the owner is another name: the server has followed it.
        Some(match self.kind {
            Rtype::PTR => answer
                .limit_to::<Ptr<_>>()
                .flatten()
                .find_map(|record| {
                    let name =
                        host_name::from_labels(record.data().ptrdname().iter_labels().map(Label::as_slice))?;
                    Some(Answered::Name { name, lasts: record.ttl().into_duration() })
                })
                .unwrap_or(Answered::Nothing),
            Rtype::A => {
                let addresses = answer.limit_to::<A>().flatten().map(|record| record.data().addr().into());
                Answered::Addresses(addresses.take(ADDRESSES_MAX).collect())
            }
            _ => {
                let addresses = answer.limit_to::<Aaaa>().flatten().map(|record| record.data().addr().into());
                Answered::Addresses(addresses.take(ADDRESSES_MAX).collect())
            }
        })
    }
}

/// The number of a message.
pub(super) fn number(message: &[u8]) -> Option<u16> {
    message.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
