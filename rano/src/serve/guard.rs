//! Who is let in: whoever knows the token, from a page that was served here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};

use super::Shared;
use super::answer::Refusal;

/// Nothing from elsewhere, no form, no frame around it.
const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Hexadecimal digits of a token: 256 bits.
const DIGITS: usize = 64;

/// The shortest that somebody may choose.
const SHORTEST: usize = 16;

/// What a client has to know.
#[derive(Clone)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A new one, from the kernel's random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0u8; DIGITS / 2];
        let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        if count != bytes.len() {
            return Err(std::io::Error::other("the kernel gave too few random bytes"));
        }
        Ok(Self(bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))))
    }

    /// One that was written down: letters, digits, `-`, `.`, `_` and `~`, which need no escape in a URL.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (text.len() >= SHORTEST && text.len() <= 4 * DIGITS && text.bytes().all(plain))
            .then(|| Self(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Digests are compared: how long that takes tells nothing of the token.
    fn is(&self, given: &[u8]) -> bool {
        Sha256::digest(given) == Sha256::digest(self.0.as_bytes())
    }
}

/// What this server may be called by a browser. A name that somebody else gave it (DNS rebinding) is none.
#[derive(Debug, Clone)]
pub(super) enum Hosts {
    /// An address literal or `localhost`, with this port. Of a server on every address, any literal.
    Address(SocketAddr),
    /// A unix socket, where no browser comes.
    Any,
}

impl Hosts {
    fn allow(&self, host: &str) -> bool {
        let Self::Address(own) = self else { return true };
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, port.parse().ok())
            }
            _ => (host, Some(80)),
        };
        if port != Some(own.port()) {
            return false;
        }
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        match literal.parse::<IpAddr>() {
            Ok(address) => own.ip().is_unspecified() || address == own.ip(),
            Err(_) => {
                name.eq_ignore_ascii_case("localhost")
                    && (own.ip().is_loopback() || own.ip().is_unspecified())
            }
        }
    }
}

/// Before every route.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let needs_token = !matches!(request.uri().path(), "/" | "/app.js" | "/app.css" | "/icon.svg");
    let mut response = match judge(&shared, &request, needs_token) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn judge(shared: &Shared, request: &Request, needs_token: bool) -> Result<(), Refusal> {
    let headers = request.headers();
    let one_is_needed = || Refusal::new(StatusCode::BAD_REQUEST, "one Host header is needed");
    let host = match one(headers, &HOST) {
        Header::Text(host) => host,
        Header::Absent => request.uri().authority().map(Authority::as_str).ok_or_else(one_is_needed)?,
        Header::Wrong => return Err(one_is_needed()),
    };
    if !shared.hosts.allow(host) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "this server is not called so"));
    }
    let foreign = || Refusal::new(StatusCode::FORBIDDEN, "another site asks");
    match one(headers, &ORIGIN) {
        Header::Absent => {}
        Header::Text(origin) if origin.strip_prefix("http://") == Some(host) => {}
        Header::Text(_) | Header::Wrong => return Err(foreign()),
    }
    // Sent by browsers alone: `none` is a person who typed the address.
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none" && needs_token) {
        return Err(foreign());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this server only reads"));
    }
    if !needs_token {
        return Ok(());
    }
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|given| given.strip_prefix(b"Bearer "));
    if given.is_some_and(|given| shared.token.is(given)) {
        Ok(())
    } else {
        Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "the token is missing or wrong: open the address that rano printed",
        ))
    }
}

/// A header that stands at most once.
enum Header<'a> {
    Absent,
    Text(&'a str),
    /// It stands there twice, or is no text.
    Wrong,
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Header<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Header::Absent,
        (Some(Ok(text)), None) => Header::Text(text),
        _ => Header::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_gave_are_refused() {
        let check = |own: &str, host: &str, expected: bool| {
            let hosts = Hosts::Address(own.parse().expect("an address"));
            assert_eq!(hosts.allow(host), expected, "{own} as {host}");
        };
        for (host, expected) in [
            ("127.0.0.1:4000", true),
            ("localhost:4000", true),
            ("LOCALHOST:4000", true),
            ("127.0.0.1", false),
            ("127.0.0.1:4001", false),
            ("127.0.0.2:4000", false),
            ("evil.example:4000", false),
            ("127.0.0.1.evil.example:4000", false),
            ("localhost.:4000", false),
            ("[::1]:4000", false),
            ("", false),
            (":4000", false),
        ] {
            check("127.0.0.1:4000", host, expected);
        }
        check("[::1]:80", "[::1]", true);
        check("[::1]:80", "localhost", true);
        check("0.0.0.0:4000", "192.0.2.1:4000", true);
        check("0.0.0.0:4000", "evil.example:4000", false);
        check("192.0.2.1:4000", "localhost:4000", false);
    }

    #[test]
    fn tokens_differ_and_are_compared_whole() {
        let token = Token::random().expect("random numbers");
        assert!(
            token.is(token.text().as_bytes()) && !token.is(b"") && !token.is(&token.text().as_bytes()[1..])
        );
        assert_ne!(token.text(), Token::random().expect("random numbers").text());
        assert_eq!(token.text().len(), DIGITS);
        assert!(Token::parse("short").is_none() && Token::parse("0123456789abcdef g").is_none());
        assert!(Token::parse(" 0123456789abcdef\n").is_some());
    }
}
