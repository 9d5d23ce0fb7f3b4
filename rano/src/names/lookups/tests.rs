use std::time::Duration;

use super::*;
use crate::change::SocketId;
use crate::event::Moment;
use crate::names::Party;

const CLAUDE: ProcessId = ProcessId { pid: 42, start_time: 7 };
const USER: u32 = 1000;
const OTHER_USER: u32 = 2000;
const RESOLVER: u32 = 991;
const ADDRESS: [u8; 4] = [203, 0, 113, 7];

fn process(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: 1 }
}

/// A process of claude's tree.
fn kin(pid: u32) -> Receiver {
    Receiver { process: Some(process(pid)), root: Some(CLAUDE), uid: Some(USER) }
}

/// A process that nobody watches, of which the kernel tells no more.
fn stranger(uid: u32) -> Receiver {
    Receiver { process: None, root: None, uid: Some(uid) }
}

fn lookups() -> Lookups {
    Lookups::new(vec![RESOLVER], Vec::new())
}

fn answer(lookups: &mut Lookups, to: Receiver, ms: u64, name: &str, addresses: &[[u8; 4]]) {
    let at = Moment { boot_ns: ms * 1_000_000, unix_ms: 0 };
    let addresses = addresses.iter().map(|ip| (IpAddr::from(*ip), Duration::from_hours(1))).collect();
    let socket = Party::Socket(SocketId::Cookie { netns: 1, cookie: 1 });
    lookups.answered(&Answer { at, to: socket, uid: None, asked: name.into(), addresses }, to);
}

/// What a connection goes by, or all that it may go by.
fn connect(lookups: &mut Lookups, by: Receiver, ms: u64, address: [u8; 4]) -> String {
    let (address, at_ns) = (IpAddr::from(address), ms * 1_000_000);
    let found = lookups.connected(Connect { address, protocol: Protocol::Tcp, by, at_ns, exact: true });
    let others = found.others.iter().map(|other| format!("?{}", other.name));
    let hearsay = if found.is_hearsay { " hearsay" } else { "" };
    let name = found.name.iter().map(|known| format!("{}/{}{hearsay}", known.name, known.by.name()));
    name.chain(others).collect::<Vec<_>>().join(" ")
}

/// So many questions, each answered with 182 addresses that nobody else was given.
fn flood(lookups: &mut Lookups, to: Receiver, ms: u64, questions: u32) {
    for question in 0..questions {
        let address = |n: u32| (0x0b00_0000 + question * 182 + n).to_be_bytes();
        let addresses: Vec<_> = (0..182).map(address).collect();
        answer(lookups, to, ms, &format!("q{question}.flood.example"), &addresses);
    }
}

#[test]
fn a_strangers_answers_take_no_room_from_watched_trees() {
    let mut lookups = lookups();
    answer(&mut lookups, kin(1), 10, "old.example", &[ADDRESS]);
    flood(&mut lookups, stranger(OTHER_USER), 20, 200);
    assert_eq!(connect(&mut lookups, kin(1), 30, ADDRESS), "old.example/dns");
    answer(&mut lookups, kin(1), 40, "new.example", &[[203, 0, 113, 8]]);
    assert_eq!(connect(&mut lookups, kin(1), 50, [203, 0, 113, 8]), "new.example/dns");
    assert!(lookups.forgotten() > 20_000, "{}", lookups.forgotten());
}

#[test]
fn a_users_answers_take_no_room_from_a_resolvers() {
    let mut lookups = lookups();
    answer(&mut lookups, stranger(RESOLVER), 10, "shared.example", &[ADDRESS]);
    flood(&mut lookups, stranger(OTHER_USER), 20, 200);
    assert_eq!(connect(&mut lookups, kin(1), 30, ADDRESS), "shared.example/shared_dns");
}

#[test]
fn a_trees_answers_take_no_room_from_another_trees() {
    let mut lookups = lookups();
    let codex = Receiver { process: Some(process(9)), root: Some(process(9)), uid: Some(USER) };
    answer(&mut lookups, codex, 10, "codex.example", &[ADDRESS]);
    flood(&mut lookups, kin(1), 20, 200);
    assert_eq!(connect(&mut lookups, codex, 30, ADDRESS), "codex.example/dns");
}

#[test]
fn a_full_share_still_takes_what_is_new() {
    let mut lookups = lookups();
    flood(&mut lookups, kin(1), 20, 200);
    answer(&mut lookups, kin(1), 30, "new.example", &[ADDRESS]);
    let named = (0..1_000_u16).filter(|n| {
        let [high, low] = n.to_be_bytes();
        let address = [198, 51, high, low];
        answer(&mut lookups, kin(1), 40, "newer.example", &[address]);
        connect(&mut lookups, kin(1), 50, address) == "newer.example/dns"
    });
    // Some addresses share their mark with one that was forgotten: no name, not a wrong one.
    assert_eq!(named.count(), 0, "all marks are set, for as long as the flood's answers would have held");
    let later = 3_700_000;
    answer(&mut lookups, kin(1), later, "later.example", &[ADDRESS]);
    assert_eq!(connect(&mut lookups, kin(1), later + 10, ADDRESS), "later.example/dns");
}

#[test]
fn what_was_forgotten_makes_nothing_unambiguous() {
    let mut lookups = lookups();
    answer(&mut lookups, kin(1), 10, "first.example", &[ADDRESS]);
    flood(&mut lookups, kin(1), 20, 200);
    answer(&mut lookups, kin(1), 30, "second.example", &[ADDRESS]);
    assert_eq!(connect(&mut lookups, kin(1), 40, ADDRESS), "?second.example");
}

#[test]
fn what_many_processes_of_a_tree_looked_up_is_one_name() {
    let mut lookups = lookups();
    for pid in 100..200 {
        answer(&mut lookups, kin(pid), u64::from(pid), "api.example", &[ADDRESS]);
    }
    assert_eq!(connect(&mut lookups, kin(100), 300, ADDRESS), "api.example/dns");
    assert_eq!(lookups.forgotten(), 0);
    // Which of them it was is not kept: it may have been this one.
    answer(&mut lookups, kin(101), 310, "other.example", &[ADDRESS]);
    answer(&mut lookups, kin(100), 320, "api.example", &[ADDRESS]);
    assert_eq!(connect(&mut lookups, kin(101), 330, ADDRESS), "?api.example ?other.example");
}

#[test]
fn another_users_look_up_is_hearsay() {
    let check = |receiver, expected: &str| {
        let mut lookups = lookups();
        answer(&mut lookups, receiver, 10, "api.example", &[ADDRESS]);
        assert_eq!(connect(&mut lookups, kin(1), 20, ADDRESS), expected, "{receiver:?}");
    };
    check(stranger(USER), "api.example/shared_dns");
    check(stranger(0), "api.example/shared_dns");
    check(stranger(RESOLVER), "api.example/shared_dns");
    check(stranger(OTHER_USER), "api.example/shared_dns hearsay");
    check(Receiver::default(), "api.example/shared_dns hearsay");
}

#[test]
fn another_users_look_ups_make_a_resolvers_no_less_certain() {
    let mut lookups = lookups();
    answer(&mut lookups, stranger(RESOLVER), 10, "api.example", &[ADDRESS]);
    for n in 0..100 {
        answer(&mut lookups, stranger(OTHER_USER), 11, &format!("n{n}.example"), &[ADDRESS]);
    }
    let named = connect(&mut lookups, kin(1), 20, ADDRESS);
    assert!(named.starts_with("api.example/shared_dns ?"), "{named}");
}

#[test]
fn a_name_that_somebody_waits_for_goes_last() {
    let mut lookups = Lookups::new(Vec::new(), vec!["*.bad.example".into()]);
    answer(&mut lookups, kin(1), 10, "evil.bad.example", &[ADDRESS]);
    for n in 0..100 {
        answer(&mut lookups, kin(1), 11, &format!("n{n}.example"), &[ADDRESS]);
    }
    flood(&mut lookups, kin(1), 20, 200);
    answer(&mut lookups, kin(1), 30, "innocent.example", &[ADDRESS]);
    let named = connect(&mut lookups, kin(1), 40, ADDRESS);
    assert!(named.contains("?evil.bad.example") && named.contains("?innocent.example"), "{named}");
}

#[test]
fn nothing_grows_without_bounds() {
    let mut lookups = lookups();
    for round in 0..3 {
        for tree in 0..20 {
            let root = Some(process(tree));
            let receiver = Receiver { process: root, root, uid: Some(USER) };
            flood(&mut lookups, receiver, 10 + round, 10);
            flood(&mut lookups, stranger(tree), 10 + round, 10);
        }
    }
    let (watched, others, order) = lookups.ledger.sizes();
    assert!(watched <= 1 << 14 && others <= 1 << 13, "{watched} {others}");
    assert!(order <= 2 * (watched + others) + 64 * 40, "{order}");
}
