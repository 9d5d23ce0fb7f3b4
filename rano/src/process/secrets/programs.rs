//! Options, words and standard input that are secrets in single programs only.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

/// What an option's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Takes {
    Secret,
    /// The secret, or the path of a file that has it.
    SecretOrFile,
    /// `user:password` or `user%password`: the user may be shown.
    UserAndSecret,
    /// `NAME=secret`, behind the last `=`.
    Pair,
    /// `name=secret; other=secret`; without a `=` it is a file.
    Cookies,
    /// Only what looks like a key: elsewhere it is a name or a path.
    Random,
    /// `pass:secret`; other beginnings say where it is.
    Pass,
}

/// An option that means a password in this program only.
pub(in super::super) struct ProgramOption {
    pub(in super::super) name: &'static str,
    pub(in super::super) takes: Takes,
    /// `-psecret`
    pub(in super::super) attached: bool,
    /// `-p secret`
    pub(in super::super) separate: bool,
}

/// Which of the words that follow a command are secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Positional {
    None,
    /// The word of that number, from 1 on, where it looks like a key.
    Random(u8),
    /// The word of that number and those behind it.
    From(u8),
    /// The word behind one that is the name of a secret.
    Named,
    /// The values of all `NAME=value`.
    Pairs,
    /// `user/password@place`
    SlashAndAt,
}

/// A program's command: what its words and options mean once these words, in this order, were among its arguments.
pub(in super::super) struct Command {
    pub(in super::super) words: &'static [&'static str],
    pub(in super::super) options: &'static [ProgramOption],
    pub(in super::super) positional: Positional,
}

pub(in super::super) struct Program {
    names: &'static [&'static str],
    pub(in super::super) commands: &'static [Command],
}

/// So many commands a program has at most.
pub(in super::super) const MOST_COMMANDS: usize = 6;

const fn option(name: &'static str, takes: Takes, attached: bool, separate: bool) -> ProgramOption {
    ProgramOption { name, takes, attached, separate }
}

const fn attached(name: &'static str) -> ProgramOption {
    option(name, Takes::Secret, true, false)
}

const fn separate(name: &'static str) -> ProgramOption {
    option(name, Takes::Secret, false, true)
}

const fn either(name: &'static str) -> ProgramOption {
    option(name, Takes::Secret, true, true)
}

const fn user(name: &'static str) -> ProgramOption {
    option(name, Takes::UserAndSecret, true, true)
}

const fn random(name: &'static str) -> ProgramOption {
    option(name, Takes::Random, false, true)
}

const fn pass(name: &'static str) -> ProgramOption {
    option(name, Takes::Pass, false, true)
}

const fn options(options: &'static [ProgramOption]) -> Command {
    Command { words: &[], options, positional: Positional::None }
}

const fn within(words: &'static [&'static str], options: &'static [ProgramOption]) -> Command {
    Command { words, options, positional: Positional::None }
}

const fn words(words: &'static [&'static str], positional: Positional) -> Command {
    Command { words, options: &[], positional }
}

const fn program_of(names: &'static [&'static str], commands: &'static [Command]) -> Program {
    Program { names, commands }
}

const PROGRAMS: &[Program] = &[
    program_of(
        &["curl", "xh", "xhs", "http", "https", "httpie", "restish"],
        &[options(&[
            user("--proxy-user"),
            user("--user"),
            user("--auth"),
            user("--cert"),
            user("-u"),
            user("-U"),
            user("-a"),
            user("-E"),
            option("-b", Takes::Cookies, true, true),
            option("--cookie", Takes::Cookies, false, true),
        ])],
    ),
    // `-p database` asks for the password: only the attached form carries one.
    program_of(
        &["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb", "mariadb-dump", "mariadb-admin"],
        &[options(&[attached("-p")])],
    ),
    program_of(&["sshpass"], &[options(&[either("-p")])]),
    program_of(
        &["redis-cli", "valkey-cli"],
        &[options(&[separate("-a")]), words(&["AUTH"], Positional::From(1))],
    ),
    program_of(&["mongosh", "mongo", "mongodump", "mongorestore"], &[options(&[either("-p")])]),
    program_of(&["sqlcmd", "bcp"], &[options(&[either("-P")])]),
    program_of(&["sqlplus", "expdp", "impdp"], &[words(&[], Positional::SlashAndAt)]),
    program_of(&["ldapsearch", "ldapadd", "ldapmodify", "ldapwhoami"], &[options(&[either("-w")])]),
    program_of(&["smbclient", "rpcclient", "smbget"], &[options(&[user("-U")])]),
    program_of(&["lftp"], &[options(&[option("-u", Takes::UserAndSecret, true, true)])]),
    program_of(&["7z", "7za", "7zz", "rar", "unrar"], &[options(&[attached("-p"), attached("-hp")])]),
    program_of(&["unzip", "zip", "mosquitto_pub", "mosquitto_sub"], &[options(&[either("-P")])]),
    program_of(&["pdftotext", "pdfimages"], &[options(&[separate("-upw"), separate("-opw")])]),
    program_of(&["ssh-keygen"], &[options(&[either("-N"), either("-P")])]),
    program_of(
        &["openssl"],
        &[options(&[pass("-passin"), pass("-passout"), pass("-pass"), separate("-k"), separate("-K")])],
    ),
    program_of(
        &["docker", "podman", "buildah", "nerdctl", "helm", "oras", "skopeo", "crane"],
        &[
            within(&["login"], &[separate("-p")]),
            options(&[user("--creds"), user("--src-creds"), user("--dest-creds")]),
        ],
    ),
    program_of(
        &["az"],
        &[within(&["login"], &[separate("-p")]), within(&["secret", "set"], &[separate("--value")])],
    ),
    program_of(
        &["aws"],
        &[
            words(&["configure", "set"], Positional::Named),
            within(&["ssm", "put-parameter"], &[separate("--value")]),
        ],
    ),
    program_of(&["gh"], &[within(&["secret", "set"], &[either("-b"), separate("--body")])]),
    program_of(&["glab"], &[within(&["login"], &[separate("-t")])]),
    program_of(
        &["npm", "pnpm", "yarn", "composer", "poetry", "bundle", "pip", "rclone", "doctl", "gcloud"],
        &[
            words(&["config"], Positional::Named),
            words(&["set"], Positional::Named),
            within(&["publish"], &[separate("-p")]),
        ],
    ),
    program_of(&["git"], &[words(&["config"], Positional::Named)]),
    program_of(&["nmcli"], &[words(&[], Positional::Named)]),
    program_of(&["wpa_passphrase"], &[words(&[], Positional::From(2))]),
    program_of(&["netlify"], &[words(&["env:set"], Positional::Named), options(&[separate("--auth")])]),
    program_of(&["vercel"], &[options(&[separate("-t")])]),
    program_of(
        &["cargo", "wandb", "vault"],
        &[words(&["login"], Positional::Random(1)), words(&["kv", "put"], Positional::Pairs)],
    ),
    program_of(&["snyk"], &[words(&["auth"], Positional::Random(1))]),
    program_of(
        &["ngrok"],
        &[words(&["authtoken"], Positional::Random(1)), words(&["add-authtoken"], Positional::Random(1))],
    ),
    program_of(
        &["nuget", "dotnet"],
        &[words(&["setapikey"], Positional::From(1)), within(&["push"], &[separate("-k")])],
    ),
    program_of(
        &["twine", "uv"],
        &[within(&["upload"], &[separate("-p")]), within(&["publish"], &[separate("-p"), separate("-t")])],
    ),
    program_of(&["pulumi"], &[words(&["config", "set"], Positional::Named)]),
    program_of(
        &["fly", "flyctl", "supabase", "heroku", "convex"],
        &[words(&["secrets", "set"], Positional::Pairs), words(&["config:set"], Positional::Pairs)],
    ),
    program_of(
        &["kubectl", "oc"],
        &[within(&["secret"], &[option("--from-literal", Takes::Pair, false, true)])],
    ),
    program_of(&["security"], &[within(&["add-generic-password"], &[separate("-w")])]),
    program_of(&["mc"], &[words(&["alias", "set"], Positional::From(3))]),
    program_of(&["htpasswd"], &[words(&["-b"], Positional::From(3)), words(&["-nb"], Positional::From(2))]),
    program_of(&["openai", "llm", "aichat"], &[options(&[separate("-k"), random("--key")])]),
    program_of(&["influx", "buildkite-agent"], &[options(&[separate("-t")])]),
    program_of(&["gitlab-runner"], &[within(&["register"], &[separate("-r")])]),
    program_of(&["rabbitmqadmin", "cqlsh"], &[options(&[separate("-p")])]),
    program_of(&["etcdctl"], &[options(&[user("--user")])]),
    program_of(&["xfreerdp", "xfreerdp3", "wlfreerdp"], &[options(&[attached("/p:")])]),
];

static BY_NAME: LazyLock<FxHashMap<&'static str, &'static Program>> = LazyLock::new(|| {
    PROGRAMS.iter().flat_map(|program| program.names.iter().map(move |name| (*name, program))).collect()
});

/// The program of that basename, if it has options or words of its own.
pub(in super::super) fn program(name: &str) -> Option<&'static Program> {
    BY_NAME.get(name).copied()
}

impl Command {
    /// The option that `word` is or begins with, and where in `word` its value begins.
    pub(in super::super) fn option(&self, word: &str) -> Option<(&'static ProgramOption, usize)> {
        self.options.iter().find_map(|option| {
            let rest = word.strip_prefix(option.name)?;
            let long = option.name.starts_with("--");
            let equals = usize::from(long && rest.starts_with('='));
            let fits = rest.is_empty() || equals == 1 || (!long && option.attached);
            fits.then_some((option, option.name.len() + equals))
        })
    }

    /// The option that ends a cluster of short ones: `-sSu`.
    pub(in super::super) fn clustered(&self, word: &str) -> Option<&'static ProgramOption> {
        let letters = word.strip_prefix('-')?;
        let is_cluster = (2..=6).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_alphabetic());
        self.options.iter().find(|option| {
            is_cluster
                && option.separate
                && option.name.len() == 2
                && letters.as_bytes().last() == option.name.as_bytes().last()
        })
    }
}

/// Programs that read a secret from standard input: a word of the command, and an option or a further word of it.
const READERS: &[(&str, &str)] = &[
    ("sudo", "-S"),
    ("sudo", "--stdin"),
    ("passwd", "--stdin"),
    ("chpasswd", ""),
    ("", "--password-stdin"),
    ("", "--with-token"),
    ("secret", "set"),
    ("secret", "put"),
    ("secrets", "set"),
    ("versions", "add"),
    ("vercel", "env"),
    ("cryptsetup", "luksOpen"),
    ("cryptsetup", "open"),
    ("kinit", ""),
    ("gpg", "--passphrase-fd"),
    ("openssl", "stdin"),
    ("", "--api-key-stdin"),
    ("", "--with-api-key"),
];

/// Whether a simple command reads a secret from its standard input.
pub(in super::super) fn reads_secret(command: &str) -> bool {
    let has = |wanted: &str| {
        wanted.is_empty()
            || command.split_whitespace().any(|word| {
                let word = word.rsplit('/').next().unwrap_or(word);
                // `sudo -kS`: one letter among others.
                let letter = wanted.strip_prefix('-').filter(|rest| rest.len() == 1);
                let clustered = |letter: &str| {
                    word.len() <= 5
                        && word.starts_with('-')
                        && !word.starts_with("--")
                        && word.contains(letter)
                };
                word == wanted || letter.is_some_and(clustered)
            })
    };
    READERS.iter().any(|(program, word)| has(program) && has(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program_has_more_commands_than_are_followed() {
        assert!(PROGRAMS.iter().all(|program| program.commands.len() <= MOST_COMMANDS));
    }
}
