//! The address of a member as etcd writes it: `http://host:port`, `https://host:port` or a Unix
//! socket. Owns the syntax only; never resolves a name, and never decides which schemes a node
//! can serve.

use std::fmt;

/// A checked address. Two are equal when their text is: `localhost` and `127.0.0.1` are different
/// addresses, also to etcd, which hashes the text into member ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    endpoint: Endpoint,
    is_tls: bool,
}

/// What an address points at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `host` is a name or an IP address without brackets; it is empty in `http://:2380`.
    Tcp { host: String, port: u16 },
    /// The path of a socket file, absolute or relative to the working directory.
    Unix { path: String },
}

/// Why a text is no address. The texts are those etcd prints, since scripts match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    #[error("URL must not contain a path: {0}")]
    Path(String),
    #[error("parse \"{0}\": invalid port \":{1}\" after host")]
    Port(String, String),
    #[error("URL does not name a socket: {0}")]
    Socket(String),
}

impl Url {
    /// Reads one address; spaces around it do not count. Source: `NewURLs` of etcd's client/pkg.
    pub fn parse(text: &str) -> Result<Url, Error> {
        let text = text.trim();
        let (scheme, rest) = text.split_once(':').ok_or_else(|| Error::Scheme(text.to_owned()))?;
        let scheme = scheme.to_ascii_lowercase();
        let is_tls = matches!(scheme.as_str(), "https" | "unixs");
        let endpoint = match scheme.as_str() {
            "http" | "https" => tcp(text, rest)?,
            "unix" | "unixs" => unix(text, rest)?,
            _ => return Err(Error::Scheme(text.to_owned())),
        };
        Ok(Url { text: format!("{scheme}:{rest}"), endpoint, is_tls })
    }

    /// The address as given, with the scheme in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// True for `https` and `unixs`.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn tcp(text: &str, rest: &str) -> Result<Endpoint, Error> {
    let not_host_port = || Error::HostPort(text.to_owned());
    let rest = rest.strip_prefix("//").ok_or_else(not_host_port)?;
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = split_host_port(authority).ok_or_else(not_host_port)?;
    // A port that is no number is worth its own words: it is the commonest slip of the pen.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Port(text.to_owned(), port.to_owned()));
    }
    let port = port.parse().map_err(|_| not_host_port())?;
    if !path.is_empty() {
        return Err(Error::Path(text.to_owned()));
    }
    Ok(Endpoint::Tcp { host: host.to_owned(), port })
}

/// `host:port` or `[host]:port`. An IPv6 address without brackets is ambiguous and refused.
fn split_host_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').map(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => host?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !"[]@<>\"\\^`{|}".contains(c);
    host.chars().all(is_plain).then_some((host, port))
}

fn unix(text: &str, rest: &str) -> Result<Endpoint, Error> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.contains('\0') {
        return Err(Error::Socket(text.to_owned()));
    }
    Ok(Endpoint::Unix { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Url::parse(text).expect_err(text).to_string()
    }

    fn endpoint(text: &str) -> Endpoint {
        Url::parse(text).expect(text).endpoint
    }

    #[test]
    fn reads_hosts_and_ports() {
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
        assert_eq!(endpoint("http://localhost:2380"), tcp("localhost", 2380));
        assert_eq!(endpoint(" https://10.0.0.1:1 "), tcp("10.0.0.1", 1));
        assert_eq!(endpoint("http://[::1]:2380"), tcp("::1", 2380));
        assert_eq!(endpoint("http://:2380"), tcp("", 2380));
        assert_eq!(endpoint("unix:///run/x.sock"), Endpoint::Unix { path: "/run/x.sock".into() });
        assert_eq!(endpoint("unixs://x:1"), Endpoint::Unix { path: "x:1".into() });
        assert_eq!(endpoint("unix:/run/x"), Endpoint::Unix { path: "/run/x".into() });
    }

    #[test]
    fn keeps_the_text_but_for_the_case_of_the_scheme() {
        let url = Url::parse(" HTTPS://Node-A:2380 ").expect("an address");
        assert_eq!(url.as_str(), "https://Node-A:2380");
        assert!(url.is_tls());
        assert!(!Url::parse("http://a:1").expect("an address").is_tls());
        assert!(Url::parse("unixs:a").expect("an address").is_tls());
    }

    #[test]
    fn refuses_in_the_words_of_etcd() {
        let form = |text: &str| format!("URL address does not have the form \"host:port\": {text}");
        let scheme = |text: &str| format!("URL scheme must be http, https, unix, or unixs: {text}");
        for text in ["", "foo", "ftp://a:1", "localhost:2380", "127.0.0.1:2380", "://a:1"] {
            assert_eq!(error(text), scheme(text));
        }
        let formless = [
            "http://localhost",
            "http:localhost:1",
            "http://",
            "http://localhost:",
            "http://localhost:65536",
            "http://::1:2380",
            "http://[::1:2380",
            "http://[::1]",
            "http://[::1]x:1",
            "http://a b:1",
            "http://user@a:1",
        ];
        for text in formless {
            assert_eq!(error(text), form(text));
        }
        for text in ["http://a:1/", "http://a:1/b", "http://a:1?b", "http://a:1#b"] {
            assert_eq!(error(text), format!("URL must not contain a path: {text}"));
        }
        assert_eq!(error("http://a:x"), "parse \"http://a:x\": invalid port \":x\" after host");
        assert_eq!(error("http://a:+1"), "parse \"http://a:+1\": invalid port \":+1\" after host");
        assert_eq!(error("unix://"), "URL does not name a socket: unix://");
    }
}
