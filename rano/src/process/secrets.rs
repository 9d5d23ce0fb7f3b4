//! What counts as a secret in a command line: names of options, variables and headers, shapes of tokens, and the
//! options of single programs. Data, and the look-ups in it.

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Secret,
    /// `user:password` or `user%password`: the user may be shown.
    UserAndSecret,
}

/// An option that means a password in this program only.
pub(super) struct ProgramOption {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// `-psecret`
    pub(super) attached: bool,
    /// `-p secret`
    pub(super) separate: bool,
}

pub(super) struct Program {
    names: &'static [&'static str],
    options: &'static [ProgramOption],
}

const fn attached(name: &'static str) -> ProgramOption {
    ProgramOption { name, takes: Takes::Secret, attached: true, separate: false }
}

const fn separate(name: &'static str) -> ProgramOption {
    ProgramOption { name, takes: Takes::Secret, attached: false, separate: true }
}

const fn either(name: &'static str) -> ProgramOption {
    ProgramOption { name, takes: Takes::Secret, attached: true, separate: true }
}

const fn user(name: &'static str) -> ProgramOption {
    ProgramOption { name, takes: Takes::UserAndSecret, attached: true, separate: true }
}

const PROGRAMS: &[Program] = &[
    Program {
        names: &["curl", "xh", "xhs", "http", "https", "httpie", "restish"],
        options: &[user("--proxy-user"), user("--user"), user("--auth"), user("-u"), user("-U"), user("-a")],
    },
    // `-p database` asks for the password: only the attached form carries one.
    Program {
        names: &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
        ],
        options: &[attached("-p")],
    },
    Program { names: &["sshpass"], options: &[either("-p")] },
    Program { names: &["redis-cli", "valkey-cli"], options: &[separate("-a")] },
    Program { names: &["mongosh", "mongo", "mongodump", "mongorestore"], options: &[either("-p")] },
    Program { names: &["sqlcmd", "bcp"], options: &[either("-P")] },
    Program { names: &["ldapsearch", "ldapadd", "ldapmodify", "ldapwhoami"], options: &[either("-w")] },
    Program { names: &["smbclient", "rpcclient"], options: &[user("-U")] },
    Program { names: &["7z", "7za", "7zz"], options: &[attached("-p")] },
    Program { names: &["unzip", "zip"], options: &[either("-P")] },
];

/// The program of that basename, if it has options of its own.
pub(super) fn program(name: &str) -> Option<&'static Program> {
    PROGRAMS.iter().find(|program| program.names.contains(&name))
}

impl Program {
    pub(super) fn option(&self, word: &str) -> Option<&'static ProgramOption> {
        self.options.iter().find(|option| {
            let long = option.name.starts_with("--");
            word.strip_prefix(option.name).is_some_and(|rest| rest.is_empty() || (!long && option.attached))
        })
    }
}

/// Last words of names whose values are secrets, written together or apart (`apiKey`, `API_KEY`, `--api-key`).
const KEY_ENDINGS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "secretkey",
    "accesskey",
    "authkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "accountkey",
    "sharedkey",
    "storagekey",
    "licensekey",
    "deploykey",
    "servicekey",
    "sessionkey",
    "accesskeyid",
    "authorization",
    "credential",
    "credentials",
    "cookie",
    "connectionstring",
];

/// Last words that count only when they stand alone: `DB_PASS` but not `bypass`, `MYSQL_PWD` but not `PWD`.
const KEY_LAST_WORDS: &[&str] = &["pass", "pat", "psk"];

/// Whether the value of an option, variable, field or header of that name is a secret.
pub(super) fn is_secret_key(name: &str) -> bool {
    if name.len() > 64 {
        return false;
    }
    let lower = name.trim_start_matches('-').to_ascii_lowercase();
    let last = lower.rsplit(['-', '_', '.']).next().unwrap_or_default();
    if KEY_LAST_WORDS.contains(&last) || (last == "pwd" && lower != "pwd") {
        return true;
    }
    let together: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    KEY_ENDINGS.iter().any(|ending| together.ends_with(ending))
}

/// Whether it is a header whose value may have blanks in it.
pub(super) fn is_header(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    ["authorization", "cookie"].iter().any(|header| lower.ends_with(header))
}

/// An authentication scheme, after which the credentials follow.
pub(super) fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "digest", "negotiate", "apikey"].iter().any(|s| word.eq_ignore_ascii_case(s))
}

/// A token known by its prefix.
struct Shape {
    prefix: &'static [u8],
    /// Fewest characters after the prefix.
    least: usize,
    /// What may follow, beside letters and digits.
    also: &'static [u8],
}

const fn shape(prefix: &'static str, least: usize, also: &'static str) -> Shape {
    Shape { prefix: prefix.as_bytes(), least, also: also.as_bytes() }
}

const SHAPES: &[Shape] = &[
    shape("sk-", 16, "-_"),
    shape("sk_live_", 12, "_"),
    shape("sk_test_", 12, "_"),
    shape("rk_live_", 12, "_"),
    shape("rk_test_", 12, "_"),
    shape("whsec_", 12, "+/="),
    shape("ghp_", 16, "_"),
    shape("gho_", 16, "_"),
    shape("ghu_", 16, "_"),
    shape("ghs_", 16, "_.-"),
    shape("ghr_", 16, "_"),
    shape("github_pat_", 16, "_"),
    shape("glpat-", 12, "-_."),
    shape("gldt-", 12, "-_."),
    shape("glrt-", 12, "-_."),
    shape("AKIA", 16, ""),
    shape("ASIA", 16, ""),
    shape("xoxb-", 8, "-"),
    shape("xoxp-", 8, "-"),
    shape("xoxa-", 8, "-"),
    shape("xoxr-", 8, "-"),
    shape("xoxs-", 8, "-"),
    shape("xoxe-", 8, "-"),
    shape("xoxe.", 8, "-."),
    shape("xapp-", 8, "-"),
    shape("AIza", 30, "-_"),
    shape("ya29.", 16, "-_."),
    shape("npm_", 20, ""),
    shape("hf_", 16, ""),
    shape("pypi-", 32, "-_"),
    shape("gsk_", 20, ""),
    shape("xai-", 20, "-_"),
    shape("pplx-", 20, ""),
    shape("nvapi-", 20, "-_"),
    shape("r8_", 20, ""),
    shape("tvly-", 16, "-_"),
    shape("dop_v1_", 20, ""),
    shape("SG.", 20, "-_."),
    shape("shpat_", 20, ""),
    shape("lin_api_", 16, ""),
    shape("figd_", 16, "-_"),
    shape("ntn_", 20, ""),
    shape("ATATT3", 20, "-_="),
    shape("AGE-SECRET-KEY-1", 20, ""),
    // A JSON web token: base64 of `{"`, then more parts.
    shape("eyJ", 16, "-_.="),
];

/// Bytes of the token that `text` begins with. A token has a digit after its prefix: `sk-learn-contrib-project` is a
/// name.
pub(super) fn token_length(text: &[u8]) -> Option<usize> {
    // All prefixes begin with one of these; most positions end here.
    if !matches!(
        text.first()?,
        b's' | b'r'
            | b'w'
            | b'g'
            | b'A'
            | b'x'
            | b'y'
            | b'n'
            | b'h'
            | b'p'
            | b't'
            | b'd'
            | b'S'
            | b'l'
            | b'f'
            | b'e'
    ) {
        return None;
    }
    SHAPES.iter().find_map(|shape| {
        let rest = text.strip_prefix(shape.prefix)?;
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || shape.also.contains(b)).count();
        let fits = length >= shape.least && rest[..length].iter().any(u8::is_ascii_digit);
        fits.then_some(shape.prefix.len() + length)
    })
}
