//! A history that somebody changed: bytes of a whole one are written over, and every command that reads asks it. Input
//! is a list of changes, five bytes and more each: where (3 bytes), how many bytes (1), what kind (1), the bytes.
#![no_main]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rano::internals::connection::Connection;
use rano::internals::event::{
    Address, ConnectionId, DomainSource, Event, EventKind, KnownName, Moment, Protocol, SourceKind,
};
use rano::internals::files::Rights;
use rano::internals::source::Role;
use rano::internals::store::query::verify::Question;
use rano::internals::store::{History, Session, Store, StoreOptions};
use rano::internals::update::Counters;

/// A whole history of some events, and where its copies go.
fn original() -> &'static (PathBuf, Vec<u8>) {
    static ORIGINAL: OnceLock<(PathBuf, Vec<u8>)> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("rano-fuzz-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("observer.sqlite");
        write(&path);
        let bytes = fs::read(&path).expect("it was written");
        (path, bytes)
    })
}

fn write(path: &Path) {
    let options = StoreOptions {
        path: path.to_owned(),
        rights: Rights::here(),
        batch_size: 10,
        flush_interval: Duration::from_secs(1),
        queue_max: 1000,
        retain: None,
        seal_key: None,
    };
    let session = Session {
        run_id: "1-1".to_owned(),
        name: Some("fuzz".to_owned()),
        started_at: 1,
        host: "box".to_owned(),
        user: "ann".to_owned(),
        args: Vec::new(),
        patterns: Vec::new(),
        excludes: Vec::new(),
        config_files: Vec::new(),
        source: SourceKind::Proc,
        source_reason: None,
    };
    let store = Store::start(&options, &session).expect("a new database");
    let address = |text: &str| Address::Ip(text.parse::<SocketAddr>().expect("an address"));
    for number in 1..=40 {
        let at = Moment { boot_ns: 0, unix_ms: 1000 };
        let connection = Connection {
            remote: Some(address("203.0.113.7:443")),
            local: Some(address("192.0.2.1:4000")),
            name: Some(KnownName { name: "api.example.com".into(), by: DomainSource::Dns }),
            ..Connection::new(ConnectionId(number), Role::Connect, Protocol::Tcp, at)
        };
        store.push(&Event { kind: EventKind::Connect, at, connection: connection.into() }.into());
    }
    assert_eq!(store.finish(Counters::default(), 2000).error, None);
}

fn change(file: &File, size: usize, mut input: &[u8]) {
    while let [a, b, c, count, kind, rest @ ..] = input {
        let at = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (bytes, after) = rest.split_at(rest.len().min(usize::from(*count)));
        match kind {
            0 => file.set_len((at % (2 * size)) as u64).expect("a length"),
            _ => file.write_all_at(bytes, (at % size) as u64).expect("room"),
        }
        input = after;
    }
}

fuzz_target!(|input: &[u8]| {
    let (path, bytes) = original();
    fs::write(path, bytes).expect("room");
    change(&File::options().write(true).open(path).expect("it is there"), bytes.len(), input);
    let before = fs::read(path).expect("it is there");
    let _ = History::ask(path, |history| history.verify(&Question::default()));
    let _ = History::ask(path, |history| history.sessions(10));
    let _ = History::ask(path, |history| history.session("1-1"));
    let _ = History::ask(path, History::last_event);
    // Whoever reads changes nothing, nor leaves anything beside it.
    assert_eq!(fs::read(path).expect("it is there"), before);
    for end in ["-wal", "-shm", "-journal"] {
        assert!(!path.with_extension(format!("sqlite{end}")).exists(), "{end}");
    }
});
