//! What a policy would have to say to allow an endpoint.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::connections::Connection;
use super::endpoints::Endpoint;

/// Of an endpoint.
pub fn of_endpoint(endpoint: &Endpoint) -> Option<String> {
    let name = endpoint.key.name.as_ref();
    let port = endpoint.key.port;
    if endpoint.is_named { Some(domain(name, port)) } else { address(name, port) }
}

/// Of a connection's other end.
pub fn of_connection(row: &Connection) -> Option<String> {
    let (ip, port) = &row.event.remote;
    match (&row.event.domain, ip) {
        (Some(name), _) => Some(domain(name, row.event.domain_port.or(*port))),
        (None, Some(ip)) => address(ip, *port),
        (None, None) => None,
    }
}

fn domain(name: &str, port: Option<i64>) -> String {
    rule("domain", name, port)
}

/// `None` of what is no address of the Internet protocol.
fn address(ip: &str, port: Option<i64>) -> Option<String> {
    let ip: IpAddr = ip.split('%').next()?.parse().ok()?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    Some(rule("cidr", &format!("{ip}/{bits}"), port))
}

fn rule(key: &str, value: &str, port: Option<i64>) -> String {
    let value = toml::Value::String(value.to_owned());
    let mut text = format!("[[allow]]\n{key} = {value}");
    if let Some(port) = port {
        write!(text, "\nports = [{port}]").expect("writing into a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_toml_whatever_the_name_is() {
        assert_eq!(domain("a.example", Some(443)), "[[allow]]\ndomain = \"a.example\"\nports = [443]");
        assert_eq!(
            address("2001:db8::7", Some(8443)).as_deref(),
            Some("[[allow]]\ncidr = \"2001:db8::7/128\"\nports = [8443]")
        );
        assert_eq!(address("fe80::1%eth0", None).as_deref(), Some("[[allow]]\ncidr = \"fe80::1/128\""));
        assert_eq!(address("/run/a.sock", None), None);
        let hostile = "a\"\n[[allow]]\nclass=\"x\u{1b}";
        let text = domain(hostile, Some(1));
        let parsed: toml::Table = toml::from_str(&text).expect("TOML");
        assert_eq!(parsed["allow"].as_array().map(Vec::len), Some(1));
        assert_eq!(parsed["allow"][0]["domain"].as_str(), Some(hostile));
    }
}
