//! The page of `rano serve`, and the same as one file of its own.

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::base64::base64;
use super::escape::Line;
use super::json;

/// The page.
pub const HTML: &str = include_str!("page/index.html");
/// Its look.
pub const STYLE: &str = include_str!("page/app.css");
/// What moves it; plain scripts, one after the other.
pub const SCRIPT: &str = concat!(
    include_str!("page/base.js"),
    include_str!("page/state.js"),
    include_str!("page/map.js"),
    include_str!("page/strip.js"),
    include_str!("page/list.js"),
    include_str!("page/panels.js"),
    include_str!("page/live.js"),
    include_str!("page/app.js"),
);
/// What stands in the tab.
pub const ICON: &str = include_str!("page/icon.svg");

/// A report as one file: nothing in it is fetched from anywhere, and its policy allows nothing but what stands in it.
/// `data` is what the page would ask for.
pub fn html(data: &Json, title: &str) -> String {
    // Within a script element only `<` can end it (html.spec.whatwg.org/#restrictions-for-contents-of-script-elements).
    let data = json::text(data).replace('<', "\\u003c");
    let policy = format!(
        "default-src 'none'; img-src data:; style-src '{}'; script-src '{}'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let icon = format!("data:image/svg+xml;base64,{}", base64(ICON.as_bytes()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{}</title>\n<link rel=\"icon\" href=\"{icon}\">\n<style>{STYLE}</style>\n<body>\n\
         <div id=\"app\"></div>\n<noscript>This report needs JavaScript to be drawn.</noscript>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>{SCRIPT}</script>\n",
        markup(title),
    )
}

/// As a policy names a script or a style (w3.org/TR/CSP3/#grammardef-hash-source).
fn hash(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text.as_bytes())))
}

/// Text as text in markup.
fn markup(text: &str) -> String {
    let text = Line(text).to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_data_ends_its_element() {
        let data = serde_json::json!({ "name": "</script><script>alert(1)</script><!--" });
        let text = html(&data, "</title><script>");
        assert_eq!(text.matches("<script").count(), 2, "{text}");
        assert!(!text.contains("<!--") && text.contains("\\u003c/script>"));
    }

    /// A policy that needs no exception: no handler in markup, no style in an attribute.
    #[test]
    fn the_page_keeps_its_own_policy() {
        for text in [HTML, SCRIPT] {
            for sign in
                ["onclick=\"", "style=\"", "innerHTML", "eval(", "javascript:", "document.write", "http://"]
            {
                let allowed = sign == "http://"
                    && text.matches(sign).count() == text.matches("http://www.w3.org/2000/svg").count();
                assert!(!text.contains(sign) || allowed, "{sign}");
            }
        }
    }
}
