use super::*;

mod table;

/// Arguments are separated by `|`, so that blanks can stand inside of them; `#` in what is expected is the mark.
fn check(arguments: &str, expected: &str) {
    let argv: Vec<String> = arguments.split('|').map(String::from).collect();
    assert_eq!(command_line(&argv, Redaction::On), expected.replace('#', REDACTED), "{arguments}");
}

#[test]
fn values_of_secret_options() {
    check("tool|--api-key|hunter2|file", "tool --api-key # file");
    check("tool|--api-key=hunter2|file", "tool --api-key=# file");
    check("tool|--openai_api_key|hunter2", "tool --openai_api_key #");
    check("tool|--password|two words", "tool --password #");
    check("tool|-token|x|--passphrase=y|-apiKey|z", "tool -token # --passphrase=# -apiKey #");
    check("tool|--password|--user|bob", "tool --password --user bob");
    check("tool|--password|-Abase64url", "tool --password #");
    check("tool|--token", "tool --token");
    check("tool|--password=", "tool --password=");
}

#[test]
fn other_options_are_left_alone() {
    for line in [
        "tool|--max-tokens|100",
        "tool|--token-file|/x",
        "tool|--password-stdin|x",
        "tool|--tokenizer=bert",
        "tool|--bypass|x",
        "env|PWD=/home/x",
        "ssh|-p|22",
        "docker|run|-u|1000:1000|-p|80:80",
        "mysql|-p|database",
        "pip|install|sk-learn-contrib-project",
        "git|clone|https://github.com:443/@scope/x",
        "git|clone|git@github.com:user/repo",
        "node|npm_lifecycle_event",
        "cat|-----BEGIN CERTIFICATE-----",
        "ls|https://bob@host/x",
        "x|time=10:30:05",
    ] {
        check(line, &line.replace('|', " "));
    }
}

#[test]
fn options_of_single_programs() {
    check("/usr/bin/mysql|-psecret|db", "/usr/bin/mysql -p# db");
    check("curl|-u|bob:secret|http://x", "curl -u bob:# http://x");
    check("curl|--user|bob:secret", "curl --user bob:#");
    check("curl|-ubob:secret", "curl -ubob:#");
    check("curl|-u|bob", "curl -u bob");
    check("sshpass|-p|secret|ssh|-p|22|h", "sshpass -p # ssh -p # h");
    check("redis-cli|-a|secret", "redis-cli -a #");
    check("sh|-c|cd x && mysql -psecret db", "sh -c cd x && mysql -p# db");
    check("sh|-c|curl -u 'bob:se cret' http://x", "sh -c curl -u 'bob:# http://x");
}

#[test]
fn variables_and_fields() {
    check("env|OPENAI_API_KEY=abc|FOO_TOKEN=x|A=b", "env OPENAI_API_KEY=# FOO_TOKEN=# A=b");
    check("env|DB_PASSWORD=two words|x", "env DB_PASSWORD=# x");
    check("env|MY_SECRET=a|MYSQL_PWD=b|DB_PASS=c", "env MY_SECRET=# MYSQL_PWD=# DB_PASS=#");
    check("sh|-c|A_SECRET=x run && B_TOKEN='a b' go", "sh -c A_SECRET=# run && B_TOKEN=# go");
    check("python3|-c|token=1; print(token)", "python3 -c token=#; print(token)");
    check("x|-e|GITHUB_TOKEN=abc", "x -e GITHUB_TOKEN=#");
    check(r#"x|{"apiKey": "a\"b", "n": 1, 'token':'z'}"#, r#"x {"apiKey": #, "n": 1, 'token':#}"#);
    check("x|https://h/p?a=1&access_token=abc&b=2", "x https://h/p?a=1&access_token=#&b=2");
    check("x|AccountName=a;AccountKey=b==;End=c", "x AccountName=a;AccountKey=#;End=c");
}

#[test]
fn headers() {
    check("curl|-H|Authorization: Bearer abc def|u", "curl -H Authorization: # u");
    check("curl|-H|authorization: Basic abc", "curl -H authorization: #");
    check("curl|-HX-Api-Key: abc|u", "curl -HX-Api-Key: # u");
    check("curl|-H|Cookie: a=b; c=d|u", "curl -H Cookie: # u");
    check(
        "sh|-c|curl -H 'Authorization: Bearer abc' -H \"PRIVATE-TOKEN: x\" http://h",
        "sh -c curl -H 'Authorization: #' -H \"PRIVATE-TOKEN: #\" http://h",
    );
    check(
        "sh|-c|echo Authorization: Bearer abc | tee".replace(" | ", " ; ").as_str(),
        "sh -c echo Authorization: # ; tee",
    );
}

#[test]
fn tokens_by_their_shape() {
    for token in [
        "sk-ant-api03-AbC_1-2dEfGhIjKlMn",
        "sk-proj-abcdefghijklmnop1234",
        "sk-0123456789abcdef0123",
        "ghp_0123456789abcdef0123456789abcdef0123",
        "gho_0123456789abcdef0123",
        "github_pat_11AAAAAAA0abcdefghijkl_mnop",
        "glpat-abcdef12345-xyz",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdef",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        "npm_0123456789abcdefghij0123456789abcdef",
        "hf_0123456789abcdefABCDEF",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_123",
    ] {
        check(&format!("x|{token}"), "x #");
        check(&format!("x|--opt={token},y"), "x --opt=#,y");
        check(&format!("sh|-c|run '{token}' z"), "sh -c run '#' z");
    }
    check("x|task-sk-0123456789abcdef0123", "x task-sk-0123456789abcdef0123");
}

#[test]
fn passwords_in_urls() {
    check("x|postgres://bob:s3:c@h/db", "x postgres://bob:#@h/db");
    check("x|https://:secret@h", "x https://:#@h");
    check("x|https://0123456789abcdef01234567@h/r", "x https://#@h/r");
    check("x|postgres://u:pa/ss@h/db", "x postgres://u:#@h/db");
    check("x|a=http://u:p@h,http://v:q@i/ b", "x a=http://u:#@h,http://v:#@i/ b");
    check("x|http://h,http://v:q@i", "x http://h,http://v:#@i");
    check("x|http://h/?next=http://u:p@h", "x http://h/?next=http://u:#@h");
}

#[test]
fn private_keys_in_arguments() {
    check(
        "x|a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b",
        "x a #-----END RSA PRIVATE KEY----- b",
    );
    check("x|-----BEGIN PRIVATE KEY-----\nMIIE", "x #");
}

#[test]
fn nothing_is_redacted_when_switched_off() {
    let argv = ["x", "--token", "a"].map(String::from);
    assert_eq!(command_line(&argv, Redaction::Off), "x --token a");
    assert_eq!(command_line(&[], Redaction::On), "");
}

#[test]
fn long_command_lines_are_cut_on_a_character() {
    let exact = ["é".repeat(MAX_COMMAND_LINE / 2)];
    assert_eq!(command_line(&exact, Redaction::On), exact[0]);
    let longer = [format!("a{}", exact[0])];
    for redaction in [Redaction::On, Redaction::Off] {
        let line = command_line(&longer, redaction);
        assert!(line.len() <= MAX_COMMAND_LINE && line.ends_with("é…"), "{}", line.len());
    }
    let many = vec!["é".to_owned(); 100_000];
    let line = command_line(&many, Redaction::On);
    assert!(line.len() <= MAX_COMMAND_LINE && line.ends_with('…'));
}

#[test]
fn half_a_secret_does_not_survive_either_bound() {
    let secret = "sk-ant-0123456789abcdef0123456789";
    // Redaction shortens the line, so that what stands at the bound of the input comes into view.
    for padding in MAX_INPUT - 200..MAX_INPUT + 10 {
        let argv = ["x".into(), "--token".into(), "p".repeat(padding), format!("y {secret}"), "z".into()];
        let line = command_line(&argv, Redaction::On);
        assert!(!line.contains("sk-"), "{padding}: {line}");
        let one = [format!("x api_key='{}' y {secret} z", "p".repeat(padding))];
        assert!(!command_line(&one, Redaction::On).contains("sk-"), "{padding}");
    }
    for padding in MAX_COMMAND_LINE - 60..MAX_COMMAND_LINE + 10 {
        let argv = ["p".repeat(padding), secret.into()];
        assert!(!command_line(&argv, Redaction::On).contains("sk-"), "{padding}");
    }
}

#[test]
fn hostile_arguments_take_linear_time() {
    // Of this thread alone, so that it says nothing about how busy the machine is.
    let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
    let before = spent();
    for piece in [
        "token=\"",
        "token='",
        "sk-",
        "://a:",
        "-----BEGIN ",
        "Authorization: ",
        "'",
        "\"\\",
        "=:",
        "\"x ",
        "' ",
        "eyJ.",
    ] {
        let argument = piece.repeat(128 * 1024 / piece.len());
        command_line(std::slice::from_ref(&argument), Redaction::On);
        // With a blank near the bound all of the input is looked at.
        let at = MAX_INPUT - MAX_INPUT % piece.len();
        command_line(&[format!("{} {argument}", &argument[..at - piece.len()])], Redaction::On);
        command_line(&vec![piece.to_owned(); 20_000], Redaction::On);
        command_line(&vec![format!("{piece} {piece}é\u{301}\u{0}"); 2_000], Redaction::On);
    }
    let seconds = spent() - before;
    assert!(seconds < 20, "{seconds} s, where quadratic time takes minutes");
}

/// Rows are arguments separated by `¦`; what stands in « » is a secret.
fn row(text: &str) -> (Vec<String>, Vec<String>) {
    let secrets = text.split('«').skip(1).filter_map(|part| part.split_once('»'));
    let secrets = secrets.map(|(secret, _)| secret.to_owned()).collect();
    let plain = text.replace(['«', '»'], "");
    (plain.split('¦').map(String::from).collect(), secrets)
}

#[test]
fn no_secret_of_the_table_is_shown() {
    let mut leaks = Vec::new();
    for text in table::SECRETS {
        let (argv, secrets) = row(text);
        assert!(!secrets.is_empty(), "{text}");
        let line = command_line(&argv, Redaction::On);
        let program = argv[0].split_whitespace().next().unwrap_or_default();
        if !line.starts_with(program) || secrets.iter().any(|secret| line.contains(secret.as_str())) {
            leaks.push(format!("{text}\n    {line}"));
        }
    }
    assert!(leaks.is_empty(), "{} of {}:\n{}", leaks.len(), table::SECRETS.len(), leaks.join("\n"));
}

#[test]
fn nothing_of_the_harmless_lines_is_changed() {
    let mut changed = Vec::new();
    for text in table::HARMLESS {
        let (argv, _) = row(text);
        let line = command_line(&argv, Redaction::On);
        if line != argv.join(" ") {
            changed.push(line);
        }
    }
    assert!(changed.is_empty(), "{} of {}:\n{}", changed.len(), table::HARMLESS.len(), changed.join("\n"));
}

#[test]
fn an_argument_by_itself_knows_the_one_before_it() {
    let argv = ["run", "--", "tool", "--token", "hunter2", "a b"].map(String::from);
    let shown = ["run", "--", "tool", "--token", REDACTED, "a b"];
    assert_eq!(arguments(&argv, Redaction::On), shown);
    assert_eq!(arguments(&argv, Redaction::Off), argv);
}
