//! HTTP requests to the hub: redirects, the token, and what statuses mean.

use std::io::Read;
use std::time::Duration;

use ureq::http::HeaderMap;
use ureq::{Agent, Body};

use crate::{Address, HubError, Options};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 8;
/// Maximum size of a JSON answer.
const MAX_JSON: u64 = 64 << 20;
/// Maximum size of the body of an error.
const MAX_ERROR: u64 = 64 << 10;
/// Longest pause that a server can ask for.
const MAX_PAUSE: u64 = 60;

/// Bytes of a file: from the first on, to the second, which is excluded; to the end if there is no second.
pub(crate) type Span = (u64, Option<u64>);

/// A client for one set of options.
pub(crate) struct Client {
    agent: Agent,
    pub options: Options,
}

/// A server's answer.
pub(crate) struct Reply {
    /// Address without its query, which may be a signature.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// ETag of the file in the repository, without quotes. Redirects state it.
    pub etag: Option<String>,
    /// Size of the file in the repository, if a redirect states it.
    pub linked_size: Option<u64>,
    headers: HeaderMap,
    body: Body,
}

/// What a request is for, to explain its failure.
#[derive(Clone, Copy)]
pub(crate) struct Purpose<'a> {
    pub address: &'a Address,
    /// A file of the repository.
    pub path: Option<&'a str>,
}

impl Client {
    pub fn new(options: &Options) -> Self {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let config = Agent::config_builder()
            .user_agent(concat!("emu/", env!("CARGO_PKG_VERSION")))
            // Statuses and redirects are handled here: their headers are needed.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(seconds(15))
            .timeout_connect(seconds(20))
            .timeout_send_request(seconds(20))
            .timeout_recv_response(seconds(60))
            .timeout_per_read(Some(options.stall))
            .build();
        Self {
            agent: config.into(),
            options: options.clone(),
        }
    }

    /// Address of the description of a repository at a revision.
    pub fn info_url(&self, address: &Address) -> String {
        let (endpoint, revision) = (&self.options.endpoint, encoded(address.revision()));
        let repo = address.repo();
        format!("{endpoint}/api/models/{repo}/revision/{revision}?blobs=true")
    }

    /// Address of a file at a commit.
    pub fn file_url(&self, address: &Address, commit: &str, path: &str) -> String {
        let (endpoint, repo, commit) = (&self.options.endpoint, address.repo(), encoded(commit));
        let path: Vec<String> = path.split('/').map(encoded).collect();
        format!("{endpoint}/{repo}/resolve/{commit}/{}", path.join("/"))
    }

    /// Requests `url`, or some bytes of it, and follows redirects. The answer may be an error, see [`Reply::checked`].
    ///
    /// # Errors
    /// If there is no answer, or redirects lead nowhere.
    pub fn get(&self, url: &str, span: Option<Span>) -> Result<Reply, HubError> {
        let mut url = url.to_owned();
        let (mut etag, mut linked_size) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            self.options.go_on()?;
            let answer = self.send(&url, span)?;
            let (status, (parts, body)) = (answer.status().as_u16(), answer.into_parts());
            let headers = parts.headers;
            etag = etag.or_else(|| header(&headers, "x-linked-etag"));
            linked_size = linked_size.or_else(|| header(&headers, "x-linked-size")?.parse().ok());
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                let target = header(&headers, "location").and_then(|to| joined(&url, &to));
                url = target.ok_or_else(|| HubError::Answer {
                    url: shown(&url),
                    reason: "it redirects to no address, or to an unencrypted one".into(),
                })?;
                continue;
            }
            let etag = etag.or_else(|| header(&headers, "etag"));
            return Ok(Reply {
                url: shown(&url),
                status,
                etag: etag.as_deref().and_then(unquoted),
                linked_size,
                headers,
                body,
            });
        }
        Err(HubError::Answer {
            url: shown(&url),
            reason: "it redirects again and again".into(),
        })
    }

    fn send(&self, url: &str, span: Option<Span>) -> Result<ureq::http::Response<Body>, HubError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.options.token
            && origin(url).eq_ignore_ascii_case(origin(&self.options.endpoint))
        {
            request = request.header("Authorization", token.header());
        }
        if let Some((from, to)) = span {
            let last = to.map_or_else(String::new, |to| to.saturating_sub(1).to_string());
            request = request.header("Range", format!("bytes={from}-{last}"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => HubError::Answer {
                url: shown(url),
                reason: "it is no valid address".into(),
            },
            error => HubError::Unreachable {
                host: origin(url).into(),
                reason: error.to_string(),
            },
        })
    }

    /// Requests JSON. A server that is overloaded is asked again.
    ///
    /// # Errors
    /// As [`Client::get`] and [`Reply::checked`], or if the answer is no JSON.
    pub fn json(&self, url: &str, purpose: Purpose<'_>) -> Result<serde_json::Value, HubError> {
        let mut attempt = 0;
        let reply = loop {
            let reply = self.get(url, None)?;
            match reply.pause() {
                Some(asked) if attempt < self.options.retries => {
                    attempt += 1;
                    self.options
                        .wait(asked.max(backoff(&self.options, attempt)))?;
                }
                _ => break reply.checked(purpose, &self.options)?,
            }
        };
        let url = reply.url.clone();
        let wrong = |reason: String| HubError::Answer {
            url: url.clone(),
            reason,
        };
        let mut bytes = vec![];
        let read = reply.reader().take(MAX_JSON + 1).read_to_end(&mut bytes);
        read.map_err(|error| wrong(format!("it breaks off ({error})")))?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(wrong("it is too long".into()));
        }
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("it is no JSON ({error})")))
    }
}

impl Reply {
    /// Reader of the body.
    pub fn reader(self) -> impl Read {
        self.body.into_reader()
    }

    /// Number of the first byte and of all bytes, of an answer that has a part of the file.
    pub fn content_range(&self) -> Option<(u64, Option<u64>)> {
        let text = header(&self.headers, "content-range")?;
        let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
        let (first, _) = range.split_once('-')?;
        Some((first.trim().parse().ok()?, total.trim().parse().ok()))
    }

    /// Length of the body, if stated.
    pub fn content_length(&self) -> Option<u64> {
        header(&self.headers, "content-length")?.trim().parse().ok()
    }

    /// The pause that a server needs that is overloaded or broken for a moment; `None` for any other answer.
    pub fn pause(&self) -> Option<Duration> {
        if !matches!(self.status, 408 | 429 | 500 | 502 | 503 | 504) {
            return None;
        }
        let asked = header(&self.headers, "retry-after").and_then(|text| text.trim().parse().ok());
        Some(Duration::from_secs(asked.unwrap_or(0).min(MAX_PAUSE)))
    }

    /// The answer itself, or the error that its status means.
    ///
    /// # Errors
    /// For every status but 200 and 206.
    pub fn checked(self, purpose: Purpose<'_>, options: &Options) -> Result<Self, HubError> {
        match self.status {
            200 | 206 => Ok(self),
            _ => Err(self.refusal(purpose, options)),
        }
    }

    fn refusal(self, purpose: Purpose<'_>, options: &Options) -> HubError {
        let (address, status, url) = (purpose.address, self.status, self.url.clone());
        let (repo, endpoint) = (address.repo(), options.endpoint.clone());
        let code = header(&self.headers, "x-error-code").unwrap_or_default();
        let message = self.message();
        let hidden = || HubError::NoRepository {
            repo: repo.clone(),
            endpoint: endpoint.clone(),
            how: match options.token {
                Some(_) => "with this token",
                None => "without a token",
            },
        };
        match (status, code.as_str()) {
            (_, "GatedRepo") => HubError::Gated {
                page: format!("{endpoint}/{repo}"),
                repo,
            },
            (_, "RevisionNotFound") => HubError::NoRevision {
                repo,
                revision: address.revision().into(),
            },
            (404, "EntryNotFound") => absent(address, purpose.path.unwrap_or_default()),
            // The hub does not tell strangers which private repositories exist.
            (_, "RepoNotFound") => hidden(),
            (401, _) if options.token.is_none() && code.is_empty() && purpose.path.is_none() => {
                hidden()
            }
            (401, _) => HubError::Unauthorized {
                repo,
                endpoint,
                message,
            },
            (403, _) => HubError::Forbidden {
                repo,
                endpoint,
                message,
            },
            (404, _) => match purpose.path {
                Some(path) => absent(address, path),
                None => hidden(),
            },
            _ => HubError::Status {
                url,
                status,
                message,
            },
        }
    }

    /// The server's own words.
    fn message(self) -> String {
        let stated = header(&self.headers, "x-error-message");
        let message = stated.or_else(|| {
            let mut body = vec![];
            let _ = self.reader().take(MAX_ERROR).read_to_end(&mut body);
            let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
            Some(json.get("error")?.as_str()?.to_owned())
        });
        let words: String = message
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(200)
            .collect();
        match words.trim().trim_end_matches('.') {
            "" => "no reason given".into(),
            words => words.into(),
        }
    }
}

/// The error for a path that a repository does not have.
pub(crate) fn absent(address: &Address, path: &str) -> HubError {
    HubError::NoFile {
        repo: address.repo(),
        path: path.into(),
        revision: address.revision().into(),
    }
}

/// The pause before an attempt, counted from 1.
pub(crate) fn backoff(options: &Options, attempt: u32) -> Duration {
    let factor = 1u32 << attempt.saturating_sub(1).min(5);
    options.pause.saturating_mul(factor)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// An ETag without its quotes and mark of weakness; `None` if nothing is left that can be a file name.
fn unquoted(etag: &str) -> Option<String> {
    let etag = etag.trim();
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fine = (1..=128).contains(&etag.len()) && etag.chars().all(allowed);
    fine.then(|| etag.to_owned())
}

/// Percent-encodes one part of a path.
fn encoded(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(host..).unwrap_or_default();
    let end = rest.find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

/// The target of a redirect from `url`; `None` if it is no address, or gives up encryption.
fn joined(url: &str, target: &str) -> Option<String> {
    let target = match target {
        _ if target.starts_with("https://") || target.starts_with("http://") => target.to_owned(),
        _ if target.starts_with("//") => format!("{}:{target}", url.split_once(':')?.0),
        _ if target.starts_with('/') => format!("{}{target}", origin(url)),
        _ => return None,
    };
    let safe = target.starts_with("https://") || url.starts_with("http://");
    safe.then_some(target)
}

/// An address for messages.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded_joined_and_compared() {
        assert_eq!(encoded("refs/pr/3"), "refs%2Fpr%2F3");
        assert_eq!(encoded("a b#é~.x"), "a%20b%23%C3%A9~.x");
        for (url, wanted) in [
            ("https://a.b/c", "https://a.b"),
            ("https://a.b:8/c/d", "https://a.b:8"),
            ("https://a.b?c/d", "https://a.b"),
            ("https://a.b", "https://a.b"),
            ("https://a.b@c/d", "https://a.b@c"),
        ] {
            assert_eq!(origin(url), wanted, "{url}");
        }
        for (url, target, wanted) in [
            ("https://a/b", "/c?d", Some("https://a/c?d")),
            ("https://a/b", "//e/f", Some("https://e/f")),
            ("https://a/b", "https://e/f", Some("https://e/f")),
            ("https://a/b", "http://a/b", None),
            ("http://a/b", "http://e/f", Some("http://e/f")),
            ("https://a/b", "c", None),
            ("https://a/b", "file:///etc/passwd", None),
        ] {
            assert_eq!(joined(url, target).as_deref(), wanted, "{url} {target}");
        }
        assert_eq!(shown("https://a/b?secret=1"), "https://a/b");
    }

    #[test]
    fn etags_become_file_names() {
        for (etag, wanted) in [
            ("\"abc\"", Some("abc")),
            ("W/\"abc-1\"", Some("abc-1")),
            ("abc", Some("abc")),
            ("\"\"", None),
            ("\"../x\"", None),
            ("\"a b\"", None),
        ] {
            assert_eq!(unquoted(etag).as_deref(), wanted, "{etag}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_finite() {
        let options = Options::new("/c");
        let times = [1, 2, 3, 6, 60].map(|at| backoff(&options, at).as_secs());
        assert_eq!(times, [1, 2, 4, 32, 32]);
    }
}
