//! Which bytes are the name of a host: what people read must be what was asked for.

use std::sync::Arc;

/// A name has at most so many characters (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// Lower case, without the final dot. `None` for what is no host name (RFC 1123, section 2.1, underscores allowed):
/// a label may hold any byte, dots and control characters included, and must not read like another name.
pub fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Arc<str>> {
    let mut name = String::new();
    for label in labels.filter(|label| !label.is_empty()) {
        if !label.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        if name.len() > LONGEST {
            return None;
        }
    }
    // An address is no name (RFC 6066, section 3), and no top-level domain is a number.
    let last = name.rsplit('.').next().unwrap_or_default();
    (!last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit())).then(|| name.into())
}

/// As TLS writes it, with dots.
pub fn from_text(text: &[u8]) -> Option<Arc<str>> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    let mut labels = text.split(|&byte| byte == b'.');
    if labels.clone().any(<[u8]>::is_empty) {
        return None;
    }
    from_labels(&mut labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_the_final_dot_do_not_matter() {
        for text in ["api.Example.COM", "API.example.com.", "a_b-c.x1"] {
            let expected = text.trim_end_matches('.').to_ascii_lowercase();
            assert_eq!(from_text(text.as_bytes()).as_deref(), Some(&*expected));
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        let long = [b'a'; 254];
        let hostile: [&[u8]; 12] = [
            b"",
            b".",
            b"a..b",
            b".a",
            b"1.2.3.4",
            b"::1",
            b"a\x1b[31m.com",
            b"a\n.com",
            b"evil.com\0.good.com",
            "t\u{202e}moc.live".as_bytes(),
            b"\xff\xfe",
            &long,
        ];
        for text in hostile {
            assert_eq!(from_text(text), None, "{text:?}");
        }
        assert_eq!(
            from_labels([&b"api.anthropic.com"[..], b"evil", b"net"].into_iter()),
            None,
            "a dot in a label"
        );
    }
}
