//! Files that somebody made so that reading or writing them does something else.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;
use crate::store::defence::{expected, fingerprint};
use crate::store::open::open;
use crate::store::query::export::{Cell, FIELDS, Field, Filter, RowWriter};
use crate::store::query::report::{Selection, Sessions};
use crate::store::{History, OpenProblem, schema};

const ENDLESS: &str = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";

/// A history of two events that `sql` was run on, with the writing of the schema allowed.
fn spoilt(directory: &Path, sql: &str) -> PathBuf {
    let path = directory.join("observer.sqlite");
    write(&path, &[event(EventKind::Connect, 1), close(1, 10, 20)]);
    let connection = Connection::open(&path).expect("a database");
    connection
        .execute_batch(&format!("PRAGMA writable_schema = on; PRAGMA foreign_keys = off; {sql}"))
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    path
}

fn with_spoilt(sql: &str, check: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a directory");
    check(&spoilt(directory.path(), sql));
}

struct Nowhere;

impl RowWriter for Nowhere {
    fn cell(&mut self, _: &Field, _: Cell<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn end_row(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every question there is, as far as the file answers.
fn ask_everything(path: &Path) -> Result<(), OpenProblem> {
    let ask = |query: &dyn Fn(&History) -> rusqlite::Result<()>| {
        History::ask(path, query).map_err(|error| error.problem)
    };
    ask(&|history| history.status(None).map(drop))?;
    for sessions in [Sessions::Latest, Sessions::All] {
        let selection = Selection { sessions, since: Some(NOON - 5), until: Some(NOON + 5), filter: None };
        ask(&|history| history.report(&selection, 10).map(drop))?;
    }
    ask(&|history| history.snapshot("nightly", None).map(drop))?;
    ask(&|history| {
        let fields: Vec<&Field> = FIELDS.iter().collect();
        let exported = history.export(&Filter::default(), &fields, &mut Nowhere, |_| ());
        assert!(exported.is_ok(), "{exported:?}");
        Ok(())
    })
}

fn files(path: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(path.parent().expect("a directory")).expect("a directory");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a file")))
        .collect();
    files.sort();
    files
}

/// Neither is it written to nor is it read, and it stays as it is.
fn check_refused(path: &Path, expected: &OpenProblem) {
    let before = files(path);
    let begin = Instant::now();
    assert_eq!(&ask_everything(path).expect_err("to be refused"), expected);
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    assert!(files(path) == before, "a reader changed something");
    let error = Store::start(&patient(path), &session()).expect_err("to be refused");
    assert_eq!(&error.problem, expected);
    assert!(!error.hint().is_empty() && !error.to_string().contains('\n'), "{error}");
}

/// Both go on.
fn check_taken(path: &Path) {
    ask_everything(path).expect("to be read");
    let session = Session { run_id: "78-1".to_owned(), ..session() };
    let store = Store::start(&patient(path), &session).expect("to be taken");
    store.push(&event(EventKind::Connect, 2).into());
    store.push(&close(2, 30, 40).into());
    assert_stored(&store.finish(Counters::default(), NOON), 2);
    ask_everything(path).expect("to be read");
    let count = "SELECT count(*) FROM event";
    assert_eq!(one::<i64>(path, count), 4);
}

#[test]
fn a_view_in_place_of_a_table_is_never_run() {
    for table in schema::TABLES {
        let sql = format!("DROP TABLE {table}; CREATE VIEW {table} AS {ENDLESS}");
        with_spoilt(&sql, |path| check_refused(path, &OpenProblem::Altered(table.to_owned())));
    }
}

#[test]
fn views_of_the_file_are_never_run() {
    let views = ["events", "sessions", "provider_counts", "session_summary", "session_traffic"];
    let replaced = views.map(|view| format!("DROP VIEW {view}; CREATE VIEW {view} AS {ENDLESS};"));
    with_spoilt(&replaced.concat(), |path| {
        ask_everything(path).expect("to be read");
        let store = Store::start(&patient(path), &Session { run_id: "78-1".to_owned(), ..session() });
        assert_stored(&store.expect("to be taken").finish(Counters::default(), NOON), 0);
    });
}

#[test]
fn triggers_do_not_run_and_are_told() {
    let sql = format!(
        "CREATE TRIGGER vanish AFTER INSERT ON event BEGIN DELETE FROM event; DELETE FROM session; END;
         CREATE TRIGGER hang AFTER UPDATE ON session BEGIN INSERT INTO kind SELECT x, x FROM ({ENDLESS}); END;
         CREATE TRIGGER shout BEFORE INSERT ON session BEGIN SELECT raise(ABORT, 'loud'); END;"
    );
    with_spoilt(&sql, |path| {
        check_taken(path);
        let session = Session { run_id: "79-1".to_owned(), ..session() };
        let store = Store::start(&patient(path), &session).expect("to be taken");
        let finished = store.finish(Counters::default(), NOON);
        assert!(finished.warnings.iter().any(|line| line.contains("3 trigger(s)")), "{finished:?}");
    });
}

#[test]
fn tables_that_compute_are_refused() {
    for (table, sql) in [
        (
            "address",
            "DROP TABLE address; CREATE TABLE address (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE, \
                     more AS (abs(id)))",
        ),
        (
            "kind",
            "DROP TABLE kind; CREATE TABLE kind (id INTEGER PRIMARY KEY, event TEXT CHECK (length(event) > 0))",
        ),
        ("pruning", "DROP TABLE pruning; CREATE VIRTUAL TABLE pruning USING fts5 (session, next_event)"),
        ("actor", "ALTER TABLE actor ADD COLUMN more DEFAULT 1"),
        ("event", "ALTER TABLE event RENAME COLUMN ts TO tz"),
        ("kind", "DROP INDEX kind_identity"),
        ("kind", "DROP INDEX kind_identity; CREATE INDEX kind_identity ON kind (event)"),
    ] {
        // Views that lean on a column would not let it go.
        let views = [
            "events",
            "connection_events",
            "session_traffic",
            "provider_domains",
            "provider_ips",
            "provider_last_hour",
        ];
        let drop = views.map(|view| format!("DROP VIEW {view};")).concat();
        with_spoilt(&format!("{drop}{sql}"), |path| {
            check_refused(path, &OpenProblem::Altered(table.to_owned()));
        });
    }
}

#[test]
fn an_index_of_the_users_own_is_taken_if_it_lists_columns() {
    let sql = "CREATE INDEX by_time ON event (ts, process DESC); CREATE INDEX by_name ON endpoint (domain COLLATE NOCASE);
               CREATE TABLE notes (text); CREATE VIEW busy AS SELECT count(*) FROM events; ANALYZE";
    with_spoilt(sql, check_taken);
    for sql in [
        "CREATE INDEX odd ON event (instr(ts, process))",
        "CREATE INDEX odd ON event (ts) WHERE kind > 1",
        "CREATE UNIQUE INDEX odd ON event (ts, id)",
    ] {
        with_spoilt(sql, |path| {
            ask_everything(path).expect("a reader keeps no index");
            let error = Store::start(&patient(path), &session()).expect_err("to be refused");
            assert_eq!(error.problem, OpenProblem::Index("odd".to_owned()));
        });
    }
}

#[test]
fn a_table_that_has_the_name_of_what_sqlite_answers_is_not_asked() {
    let sql = "CREATE TABLE pragma_user_version (user_version); INSERT INTO pragma_user_version VALUES (0);
               CREATE TABLE pragma_index_list (x)";
    with_spoilt(sql, |path| {
        let problem = ask_everything(path).expect_err("to be refused");
        assert!(
            matches!(&problem, OpenProblem::Other(words) if words.contains("pragma_user_version")),
            "{problem:?}"
        );
    });
}

/// A page of a table's tree whose children are all the same page, down to the last level: 400^n rows in n pages.
#[test]
fn rows_without_end_are_not_counted_to_the_end() {
    const PAGE: usize = 4096;
    const CELLS: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let path = spoilt(directory.path(), "SELECT 1");
    let root: usize =
        usize::try_from(one::<i64>(&path, "SELECT rootpage FROM sqlite_schema WHERE name = 'session'"))
            .expect("a page");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a file");
    let pages = usize::try_from(file.metadata().expect("a file").len()).expect("small") / PAGE;
    let mut leaf = vec![0; PAGE];
    file.read_exact_at(&mut leaf, ((root - 1) * PAGE) as u64).expect("a page");
    let levels = 6;
    // sqlite.org/fileformat.html#b_tree_pages: an interior page of a table, its cells a child and a key each.
    let interior = |child: usize| {
        let child = u32::try_from(child).expect("small").to_be_bytes();
        let mut page = vec![0; PAGE];
        let content = PAGE - CELLS * 5;
        page[0] = 5;
        page[3..5].copy_from_slice(&u16::try_from(CELLS).expect("few").to_be_bytes());
        page[5..7].copy_from_slice(&u16::try_from(content).expect("small").to_be_bytes());
        page[8..12].copy_from_slice(&child);
        for cell in 0..CELLS {
            let at = content + cell * 5;
            page[12 + cell * 2..14 + cell * 2]
                .copy_from_slice(&u16::try_from(at).expect("small").to_be_bytes());
            page[at..at + 4].copy_from_slice(&child);
            page[at + 4] = 1;
        }
        page
    };
    let at = |page: usize| ((page - 1) * PAGE) as u64;
    file.write_all_at(&interior(pages + 1), at(root)).expect("written");
    for level in 1..levels {
        file.write_all_at(&interior(pages + level + 1), at(pages + level)).expect("written");
    }
    file.write_all_at(&leaf, at(pages + levels)).expect("written");
    let all = u32::try_from(pages + levels).expect("small").to_be_bytes();
    file.write_all_at(&all, 28).expect("written");
    drop(file);
    let begin = Instant::now();
    assert_eq!(ask_everything(&path).expect_err("to end"), OpenProblem::Endless);
    println!("ended after {:?}", begin.elapsed());
}

#[test]
fn a_log_of_nonsense_is_told_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = spoilt(directory.path(), "SELECT 1");
    for content in
        [vec![7_u8; 8192], b"not a log at all".to_vec(), [vec![0x37, 0x7f, 6, 0x82], vec![0; 4000]].concat()]
    {
        for index in [None, Some(vec![0; 32_768]), Some(vec![9; 32_768])] {
            fs::write(format!("{}-wal", path.display()), &content).expect("written");
            match &index {
                Some(index) => fs::write(format!("{}-shm", path.display()), index).expect("written"),
                None => drop(fs::remove_file(format!("{}-shm", path.display()))),
            }
            let before = files(&path);
            let begin = Instant::now();
            assert_eq!(ask_everything(&path).expect_err("to be told"), OpenProblem::LogDamaged);
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
            assert!(files(&path) == before);
        }
    }
    // Without it the file says what it holds.
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", path.display())).expect("removed");
    }
    check_taken(&path);
}

#[test]
fn whatever_the_index_holds_a_reader_ends_soon() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("observer.sqlite");
    let store = Store::start(&patient(&path), &session()).expect("a new database");
    store.push(&event(EventKind::Connect, 1).into());
    drop(store);
    // Left as after a crash.
    let crashed = directory.path().join("crashed");
    fs::create_dir(&crashed).expect("a directory");
    let store = Store::start(&patient(&path), &Session { run_id: "2-2".to_owned(), ..session() })
        .expect("a database");
    for suffix in ["", "-wal"] {
        let name = format!("observer.sqlite{suffix}");
        fs::copy(directory.path().join(&name), crashed.join(&name)).expect("a copy");
    }
    drop(store);
    let path = crashed.join("observer.sqlite");
    for byte in [0, 1, 0x7f, 0xff] {
        fs::write(crashed.join("observer.sqlite-shm"), vec![byte; 32_768]).expect("written");
        let begin = Instant::now();
        ask_everything(&path).expect("an index that nobody holds is not believed");
        assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
    }
}

#[test]
fn a_reader_whose_file_is_cut_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = spoilt(directory.path(), "SELECT 1");
    let error = History::ask(&path, |history| {
        let file = fs::OpenOptions::new().write(true).open(&path).expect("a file");
        file.set_len(8192).expect("a shorter file");
        history.latest_session()
    });
    assert_eq!(error.expect_err("to be told").problem, OpenProblem::Cut);
}

#[test]
fn text_of_the_files_own_is_one_line_of_an_error() {
    let sql = "UPDATE sqlite_schema SET sql = 'CREATE VIEW x AS' || char(27) || '[2J' || char(10) WHERE name = 'events'";
    with_spoilt(sql, |path| {
        let error = open(path).expect_err("to be refused");
        assert_eq!(error.problem, OpenProblem::Damaged);
        assert!(!error.to_string().contains('\x1b'));
    });
}

#[test]
fn whatever_runs_ends_when_it_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = open(&directory.path().join("observer.sqlite")).expect("a new database");
    opened.budget.grant(u64::MAX);
    let budget = opened.budget.clone();
    let stop = thread::spawn(move || budget.stop());
    let endless = opened.connection.query_row(&format!("SELECT count(*) FROM ({ENDLESS})"), [], |_| Ok(()));
    stop.join().expect("a thread");
    assert_eq!(OpenProblem::from(endless.expect_err("to be ended")), OpenProblem::Endless);
    // What begins later, too.
    let later = opened.connection.query_row(&format!("SELECT count(*) FROM ({ENDLESS})"), [], |_| Ok(()));
    assert!(later.is_err());
}

#[test]
fn the_fingerprint_is_that_of_the_migrations() {
    let mut objects = expected(schema::VERSION).expect("the migrations");
    assert_eq!(
        fingerprint(&mut objects),
        schema::FINGERPRINT,
        "schema.rs: this is what FINGERPRINT has to be"
    );
    let connection = Connection::open_in_memory().expect("a database");
    schema::build(&connection, schema::VERSION).expect("the migrations");
    let sql =
        "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name)";
    let mut tables = schema::TABLES;
    tables.sort_unstable();
    assert_eq!(
        connection.query_row(sql, [], |row| row.get::<_, String>(0)).expect("names"),
        tables.join(",")
    );
}
