//! Names whose values are secrets, and values that are none whatever they are called.

/// Last words of names whose values are secrets, written together or apart (`apiKey`, `API_KEY`, `--api-key`).
const KEY_ENDINGS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "secretkey",
    "secretkeybase",
    "secretstring",
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
    "subscriptionkey",
    "functionskey",
    "rolekey",
    "accesskeyid",
    "accesssignature",
    "authorization",
    "credential",
    "credentials",
    "cookie",
    "connectionstring",
    "bearer",
    "jwt",
    "storepass",
    "keypass",
    "sshpass",
    "dbpass",
    "userpass",
    "authpass",
    "bindpass",
    "mysqlpwd",
];

/// Last words that count only when they stand alone: `DB_PASS` but not `bypass`.
const KEY_LAST_WORDS: &[&str] = &["pass", "pat", "psk", "pw"];

/// Names that end like those of secrets and are something else: marks of texts, and places in long lists.
const NO_KEYS: &[&str] = &[
    "bostoken",
    "eostoken",
    "padtoken",
    "unktoken",
    "clstoken",
    "septoken",
    "masktoken",
    "stoptoken",
    "pertoken",
    "maxtoken",
    "pagetoken",
    "nexttoken",
    "startingtoken",
    "continuationtoken",
];

/// Names whose values may be the path of a file that has the secret.
const FILE_KEYS: &[&str] = &["privatekey", "signingkey", "deploykey", "credential", "credentials", "cookie"];

/// In the query of an address only: elsewhere these are common words. The first ones always, the others where the value
/// looks random.
const QUERY_KEYS: &[&str] = &[
    "sig",
    "signature",
    "hmac",
    "auth",
    "sas",
    "pwd",
    "assertion",
    "samlresponse",
    "xamzsignature",
    "xgoogsignature",
];
const RANDOM_QUERY_KEYS: &[&str] =
    &["key", "code", "session", "sessionid", "sid", "ticket", "otp", "appid", "phpsessid", "k"];

const LONGEST_KEY: usize = 64;

/// A name in lower case without its separators, and where its last word begins.
struct Folded {
    bytes: [u8; LONGEST_KEY],
    length: usize,
    last: usize,
}

impl Folded {
    fn of(name: &str) -> Option<Self> {
        let name = name.trim_start_matches('-');
        if name.len() > LONGEST_KEY {
            return None;
        }
        let mut folded = Self { bytes: [0; LONGEST_KEY], length: 0, last: 0 };
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() {
                folded.bytes[folded.length] = byte.to_ascii_lowercase();
                folded.length += 1;
            } else if matches!(byte, b'-' | b'_' | b'.') {
                folded.last = folded.length;
            }
        }
        Some(folded)
    }

    fn all(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn ends_with_any(&self, endings: &[&str]) -> bool {
        endings.iter().any(|ending| self.all().ends_with(ending.as_bytes()))
    }

    fn is_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.all() == name.as_bytes())
    }
}

/// Whether the value of an option, variable, field or header of that name is a secret.
pub(in super::super) fn is_secret_key(name: &str) -> bool {
    let Some(folded) = Folded::of(name) else { return false };
    let last = &folded.all()[folded.last..];
    if KEY_LAST_WORDS.iter().any(|word| last == word.as_bytes()) || (last == b"pwd" && folded.last > 0) {
        return true;
    }
    folded.ends_with_any(KEY_ENDINGS) && !folded.ends_with_any(NO_KEYS)
}

/// The same of a parameter in the query of an address.
pub(in super::super) fn is_query_key(name: &str, value: &str) -> bool {
    Folded::of(name).is_some_and(|folded| {
        folded.is_any(QUERY_KEYS)
            || (folded.is_any(RANDOM_QUERY_KEYS) && looks_random(&value.replace('/', "")))
    })
}

/// Whether it is a header whose value may have blanks in it.
pub(in super::super) fn is_header(name: &str) -> bool {
    Folded::of(name).is_some_and(|folded| folded.ends_with_any(&["authorization", "cookie"]))
}

/// Whether it is a variable that holds headers: `OTEL_EXPORTER_OTLP_HEADERS`.
pub(in super::super) fn is_header_list(name: &str) -> bool {
    name.ends_with("_HEADERS")
}

/// An authentication scheme, after which the credentials follow.
pub(in super::super) fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "digest", "negotiate", "apikey"].iter().any(|s| word.eq_ignore_ascii_case(s))
}

/// Whether a value may be a key: no word, name or path.
pub(in super::super) fn looks_random(value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_+=.~%".contains(&b);
    value.len() >= 6
        && value.bytes().all(plain)
        && value.bytes().any(|b| b.is_ascii_alphabetic())
        && (value.len() >= 24 || value.bytes().any(|b| b.is_ascii_digit()))
}

/// Whether the value of that name may be the path of a file that has the secret.
pub(in super::super) fn may_be_file(name: &str) -> bool {
    Folded::of(name).is_some_and(|folded| folded.ends_with_any(FILE_KEYS))
}

pub(in super::super) fn is_path(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'']);
    let begins = ["/", "./", "../", "~/", "$HOME/"].iter().any(|start| value.starts_with(start));
    let ends =
        [".json", ".pem", ".key", ".txt", ".toml", ".yaml", ".yml"].iter().any(|end| value.ends_with(end));
    (begins || ends) && !value.contains(' ')
}

/// Values that only say where the secret is, or that there is none.
const REFERENCES: &[&str] =
    &["os.environ", "os.getenv", "process.env", "getenv(", "env.", "secrets.", "Deno.env", "import.meta"];
const NOTHING: &[&str] = &[
    "None",
    "null",
    "nil",
    "true",
    "false",
    "undefined",
    "True",
    "False",
    "-",
    "...",
    "str",
    "string",
    "String",
    "bytes",
    "number",
    "any",
];

/// Whether a value, without its quotes, names a variable or a placeholder: `$TOKEN`, `${TOKEN}`, `$(cat x)`, `<token>`.
pub(in super::super) fn is_reference(value: &str) -> bool {
    let value = value.trim_start_matches(['"', '\'', '\\']);
    if let Some(name) = value.strip_prefix('$') {
        let upper: usize =
            name.bytes().take_while(|b| b.is_ascii_uppercase() || b"_0123456789".contains(b)).count();
        let ends = !name[upper..].starts_with(|c: char| c.is_alphanumeric());
        return name.starts_with(['{', '(']) || (upper > 1 && ends);
    }
    let word = value.split([' ', ',', ';', '"', '\'', ')', '&', '\\']).next().unwrap_or_default();
    is_structure(value)
        || (word.starts_with('<') && word.ends_with('>'))
        || NOTHING.contains(&word)
        || REFERENCES.iter().any(|start| value.starts_with(start))
}

/// A list or an object, or a name in braces: what is in it is looked at for itself.
fn is_structure(value: &str) -> bool {
    let Some(rest) = value.strip_prefix(['{', '[']) else { return false };
    let name = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"_.".contains(b)).count();
    rest.starts_with(['"', '\'', '\\', ' ', '\n', '{', '[', '}', ']'])
        || (name > 0 && rest[name..].starts_with('}'))
}
