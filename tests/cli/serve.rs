//! `rano serve`: who is let in, and that the answers are those of the history.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rano::internals::event::Class;
use serde_json::Value;

use crate::support::history::{Connection, End, History, START, every};
use crate::support::web::Site;

crate::tests![
    one_line_says_where_and_a_token_opens,
    without_the_token_nothing_is_told,
    names_that_are_not_its_own_are_refused,
    it_only_reads_and_only_its_own_paths,
    a_unix_socket_is_its_owners,
    a_token_file_is_made_once_and_kept,
    the_snapshot_is_the_report,
    every_way_of_the_map_is_in_the_sums,
    a_range_counts_what_is_in_it,
    connections_are_put_together,
    filters_are_those_of_the_language,
    two_sessions_are_compared,
    metrics_have_no_names_in_them,
    the_described_api_is_the_one_there_is,
    nothing_to_show_is_said_at_once,
    a_page_is_small,
    a_report_is_one_file,
];

pub const ROUTES: [&str; 7] = [
    "/api/sessions",
    "/api/snapshot",
    "/api/graph",
    "/api/connections",
    "/api/events",
    "/api/stream",
    "/metrics",
];

fn hostile() -> String {
    "<img src=x onerror=alert(1)>\u{202e}\x1b[2J".to_owned()
}

/// Two sessions with several classes, failures, and names that are markup.
pub fn history() -> Result<History> {
    let history = History::new()?;
    let claude = Connection { class: Class::LlmApi, ..Connection::default() };
    let codex = Connection {
        provider: "openai",
        comm: "codex".into(),
        domain: Some("api.openai.com".into()),
        ip: "2001:db8::1",
        ..claude.clone()
    };
    let evil = Connection {
        comm: hostile(),
        domain: Some("</script>.example".into()),
        ip: "198.51.100.9",
        class: Class::Unknown,
        ..claude.clone()
    };
    let refused =
        Connection { fails: true, domain: None, ip: "192.0.2.1", class: Class::Unknown, ..claude.clone() };
    history.write("first", START, &every(40, START, 7 * 60_000, &claude), End::Clean)?;
    let begin = START + 10 * 3_600_000;
    let mut second = every(30, begin, 11 * 60_000, &codex);
    second.extend(every(4, begin + 1000, 1000, &evil));
    second.extend(every(5, begin + 2000, 60_000, &refused));
    history.write("second", begin, &second, End::Clean)?;
    Ok(history)
}

pub fn site(history: &History) -> Result<Site> {
    Site::start(history.launch_beside(&["serve", "--read-only"])?)
}

fn number(json: &Value, pointer: &str) -> Result<u64> {
    json.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number at {pointer}: {json}"))
}

pub fn list<'a>(json: &'a Value, pointer: &str) -> Result<&'a Vec<Value>> {
    json.pointer(pointer).and_then(Value::as_array).with_context(|| format!("no list at {pointer}: {json}"))
}

fn one_line_says_where_and_a_token_opens() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    ensure!(site.address()?.ip().is_loopback() && site.token.len() == 64, "{:?} {}", site.place, site.token);
    let page = site.send(&site.head("/", ""))?;
    ensure!(
        page.code == 200 && page.body.contains("/app.js") && !page.body.contains(&site.token),
        "{page:?}"
    );
    let policy = page.headers.get("content-security-policy").context("no policy")?;
    ensure!(policy.starts_with("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
    for path in ROUTES.iter().filter(|path| !path.ends_with("stream")) {
        ensure!(site.get(path)?.code == 200, "{path}");
    }
    let sessions = site.json("/api/sessions")?;
    ensure!(list(&sessions, "/sessions")?.len() == 2, "{sessions}");
    let finished = site.rano.interrupt()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.lines().count() == 1, "{}", finished.stdout);
    Ok(())
}

fn without_the_token_nothing_is_told() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let (first, rest) = site.token.split_at(63);
    let almost = format!("{first}{}", if rest == "0" { "1" } else { "0" });
    for path in ROUTES.iter().chain(&["/api/diff", "/api/nothing", "/anything", "/api/"]) {
        for headers in [
            String::new(),
            "Authorization: Bearer \r\n".to_owned(),
            format!("Authorization: Bearer {almost}\r\n"),
            format!("Authorization: Bearer {}0\r\n", site.token),
            format!("Authorization: Basic {}\r\n", site.token),
            format!("Cookie: token={}\r\n", site.token),
        ] {
            let answer = site.send(&site.head(path, &headers))?;
            ensure!(answer.code == 401, "{path} {headers}: {answer:?}");
            ensure!(!answer.body.contains("friday") && !answer.body.contains("anthropic"), "{answer:?}");
        }
        let in_address = format!("{path}?token={}", site.token);
        ensure!(site.send(&site.head(&in_address, ""))?.code == 401, "{path}");
    }
    Ok(())
}

fn names_that_are_not_its_own_are_refused() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let port = site.address()?.port();
    let ask = |headers: &str| -> Result<u16> {
        let head =
            format!("GET /api/sessions HTTP/1.1\r\nConnection: close\r\n{}{headers}\r\n", site.bearer());
        Ok(site.send(&head)?.code)
    };
    for (headers, code) in [
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        (format!("Host: localhost:{port}\r\n"), 200),
        (format!("Host: evil.example:{port}\r\n"), 403),
        (format!("Host: 127.0.0.1.evil.example:{port}\r\n"), 403),
        ("Host: 127.0.0.1\r\n".to_owned(), 403),
        (format!("Host: 127.0.0.1:{}\r\n", port.wrapping_add(1)), 403),
        (String::new(), 400),
        (format!("Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n"), 400),
        (format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"), 200),
        (format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:1\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}\r\nOrigin: https://127.0.0.1:{port}\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}\r\nOrigin: null\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}\r\nOrigin: http://evil.example\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}\r\nSec-Fetch-Site: cross-site\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}\r\nSec-Fetch-Site: same-site\r\n"), 403),
        (format!("Host: 127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n"), 200),
    ] {
        let found = ask(&headers)?;
        ensure!(found == code, "{headers}: {found}, expected {code}");
    }
    Ok(())
}

fn it_only_reads_and_only_its_own_paths() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let head = site.head("/api/sessions", &site.bearer()).replacen("GET", method, 1);
        ensure!(site.send(&head)?.code == 405, "{method}");
    }
    for path in [
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/app.js/../../etc/passwd",
        "/app.js%00",
        "/observer.sqlite",
        "/api/../observer.sqlite",
        "/static/../Cargo.toml",
    ] {
        let answer = site.get(path)?;
        ensure!(answer.code == 404 || answer.code == 400, "{path}: {answer:?}");
        ensure!(!answer.body.contains("root:") && !answer.body.contains("SQLite"), "{path}: {answer:?}");
    }
    for (query, code) in [
        ("?run=nobody", 404),
        ("?filter=domian:x", 400),
        ("?since=yesterday", 400),
        ("?since=1h&until=2h", 400),
        ("?unknown=1", 400),
        ("?after=x", 400),
        ("?run='%20OR%201=1--", 404),
    ] {
        for path in ["/api/snapshot", "/api/graph", "/api/connections", "/api/events", "/api/stream"] {
            let answer = site.get(&format!("{path}{query}"))?;
            ensure!(answer.code == code, "{path}{query}: {answer:?}");
            ensure!(answer.body.contains("\"error\""), "{answer:?}");
        }
    }
    Ok(())
}

fn a_unix_socket_is_its_owners() -> Result<()> {
    let history = history()?;
    let socket = history.directory().join("page.sock");
    let listen = format!("unix:{}", socket.display());
    let rano = history.launch(&["serve", "--read-only", "--listen", &listen])?.start()?;
    let line = rano.stdout.wait_for("an address", |line| line.starts_with("unix:"))?;
    let metadata = fs::symlink_metadata(&socket)?;
    ensure!(
        metadata.file_type().is_socket() && metadata.permissions().mode() & 0o777 == 0o600,
        "{metadata:?}"
    );
    ensure!(metadata.uid() == history.place.ids().0, "{}", metadata.uid());
    let token = line.split_once("#token=").context("no token")?.1;
    let ask = |headers: &str| -> Result<String> {
        let mut stream = UnixStream::connect(&socket)?;
        write!(stream, "GET /api/sessions HTTP/1.1\r\nHost: rano\r\nConnection: close\r\n{headers}\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ensure!(ask("")?.contains(" 401 "));
    ensure!(ask(&format!("Authorization: Bearer {token}\r\n"))?.contains(" 200 "));
    // A second one does not take the place of one that answers.
    let second = history.launch(&["serve", "--read-only", "--listen", &listen])?.run()?;
    second.expect_code(3)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(!socket.exists(), "the socket is left over");
    Ok(())
}

fn a_token_file_is_made_once_and_kept() -> Result<()> {
    let history = history()?;
    let arguments = ["serve", "--read-only", "--token-file", "token"];
    let first = Site::start(history.launch_beside(&arguments)?)?;
    let file = history.directory().join("token");
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    ensure!(fs::read_to_string(&file)?.trim() == first.token);
    let token = first.token.clone();
    first.rano.interrupt()?.expect_code(0)?;
    let second = Site::start(history.launch_beside(&arguments)?)?;
    ensure!(second.token == token);
    second.rano.interrupt()?.expect_code(0)?;
    fs::write(&file, "short\n")?;
    let refused = history.launch(&arguments)?.run()?;
    refused.expect_code(2)?;
    ensure!(refused.stderr.contains("no token in token"), "{}", refused.stderr);
    Ok(())
}

fn the_snapshot_is_the_report() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    for (query, arguments) in [
        ("", vec![]),
        ("?run=first", vec!["--run-id", "first"]),
        ("?filter=domain:api.openai.com", vec!["--filter", "domain:api.openai.com"]),
        (
            "?run=first&since=2026-01-17T20:01:30Z&until=2026-01-17T21:00:00Z",
            vec!["--run-id", "first", "--since", "2026-01-17T20:01:30Z", "--until", "2026-01-17T21:00:00Z"],
        ),
    ] {
        let page = site.json(&format!("/api/snapshot{query}"))?;
        let report = history.json(&[&["report", "--json", "--top", "20"], arguments.as_slice()].concat())?;
        let fields = page["report"].as_object().context("an object")?;
        ensure!(fields.len() > 10, "{page}");
        for (name, value) in fields {
            ensure!(*value == report[name], "{query} {name}:\n{value}\n{}", report[name]);
        }
    }
    Ok(())
}

fn every_way_of_the_map_is_in_the_sums() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    for query in [
        "?run=first",
        "?run=second",
        "?run=second&filter=process:codex",
        "?run=second&filter=-ip:192.0.2.0/24",
    ] {
        let snapshot = site.json(&format!("/api/snapshot{query}"))?;
        for limit in ["", "&limit=1"] {
            let graph = site.json(&format!("/api/graph{query}{limit}"))?;
            let rows = list(&graph, "/paths")?.iter().chain(list(&graph, "/others")?);
            let sum = |field: &str| rows.clone().filter_map(|row| row[field].as_u64()).sum::<u64>();
            for field in ["connects", "closes", "fails", "bytes_sent", "bytes_recv"] {
                let providers = list(&snapshot, "/report/providers")?.iter();
                let whole: u64 = providers.filter_map(|row| row[field].as_u64()).sum();
                ensure!(sum(field) == whole, "{query}{limit} {field}: {} of {whole}", sum(field));
            }
        }
        let strip = &snapshot["timeline"]["classes"];
        let drawn: u64 = strip
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(_, parts)| parts["connects"].as_array().into_iter().flatten())
            .filter_map(Value::as_u64)
            .sum();
        let began =
            number(&snapshot, "/report/summary/connects")? + number(&snapshot, "/report/summary/fails")?;
        ensure!(drawn == began, "{query}: {drawn} of {began}");
    }
    Ok(())
}

fn a_range_counts_what_is_in_it() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    // Hours in the middle come from sums, both ends from events.
    for (since, until) in [
        ("2026-01-17T19:30:00Z", "2026-01-17T23:45:00Z"),
        ("2026-01-17T20:00:00Z", "2026-01-17T22:00:00Z"),
        ("2026-01-17T20:10:00Z", "2026-01-17T20:50:00Z"),
        ("2026-01-17T20:59:00Z", "2026-01-17T21:01:00Z"),
    ] {
        let graph = site.json(&format!("/api/graph?run=first&since={since}&until={until}"))?;
        let report =
            history.json(&["report", "--json", "--run-id", "first", "--since", since, "--until", until])?;
        let sum: u64 = list(&graph, "/paths")?.iter().filter_map(|row| row["connects"].as_u64()).sum();
        ensure!(sum == number(&report, "/summary/connects")?, "{since} {until}: {sum} {report}");
    }
    Ok(())
}

fn connections_are_put_together() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let all = site.json("/api/connections?run=second")?;
    let rows = list(&all, "/connections")?;
    ensure!(rows.len() == 39 && all["before"].is_null(), "{} {}", rows.len(), all["before"]);
    for row in rows {
        let expected = if row["error"].is_null() { "closed" } else { "failed" };
        ensure!(row["standing"] == expected, "{row}");
        if expected == "closed" {
            ensure!(
                row["duration_ms"] == 1200 && row["bytes_sent"] == 100 && row["event"] == "close",
                "{row}"
            );
            ensure!(row["opened_at"].as_str() < row["ts"].as_str(), "{row}");
        }
    }
    let mut pages = Vec::new();
    let mut before = String::new();
    loop {
        let page = site.json(&format!("/api/connections?run=second&limit=10{before}"))?;
        pages.extend(list(&page, "/connections")?.iter().filter_map(|row| row["id"].as_i64()));
        let Some(next) = page["before"].as_i64() else { break };
        before = format!("&before={next}");
    }
    let distinct: BTreeSet<_> = pages.iter().collect();
    ensure!(distinct.len() >= 39, "{pages:?}");
    Ok(())
}

fn filters_are_those_of_the_language() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    for (filter, count) in
        [("event:fail", 5), ("domain:api.openai.com", 30), ("pid:99999999", 0), ("process:%22codex%22", 30)]
    {
        let found = site.json(&format!("/api/connections?run=second&filter={filter}"))?;
        ensure!(list(&found, "/connections")?.len() == count, "{filter}: {found}");
    }
    let events = site.json("/api/events?run=second&filter=event:fail&limit=2")?;
    ensure!(list(&events, "/events")?.len() == 2 && events["more"] == true, "{events}");
    let last = events["last"].as_i64().context("an id")?;
    let rest = site.json(&format!("/api/events?run=second&filter=event:fail&after={last}"))?;
    ensure!(list(&rest, "/events")?.len() == 3 && rest["more"] == false, "{rest}");
    Ok(())
}

fn two_sessions_are_compared() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let page = site.json("/api/diff?old=first&new=second")?;
    let diff = history.json(&["diff", "--old", "first", "--new", "second", "--json"])?;
    ensure!(page == diff, "{page}\n{diff}");
    ensure!(site.get("/api/diff?old=first&new=nobody")?.code == 404);
    ensure!(site.get("/api/diff?old=first")?.code == 400);
    Ok(())
}

fn metrics_have_no_names_in_them() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let answer = site.get("/metrics")?;
    let kind = answer.headers.get("content-type").map(String::as_str).unwrap_or_default();
    ensure!(kind.starts_with("application/openmetrics-text"), "{kind}");
    ensure!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    for name in ["example", "api.", "192.0.2", "codex", "img"] {
        ensure!(!answer.body.contains(name), "{name} in {}", answer.body);
    }
    let line = "rano_events_total{provider=\"openai\",class=\"llm_api\",event=\"connect\"} 30";
    ensure!(answer.body.lines().any(|found| found == line), "{}", answer.body);
    ensure!(answer.body.contains("rano_gap_total{gap=\"sqlite_dropped\"} 0"), "{}", answer.body);
    Ok(())
}

/// The description in docs/api.md, taken at its word.
fn the_described_api_is_the_one_there_is() -> Result<()> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md"))?;
    let block = text
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("\n```").next())
        .context("no JSON in docs/api.md")?;
    let api: Value = serde_json::from_str(block)?;
    ensure!(api["openapi"].as_str().is_some_and(|version| version.starts_with("3.")), "{api}");
    let paths = api["paths"].as_object().context("paths")?;
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    ensure!(described == ROUTES.into_iter().chain(["/api/diff"]).collect(), "{described:?}");
    let history = history()?;
    let site = site(&history)?;
    for (path, item) in paths {
        let get = &item["get"];
        let parameters: Vec<&str> = get["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|parameter| {
                let named = parameter["$ref"].as_str().and_then(|name| name.rsplit('/').next());
                let parameter = named.map_or(parameter, |name| &api["components"]["parameters"][name]);
                (parameter["in"] == "query").then(|| parameter["name"].as_str()).flatten()
            })
            .collect();
        let values = |name: &str| match name {
            "run" | "old" => "first",
            "new" => "second",
            "since" => "2026-01-17",
            "until" => "2027-01-17",
            "filter" => "type:llm_api",
            _ => "5",
        };
        let query: Vec<_> = parameters.iter().map(|name| format!("{name}={}", values(name))).collect();
        let path_and_query = format!("{path}?{}", query.join("&"));
        if path.ends_with("stream") {
            site.stream(&format!("?{}", query.join("&")), None)?.next()?;
            continue;
        }
        let answer = site.get(&path_and_query)?;
        ensure!(answer.code == 200, "{path_and_query}: {answer:?}");
        let content = get["responses"]["200"]["content"].as_object().context("content")?;
        let (kind, content) = content.iter().next().context("a type")?;
        ensure!(answer.headers["content-type"].starts_with(kind.as_str()), "{path}: {answer:?}");
        if kind != "application/json" {
            continue;
        }
        let body: Value = serde_json::from_str(&answer.body)?;
        let told: BTreeSet<&str> =
            body.as_object().context("an object")?.keys().map(String::as_str).collect();
        let named = content["schema"]["properties"].as_object().context("properties")?;
        let named: BTreeSet<&str> = named.keys().map(String::as_str).collect();
        ensure!(told.is_subset(&named), "{path} has {told:?}, described are {named:?}");
        for field in content["schema"]["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            ensure!(told.contains(field), "{path} lacks {field}: {told:?}");
        }
    }
    Ok(())
}

fn nothing_to_show_is_said_at_once() -> Result<()> {
    let history = History::new()?;
    let missing = history.launch(&["serve", "--read-only"])?.run()?;
    missing.expect_code(3)?;
    ensure!(missing.stdout.is_empty(), "{}", missing.stdout);
    history.write("first", START, &every(1, START, 1000, &Connection::default()), End::Clean)?;
    let nobody = history.launch(&["serve", "--attach", "nobody"])?.run()?;
    nobody.expect_code(1)?;
    ensure!(
        nobody.stderr.contains("no session 'nobody'") && nobody.stderr.contains("first"),
        "{}",
        nobody.stderr
    );
    let without = history.launch(&["serve", "--no-sqlite", "--source", "proc"])?.run()?;
    without.expect_code(2)?;
    history.launch(&["serve", "--listen", "nowhere"])?.run()?.expect_code(2)?;
    Ok(())
}

/// All that a browser loads, as gzip packs it.
fn a_page_is_small() -> Result<()> {
    let history = history()?;
    let site = site(&history)?;
    let mut all = String::new();
    for path in ["/", "/app.js", "/app.css", "/icon.svg"] {
        let answer = site.send(&site.head(path, ""))?;
        ensure!(answer.code == 200, "{path}: {answer:?}");
        ensure!(!answer.body.contains("https://"), "{path} names another place");
        all += &answer.body;
    }
    let mut gzip = std::process::Command::new("gzip");
    gzip.arg("-9c").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut gzip = gzip.spawn().context("gzip")?;
    let mut into = gzip.stdin.take().context("a pipe")?;
    let writing = std::thread::spawn(move || into.write_all(all.as_bytes()));
    let packed = gzip.wait_with_output()?.stdout.len();
    writing.join().map_err(|_| anyhow::anyhow!("gzip"))??;
    ensure!(packed <= 60 << 10, "{packed} bytes");
    Ok(())
}

fn a_report_is_one_file() -> Result<()> {
    let history = history()?;
    let finished = history.run(&["report", "--html", "night.html"])?;
    ensure!(finished.stdout.is_empty() && finished.stderr.contains("wrote night.html"), "{finished:?}");
    let path = history.directory().join("night.html");
    ensure!(fs::metadata(&path)?.permissions().mode() & 0o777 == 0o600);
    let text = fs::read_to_string(&path)?;
    for outside in ["src=\"", "href=\"/", "href=\"http", "@import", "url(", "https://"] {
        ensure!(!text.contains(outside), "{outside}");
    }
    ensure!(text.contains("default-src 'none'") && text.matches("<script").count() == 2, "{}", text.len());
    ensure!(!text.contains("<img"), "a name became markup");
    let data =
        text.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).context("data")?;
    let data: Value = serde_json::from_str(data)?;
    ensure!(data["hash"].as_str().is_some_and(|hash| hash.contains("SHA-256")), "{}", data["hash"]);
    let rows = list(&data, "/connections/connections")?;
    ensure!(rows.len() == 39 && rows.iter().any(|row| row["comm"] == hostile().as_str()), "{}", rows.len());
    let verdict = data["verdict"].as_str().unwrap_or_default();
    ensure!(verdict.starts_with("39 connections to 2 names"), "{verdict}");
    history.launch(&["report", "--html", "no/where.html"])?.run()?.expect_code(3)?;
    Ok(())
}
