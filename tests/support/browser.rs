//! A browser without a window, driven as <https://www.w3.org/TR/webdriver2/> has it, by the distribution's
//! chromedriver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::namespace::Place;
use super::trial::skip;
use super::{PATIENCE, stage, wait_until};

const DRIVER: &str = "/usr/bin/chromedriver";
const BROWSER: &str = "/usr/bin/chromium";

/// One window.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Its profile.
    home: TempDir,
}

impl Browser {
    /// In the test's own network, as the user of `place`. Skips where there is no Chromium.
    pub fn start(place: &Place) -> Result<Self> {
        if !Path::new(DRIVER).exists() || !Path::new(BROWSER).exists() {
            return Err(skip("no chromium and chromium-driver installed"));
        }
        let home = stage::directory(place)?;
        let mut command = Command::new(DRIVER);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("LANG", "C.UTF-8");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        place.beside_the_test().apply(&mut command);
        let mut driver = command.spawn().context("start chromedriver")?;
        let mut lines = BufReader::new(driver.stdout.take().context("a pipe")?).lines();
        let port = loop {
            let line = lines.next().context("chromedriver ended")??;
            if let Some(port) = line.split("successfully on port ").nth(1) {
                break port.trim_end_matches('.').parse()?;
            }
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Self { driver, port, session: String::new(), home };
        let profile = format!("--user-data-dir={}", browser.home.path().join("profile").display());
        let answer = browser.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": BROWSER, "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", profile,
            ] },
        } } }))?;
        answer["sessionId"].as_str().context("a session")?.clone_into(&mut browser.session);
        Ok(browser)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = if method == "GET" || method == "DELETE" { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        // It keeps the connection, whatever it is asked.
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse()?;
                }
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut json: Value = serde_json::from_slice(&body).context("an answer of chromedriver")?;
        let value = json["value"].take();
        if let Some(error) = value["error"].as_str() {
            bail!("{path}: {error}: {}", value["message"]);
        }
        Ok(value)
    }

    fn post(&self, command: &str, body: &Value) -> Result<Value> {
        self.call("POST", &format!("/session/{}/{command}", self.session), body)
    }

    /// A window of this size, as a screen reports it.
    pub fn resize(&self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let cdp = |name: &str, parameters: Value| {
            self.post("goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
        };
        cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({
                "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
            }),
        )?;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        cdp("Emulation.setEmulatedMedia", json!({ "features": features }))?;
        Ok(())
    }

    pub fn open(&self, url: &str) -> Result<()> {
        self.post("url", &json!({ "url": url })).map(drop)
    }

    /// What the script returns.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Until the expression is true.
    pub fn wait_for(&self, expression: &str) -> Result<()> {
        let outcome = wait_until(expression, || {
            std::thread::sleep(Duration::from_millis(20));
            Ok(self.run(&format!("return Boolean({expression})"))? == true)
        });
        outcome.with_context(|| {
            self.run("return document.body.innerText").map(|text| text.to_string()).unwrap_or_default()
        })
    }

    /// A press of the pointer at one place, and its release at another, within an element.
    pub fn drag(&self, selector: &str, from: f64, to: f64) -> Result<()> {
        let at = self.run(&format!(
            "const box = document.querySelector('{selector}').getBoundingClientRect();
             return [box.left, box.width, box.top + box.height / 3]"
        ))?;
        let number = |index: usize| at[index].as_f64().context("a number");
        let (left, width, y) = (number(0)?, number(1)?, number(2)?);
        #[expect(clippy::cast_possible_truncation, reason = "pixels")]
        let place = |share: f64| json!({ "type": "pointerMove", "duration": 20, "x": (left + width * share) as i64, "y": y as i64 });
        self.post(
            "actions",
            &json!({ "actions": [{ "type": "pointer", "id": "mouse", "actions": [
            place(from), { "type": "pointerDown", "button": 0 }, place(f64::midpoint(from, to)), place(to),
            { "type": "pointerUp", "button": 0 },
        ] }] }),
        )?;
        Ok(())
    }

    pub fn key(&self, key: &str) -> Result<()> {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.post("actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }))
            .map(drop)
    }

    /// What was written to the console since the last call, warnings and errors.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.post("se/log", &json!({ "type": "browser" }))?;
        let texts = entries.as_array().into_iter().flatten().filter(|entry| entry["level"] != "INFO");
        Ok(texts.map(|entry| entry["message"].to_string()).collect())
    }

    /// What the window shows, as PNG.
    pub fn picture(&self) -> Result<Vec<u8>> {
        let answer = self.call("GET", &format!("/session/{}/screenshot", self.session), &Value::Null)?;
        bytes(answer.as_str().context("a picture")?)
    }
}

/// Of base64 (RFC 4648).
fn bytes(text: &str) -> Result<Vec<u8>> {
    let digit = |sign: u8| match sign {
        b'A'..=b'Z' => Ok(u32::from(sign - b'A')),
        b'a'..=b'z' => Ok(u32::from(sign - b'a') + 26),
        b'0'..=b'9' => Ok(u32::from(sign - b'0') + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => bail!("no base64: {sign}"),
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let mut bits = 0;
        for place in 0..4 {
            bits = bits << 6 | chunk.get(place).map_or(Ok(0), |sign| digit(*sign))?;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Ok(bytes)
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
