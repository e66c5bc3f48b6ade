//! A judge at an address in the shape of OpenAI's API.

use std::io::Read;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use ureq::Agent;
use ureq::http::HeaderMap;

use super::{Case, Grader, JudgePrompt, Secret};
use crate::tasks::error::ModelError;

/// What is added to the address of an API.
const ENDPOINT: &str = "/chat/completions";
/// Longest answer of a server that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// Longest pause that a server can ask for, in seconds.
const MAX_PAUSE: u64 = 60;
/// Characters of a server's message that are shown.
const SHOWN: usize = 200;
/// How often a reply without grade is asked for again, as the official judge does.
const TRIES: usize = 5;
/// What is added to the temperature then.
const WARMER: f64 = 0.5;

/// An address in the shape of OpenAI's API, and how it is asked.
#[derive(Clone, Debug)]
pub struct Address {
    /// Address of the API, such as `https://api.openai.com/v1`.
    pub url: String,
    /// Name of the model there. The official judge is `gpt-4-0613`.
    pub model: String,
    /// The key, if the address needs one.
    pub key: Option<Secret>,
    /// What the model is told.
    pub prompt: JudgePrompt,
    /// Longest reply in tokens. A number needs three; a model that reasons first needs more.
    pub max_tokens: usize,
    /// Time for one answer.
    pub limit: Duration,
    /// How often a request is repeated that finds no server, or an overloaded one.
    pub retries: usize,
    /// Pause before the first repetition; it doubles each time. A server's `Retry-After` is heeded up to a minute.
    pub pause: Duration,
}

/// Why an address does not answer.
#[derive(Debug, Error)]
pub enum AddressError {
    /// The address is none.
    #[error(
        "{url:?} is no address of an API: {reason}. Give one such as https://api.openai.com/v1"
    )]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// No answer.
    #[error(
        "{host} does not answer: {reason}. Check the address and the network, and run again to continue"
    )]
    Unreachable {
        /// The host.
        host: String,
        /// The last cause.
        reason: String,
    },
    /// A status that is not success.
    #[error("{host} refuses the request with status {status}{message}. {advice}")]
    Refused {
        /// The host.
        host: String,
        /// HTTP status.
        status: u16,
        /// What the server says.
        message: String,
        /// What to do.
        advice: &'static str,
    },
    /// An answer in another shape.
    #[error(
        "{host} does not answer in the shape of OpenAI's API: {reason}. Check the address: it usually ends in /v1"
    )]
    Answer {
        /// The host.
        host: String,
        /// What is wrong.
        reason: String,
    },
}

/// A client for an address.
pub struct Client {
    agent: Agent,
    address: Address,
    endpoint: String,
    host: String,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
}

/// What came of one request.
enum Sent {
    Reply(String),
    /// Worth another attempt, after the pause that the server asks for.
    Again(AddressError, Duration),
}

impl Address {
    /// An address with the usual limits.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            key: None,
            prompt: JudgePrompt::default(),
            max_tokens: 16,
            limit: Duration::from_secs(60),
            retries: 5,
            pause: Duration::from_secs(1),
        }
    }

    /// Its name in results.
    pub(super) fn name(&self) -> String {
        let host = host(&self.url).unwrap_or_default();
        format!("{} at {host}, {}", self.model, self.prompt.origin())
    }

    /// A client for it. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address is none, or would have the key sent unencrypted to another machine.
    pub fn client(&self) -> Result<Client, AddressError> {
        let wrong = |reason| AddressError::Url {
            url: self.url.clone(),
            reason,
        };
        let host =
            host(&self.url).ok_or_else(|| wrong("it does not begin with http:// or https://"))?;
        if host.contains('@') || self.url.contains(['?', '#']) {
            return Err(wrong("it has a name, password or query in it"));
        }
        let local = is_local(&host);
        if self.key.is_some() && !local && !self.url.to_ascii_lowercase().starts_with("https://") {
            return Err(wrong(
                "a key would be sent to another machine without encryption",
            ));
        }
        let mut config = Agent::config_builder()
            .user_agent(concat!("emu/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(self.limit));
        if local {
            config = config.proxy(None);
        }
        let base = self.url.trim_end_matches('/');
        let base = base.strip_suffix(ENDPOINT).unwrap_or(base);
        Ok(Client {
            agent: config.build().into(),
            endpoint: format!("{base}{ENDPOINT}"),
            address: self.clone(),
            host,
        })
    }
}

impl Client {
    fn send(&self, body: &str) -> Result<Sent, AddressError> {
        let mut request = self
            .agent
            .post(&self.endpoint)
            .header("Content-Type", "application/json");
        if let Some(key) = &self.address.key {
            request = request.header("Authorization", key.header());
        }
        let unreachable = |reason: String| AddressError::Unreachable {
            host: self.host.clone(),
            reason,
        };
        let none = Duration::ZERO;
        let response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Ok(Sent::Again(unreachable(error.to_string()), none)),
        };
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        let mut bytes = vec![];
        let read = body
            .into_reader()
            .take(MAX_ANSWER + 1)
            .read_to_end(&mut bytes);
        if let Err(error) = read {
            return Ok(Sent::Again(
                unreachable(format!("it breaks off ({error})")),
                none,
            ));
        }
        let text = String::from_utf8_lossy(&bytes);
        match status {
            200 => {
                let wrong = |reason: String| AddressError::Answer {
                    host: self.host.clone(),
                    reason,
                };
                if bytes.len() as u64 > MAX_ANSWER {
                    return Err(wrong(format!(
                        "the answer is longer than {MAX_ANSWER} bytes"
                    )));
                }
                let completion: Completion =
                    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
                let choice = completion.choices.into_iter().next();
                let choice = choice.ok_or_else(|| wrong("it has no choices".to_owned()))?;
                Ok(Sent::Reply(choice.message.content.unwrap_or_default()))
            }
            status => {
                let refused = AddressError::Refused {
                    host: self.host.clone(),
                    status,
                    message: message(&text),
                    advice: advice(status),
                };
                match status {
                    408 | 409 | 429 | 500..=599 => {
                        Ok(Sent::Again(refused, asked_pause(&parts.headers)))
                    }
                    _ => Err(refused),
                }
            }
        }
    }
}

impl Grader for Client {
    fn reply(&mut self, case: &Case) -> Result<String, ModelError> {
        let address = &self.address;
        let body = json!({
            "model": address.model,
            "messages": [{"role": "user", "content": address.prompt.fill(case)}],
            "temperature": (WARMER * case.attempt as f64).min(2.0),
            "max_tokens": address.max_tokens,
        });
        let body = body.to_string();
        let (mut pause, mut left) = (address.pause, address.retries);
        loop {
            match self.send(&body)? {
                Sent::Reply(text) => return Ok(text),
                Sent::Again(error, _) if left == 0 => return Err(error.into()),
                Sent::Again(_, asked) => {
                    left -= 1;
                    thread::sleep(pause.max(asked));
                    pause = (pause * 2).min(Duration::from_secs(MAX_PAUSE));
                }
            }
        }
    }

    fn tries(&self) -> usize {
        TRIES
    }
}

/// Host and port of an address.
fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    (known && !host.is_empty() && !host.contains(char::is_whitespace)).then(|| host.to_owned())
}

/// Whether a host is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn asked_pause(headers: &HeaderMap) -> Duration {
    let asked = headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok());
    let seconds = asked.and_then(|text| text.trim().parse::<u64>().ok());
    Duration::from_secs(seconds.unwrap_or(0).min(MAX_PAUSE))
}

/// The message of an error's body, shortened.
fn message(body: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error"));
    let text = error.and_then(|error| error.get("message").unwrap_or(error).as_str());
    let text = text.unwrap_or(body).split_whitespace();
    let text = text.collect::<Vec<_>>().join(" ");
    match text.trim_end_matches('.') {
        "" => String::new(),
        text => format!(": {}", text.chars().take(SHOWN).collect::<String>()),
    }
}

fn advice(status: u16) -> &'static str {
    match status {
        300..=399 => "Give the address that it redirects to",
        401 | 403 => "Check the key, and that it may use this model",
        404 => "Check the address, which usually ends in /v1, and the name of the model",
        408 | 409 | 429 | 500..=599 => "Wait, and run again to continue",
        _ => "Check the name of the model and what it accepts",
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
