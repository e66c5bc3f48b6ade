//! Who may send requests: holders of a key; without keys, this machine alone.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

use crate::error::ApiError;

/// The keys of a server.
pub(crate) struct Keys(Vec<[u8; 32]>);

impl Keys {
    pub fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| digest(key.as_bytes())).collect())
    }

    /// Checks the head of a request.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match self.0.is_empty() {
            true => check_origin(headers),
            false => self.check_key(headers),
        }
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let refuse = |message: &str| {
            let status = StatusCode::UNAUTHORIZED;
            Err(ApiError::new(status, "invalid_api_key", message))
        };
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            return refuse("No API key was sent. Send the header: Authorization: Bearer KEY.");
        };
        let Some(key) = bearer(given.as_bytes()) else {
            return refuse(
                "The Authorization header has no bearer token. Send: Authorization: Bearer KEY.",
            );
        };
        let given = digest(key);
        // All keys are compared, each to its end, so that the time tells nothing about them.
        let known = self
            .0
            .iter()
            .fold(false, |known, key| known | equal(key, &given));
        match known {
            true => Ok(()),
            false => refuse("The API key is wrong. Ask whoever runs this server for one."),
        }
    }
}

/// The token of `Bearer TOKEN`; the scheme's name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = value.split_at(at);
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer") && !token.is_empty()).then_some(token)
}

/// Digests have equal lengths, so that the time of a comparison does not tell the length of a key.
fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Compares in constant time.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Without keys, refuses what the pages of other sites can send from this machine's browser: requests to a name that merely
/// resolves to this machine, and requests from another origin.
fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |message: &str| {
        let status = StatusCode::FORBIDDEN;
        Err(ApiError::new(status, "forbidden_origin", message))
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).and_then(|host| host.parse::<Authority>().ok());
    let Some(host) = host.filter(|host| is_this_machine(host.host())) else {
        return refuse(
            "Without an API key, this server answers only requests to localhost. Use that name, or set an API key.",
        );
    };
    if headers.contains_key(header::ORIGIN) {
        let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
        let own = origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host.as_str()));
        if !own {
            return refuse(
                "Without an API key, this server answers no pages of other sites. Set an API key, or open the page from this server.",
            );
        }
    }
    Ok(())
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a header");
        pairs
            .iter()
            .map(|(name, text)| (name.parse().expect("a name"), value(text)))
            .collect()
    }

    #[test]
    fn a_key_is_needed_as_a_bearer_token() {
        let keys = Keys::new(&["first-key".into(), "second-key".into()]);
        let status = |value: &str| {
            let result = keys.check(&headers(&[("authorization", value)]));
            result.err().map(|error| error.status.as_u16())
        };
        for right in [
            "Bearer first-key",
            "bearer second-key",
            "BEARER  first-key ",
        ] {
            assert_eq!(status(right), None, "{right}");
        }
        for wrong in [
            "Bearer first-ke",
            "Bearer first-keys",
            "Bearer",
            "Bearer ",
            "first-key",
            "Basic first-key",
            "",
        ] {
            assert_eq!(status(wrong), Some(401), "{wrong}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn without_keys_other_sites_are_refused() {
        let keys = Keys::new(&[]);
        let allowed = |pairs: &[(&'static str, &str)]| keys.check(&headers(pairs)).is_ok();
        for host in [
            "localhost",
            "localhost:8080",
            "127.0.0.1:80",
            "[::1]:80",
            "127.9.9.9",
        ] {
            assert!(allowed(&[("host", host)]), "{host}");
            let origin = format!("http://{host}");
            assert!(allowed(&[("host", host), ("origin", &origin)]), "{host}");
            assert!(!allowed(&[("host", host), ("origin", "http://evil.test")]));
            assert!(!allowed(&[("host", host), ("origin", "null")]));
        }
        for host in ["evil.test", "localhost.evil.test", "10.0.0.1", "", "a b"] {
            assert!(!allowed(&[("host", host)]), "{host}");
        }
        assert!(!allowed(&[]));
        assert!(!allowed(&[
            ("host", "localhost:8080"),
            ("origin", "http://localhost:9")
        ]));
    }
}
