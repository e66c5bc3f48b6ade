//! Settings of a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ServeError;

/// Settings of a server. The defaults suit one user on one machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one. Default: 127.0.0.1:8080.
    pub address: SocketAddr,
    /// Keys, one of which a client must send as `Authorization: Bearer KEY`. Without keys, only a loopback address is allowed,
    /// and only requests of programs on this machine and of pages of this server are answered. Default: none.
    pub api_keys: Vec<String>,
    /// Maximum number of calls that wait for the engine; further ones get status 429. Default: 64.
    pub queue: usize,
    /// Maximum number of bytes of requests that are being read, wait or run. Default: 512 MiB.
    pub queue_bytes: usize,
    /// Maximum length of a request in bytes. Default: 32 MiB.
    pub max_body: usize,
    /// Maximum number of pictures in a request. Default: 16.
    pub max_pictures: usize,
    /// Maximum length of a picture file in bytes. Default: 16 MiB.
    pub max_picture: usize,
    /// Maximum of `n`, and of the number of prompts of a completion. Default: 8.
    pub max_choices: usize,
    /// Maximum number of open connections; further ones wait. Default: 256.
    pub max_connections: usize,
    /// Fetch pictures from http and https addresses of the public network. Default: no.
    pub fetch: bool,
    /// Fetch pictures from addresses of private networks and of this machine too: anybody who may send requests can then
    /// reach what this machine can reach. Default: no.
    pub fetch_private: bool,
    /// Time for the head of a request, and until an idle connection is closed. Default: 30 s.
    pub header_timeout: Duration,
    /// Time for the body of a request. Default: 60 s.
    pub body_timeout: Duration,
    /// Time for fetching all pictures of a request. Default: 20 s.
    pub fetch_timeout: Duration,
    /// Time after which a client that reads nothing of its response is dropped. Default: 60 s.
    pub write_timeout: Duration,
    /// Time that a stopping server leaves the calls that it has accepted. Default: 30 s.
    pub grace: Duration,
    /// Folder of a page to serve at `/`, without a key. Default: none.
    pub page: Option<PathBuf>,
    /// Folder of a pack to serve beside the page at `/model/`, without a key, for `/?model=model/`. Default: none.
    pub pack: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            api_keys: vec![],
            queue: 64,
            queue_bytes: 512 << 20,
            max_body: 32 << 20,
            max_pictures: 16,
            max_picture: 16 << 20,
            max_choices: 8,
            max_connections: 256,
            fetch: false,
            fetch_private: false,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            fetch_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            page: None,
            pack: None,
        }
    }
}

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// Names the first setting that is wrong.
    pub fn validate(&self) -> Result<(), ServeError> {
        let sizes = [
            ("queue", self.queue),
            ("queue_bytes", self.queue_bytes),
            ("max_body", self.max_body),
            ("max_pictures", self.max_pictures),
            ("max_picture", self.max_picture),
            ("max_choices", self.max_choices),
            ("max_connections", self.max_connections),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ServeError::Zero(name));
        }
        let visible = |key: &String| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
        if !self.api_keys.iter().all(visible) {
            return Err(ServeError::BadKey);
        }
        if self.api_keys.is_empty() && !self.address.ip().is_loopback() {
            return Err(ServeError::NoKey(self.address));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_key() {
        let at = |address: &str, keys: &[&str]| {
            let config = Config {
                address: address.parse().expect("an address"),
                api_keys: keys.iter().map(|&key| key.to_owned()).collect(),
                ..Config::default()
            };
            config.validate().err().map(|error| error.code())
        };
        assert_eq!(at("127.0.0.1:0", &[]), None);
        assert_eq!(at("127.0.0.2:80", &[]), None);
        assert_eq!(at("[::1]:80", &[]), None);
        for open in ["0.0.0.0:80", "[::]:80", "192.168.1.2:80", "8.8.8.8:80"] {
            assert_eq!(at(open, &[]), Some("serve-no-key"), "{open}");
            assert_eq!(at(open, &["a-key"]), None, "{open}");
        }
        for key in ["", "a key", "schlüssel", "a\nb"] {
            assert_eq!(at("127.0.0.1:0", &["good", key]), Some("serve-bad-key"));
        }
    }

    #[test]
    fn a_limit_of_zero_is_named() {
        let config = Config {
            max_pictures: 0,
            ..Config::default()
        };
        let error = config.validate().expect_err("no pictures at all");
        assert!(error.to_string().contains("max_pictures"), "{error}");
    }
}
