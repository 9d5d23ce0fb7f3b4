use domain::base::{MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Ptr};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An answer with the records that `with` adds.
fn answer(question: &Question, kind: Rtype, records: &[(&str, &str)]) -> Vec<u8> {
    let asked = domain::base::Message::from_octets(question.message(7).unwrap()).unwrap();
    let name: Name<Vec<u8>> = domain::base::name::ToName::to_name(asked.sole_question().unwrap().qname());
    let mut message = MessageBuilder::new_vec();
    message.header_mut().set_id(7);
    message.header_mut().set_qr(true);
    let mut message = message.question();
    message.push((&name, kind)).unwrap();
    let mut message = message.answer();
    for (kind, data) in records {
        let ttl = Ttl::from_secs(300);
        match *kind {
            "PTR" => message.push((&name, ttl, Ptr::new(data.parse::<Name<Vec<u8>>>().unwrap()))).unwrap(),
            _ => message.push((&name, ttl, data.parse::<A>().unwrap())).unwrap(),
        }
    }
    message.finish()
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let question = Question::name_of(address("203.0.113.7"));
    let name = |message: &[u8]| match question.read(message) {
        Some(Answered::Name { name, lasts }) => {
            assert_eq!(lasts, Duration::from_mins(5));
            Some(name.to_string())
        }
        _ => None,
    };
    let good = answer(&question, Rtype::PTR, &[("PTR", "Host.Example.")]);
    assert_eq!(name(&good).as_deref(), Some("host.example"));
    for length in 0..good.len() {
        let _ = question.read(&good[..length]);
    }
    let other = Question::name_of(address("203.0.113.8"));
    assert_eq!(question.read(&answer(&other, Rtype::PTR, &[("PTR", "host.example.")])), None);
    assert_eq!(question.read(&question.message(7).unwrap()), None, "a question is no answer");
    let hostile = answer(&question, Rtype::PTR, &[("PTR", r"a\027[31mb.example."), ("PTR", "fine.example.")]);
    assert_eq!(name(&hostile).as_deref(), Some("fine.example"));
    assert_eq!(question.read(&answer(&question, Rtype::PTR, &[])), Some(Answered::Nothing));
}

struct Setting {
    _directory: tempfile::TempDir,
    resolver: Resolver,
}

fn resolver(resolv_conf: &str, hosts: &str) -> Setting {
    let directory = tempfile::tempdir().unwrap();
    let files = ResolverFiles {
        resolv_conf: directory.path().join("resolv.conf"),
        hosts: directory.path().join("hosts"),
    };
    std::fs::write(&files.resolv_conf, resolv_conf).unwrap();
    std::fs::write(&files.hosts, hosts).unwrap();
    Setting { _directory: directory, resolver: Resolver::new(files).unwrap() }
}

fn wait_for(resolver: &Resolver, count: usize) -> Vec<Pointer> {
    let deadline = Instant::now() + PATIENCE;
    let mut pointers = Vec::new();
    while pointers.len() < count {
        assert!(Instant::now() < deadline, "{pointers:?}");
        pointers.extend(resolver.take(Moment::default()));
        thread::sleep(Duration::from_millis(2));
    }
    pointers
}

#[test]
fn the_hosts_file_is_asked_first_and_for_private_addresses_alone() {
    let setting = resolver("nameserver 127.0.0.9\n", "10.0.0.1 gate.example\n");
    assert!(
        setting.resolver.ask(address("10.0.0.1"), true) && setting.resolver.ask(address("10.0.0.2"), true)
    );
    let mut pointers = wait_for(&setting.resolver, 2);
    pointers.sort_by_key(|pointer| pointer.address);
    assert_eq!(pointers[0].name.as_deref(), Some("gate.example"));
    assert!(pointers[0].confirmed && pointers[1].name.is_none());
}

#[test]
fn a_server_that_never_answers_costs_patience_and_no_more() {
    // Nothing listens there: a port of our own that nobody reads.
    let setting = resolver("nameserver 127.0.0.1\n", "");
    let begin = Instant::now();
    for last in 0..100 {
        assert!(setting.resolver.ask(IpAddr::from([203, 0, 113, last]), false));
    }
    let asked = begin.elapsed();
    let pointers = wait_for(&setting.resolver, 100);
    assert!(pointers.iter().all(|pointer| pointer.name.is_none()));
    assert!(asked < Duration::from_millis(500), "asking took {asked:?}");
    assert!(begin.elapsed() < PATIENCE);
}

#[test]
fn questions_too_many_are_refused() {
    let setting = resolver("nameserver 127.0.0.1\n", "");
    let asked = (0..200_000_u32)
        .filter(|number| setting.resolver.ask(IpAddr::from((0xcb00_7100_u32 + number).to_be_bytes()), false));
    assert!(asked.count() < 200_000);
}
