//! Nothing is printed past the escaping: a search of the sources for ways around `stream.rs`, and for JSON that
//! `json.rs` did not write.

use std::fs;
use std::path::Path;

use regex_lite::Regex;

/// Ways to a terminal. One that is new in the sources belongs into `stream.rs`.
const WAYS: &str = r"(?x)
    \b (e?print (ln)? | dbg) \s* !
    | \b (io|rustix|stdio) \s* :: \s* (std(out|err) | Std(out|err)) \b
    | \b io \s* :: \s* \{ [^}]* \b (std(out|err) | Std(out|err)) \b
    | \b rustix \s* :: \s* stdio \b
    | STD(OUT|ERR)_FILENO
    | /proc/self/fd/[12]
    | \b (from_raw_fd | borrow_raw) \s* \( \s* [12] \s* \)
    | \. \s* (print | print_help | print_long_help | exit) \s* \( \s* \)
    | \b libc \s* :: \s* (write | writev | dprintf | printf | puts | perror) \b";

/// Shapes that are not escaped, and who may print them: each sees to its content.
const UNSCREENED: [(&str, &[&str]); 6] = [
    // Only recognised there, as what whoever started rano has opened.
    (r"/dev/(stdout|stderr|tty|console|pts|fd)", &["files/mod.rs"]),
    // Its cells are filled by `top/draw/paint.rs` alone, which escapes; `cargo xtask tidy` sees to that.
    (r"\bstream\s*::\s*(take_)?screen\s*\(", &["top/terminal.rs"]),
    (r"\bexported\s*\(", &["commands/export.rs"]),
    // To wait for them, or to ask for their size.
    (r"\bstd(out|err)_end\s*\(", &["signals.rs", "commands/observe/screen.rs", "top/terminal.rs"]),
    (
        r"\bprint_own\s*\(",
        &["commands/mod.rs", "commands/completions.rs", "commands/man.rs", "commands/config.rs"],
    ),
    (
        r"\bserde_json\s*::\s*to_\w+",
        &["output/json.rs", "registry.rs", "source/replay.rs", "store/ledger.rs"],
    ),
];

/// Every line of `source`, without its tests, that goes around.
fn bypasses(file: &str, source: &str) -> Vec<String> {
    let source = source.split_once("\n#[cfg(test)]\nmod tests {").map_or(source, |(code, _)| code);
    let ways = Regex::new(WAYS).expect("a pattern");
    let mut found = Vec::new();
    let mut search = |pattern: &Regex| {
        for place in pattern.find_iter(source) {
            let line = source[..place.start()].matches('\n').count() + 1;
            found.push(format!("{file}:{line}: {}", place.as_str()));
        }
    };
    if file != "output/stream.rs" {
        search(&ways);
        for (shape, allowed) in UNSCREENED {
            if !allowed.contains(&file) {
                search(&Regex::new(shape).expect("a pattern"));
            }
        }
    }
    found
}

/// Code of the product, not of its tests.
fn sources(directory: &Path, root: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).expect("the sources are there").map(|entry| entry.expect("an entry"))
    {
        let path = entry.path();
        let is_test = path.file_stem().is_some_and(|name| name == "tests" || name == "wall");
        if is_test {
            continue;
        }
        if path.is_dir() {
            sources(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("it lies below").to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).expect("a source file")));
        }
    }
}

#[test]
fn nothing_is_printed_past_the_escaping() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &root, &mut files);
    assert!(files.len() > 100, "{} source files", files.len());
    assert!(files.iter().any(|(name, _)| name == "output/stream.rs"));
    let found: Vec<String> = files.iter().flat_map(|(name, source)| bypasses(name, source)).collect();
    assert!(found.is_empty(), "printed past output/stream.rs:\n{}", found.join("\n"));
}

#[test]
fn a_print_that_goes_around_is_found() {
    for planted in [
        "println!(\"{name}\")",
        "eprintln !(\"x\")",
        "print!(\"x\")",
        "eprint!(\"x\")",
        "dbg!(name)",
        "io::stdout().write_all(name)",
        "std::io::stderr().lock()",
        "use std::io::{self, Write, stderr};",
        "use std::io::{\n    Read,\n    Stdout,\n};",
        "let out: io::Stderr;",
        "rustix::stdio::stdout()",
        "nix::libc::STDERR_FILENO",
        "File::create(\"/dev/tty\")",
        "File::create(\"/dev/fd/2\")",
        "unsafe { File::from_raw_fd(1) }",
        "BorrowedFd::borrow_raw(2)",
        "error.print()",
        "command.print_help()",
        "clap_error.exit()",
        "libc::write(2, text, 3)",
        "stream::exported().write_all(b\"x\")",
        "print_own(&name)",
        "stream::screen().write_all(name)",
        "stream::take_screen()",
        "rustix::io::write(stream::stdout_end(), name)",
        "serde_json::to_string(&event)",
    ] {
        let source = format!("fn say() {{\n    {planted};\n}}\n");
        let found = bypasses("names/book.rs", &source);
        assert_eq!(found.len(), 1, "{planted}: {found:?}");
        assert!(found[0].starts_with("names/book.rs:2: "), "{found:?}");
    }
    for innocent in [
        "stream::print(&text)",
        "say(&text)",
        "Stream::stdout(styles)",
        "stream::stdout_is_terminal()",
        "pretty_print(x)",
        "std::process::exit(1)",
        "from_raw_fd(12)",
        "#[cfg(test)]\nmod tests {\n    println!(\"skipped\")",
    ] {
        let source = format!("fn say() {{}}\n{innocent}\n");
        assert_eq!(bypasses("names/book.rs", &source), [""; 0], "{innocent}");
    }
}
