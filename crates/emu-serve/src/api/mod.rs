//! The endpoints: requests in OpenAI's shape become work for the engine, its replies become responses.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod fields;
pub(crate) mod images;
mod messages;
mod stream;

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::engine::{Answer, Finish, Likelihood};
use crate::error::ApiError;
use crate::work::Times;
use serde_json::{Value, json};

/// 64 random bits, for identifiers, and for seeds where the client gives none. Not for secrets.
fn random() -> u64 {
    // Every state has its own keys, the first of which the system chose at random.
    RandomState::new().build_hasher().finish()
}

/// An identifier with OpenAI's prefix.
fn identifier(prefix: &str) -> String {
    format!("{prefix}-{:016x}{:016x}", random(), random())
}

/// OpenAI's name of the reason for an end.
fn finish_reason(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::End => "stop",
        Finish::Length => "length",
    }
}

/// Tokens of a call. A prompt with several choices counts once.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    prompt: usize,
    cached: usize,
    completion: usize,
    /// Of all choices: tokens of the prompt that were computed, those after the first of each choice, and times.
    computed: usize,
    followed: usize,
    times: Times,
}

impl Usage {
    /// Adds a choice. `first`: the first one of its prompt.
    fn add(&mut self, answer: &Answer, times: Times, first: bool) {
        if first {
            self.prompt += answer.prompt_tokens;
            self.cached += answer.cached_tokens;
        }
        self.completion += answer.tokens;
        self.computed += answer.prompt_tokens.saturating_sub(answer.cached_tokens);
        self.followed += answer.tokens.saturating_sub(1);
        self.times.prefill += times.prefill;
        self.times.decode += times.decode;
    }

    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt, "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }

    /// Times of both phases, in the shape of llama.cpp's server.
    fn timings(self) -> Value {
        let Times { prefill, decode } = self.times;
        let rate = |tokens: usize, seconds: f64| (seconds > 0.0).then(|| tokens as f64 / seconds);
        json!({
            "cache_n": self.cached, "prompt_n": self.computed, "prompt_ms": prefill * 1e3,
            "prompt_per_second": rate(self.computed, prefill),
            "predicted_n": self.completion, "predicted_ms": decode * 1e3,
            "predicted_per_second": rate(self.followed, decode),
        })
    }
}

/// A token in the log-probabilities of a chat.
fn likelihood(likelihood: &Likelihood) -> Value {
    json!({
        "token": likelihood.token(), "logprob": likelihood.logprob, "bytes": likelihood.bytes,
    })
}

/// Checks the model that a request names.
fn check_model(wanted: Option<&str>, served: &str) -> Result<(), ApiError> {
    match wanted {
        Some(wanted) if wanted != served => Err(no_model(wanted, served)),
        _ => Ok(()),
    }
}

/// The error for a model that is not served.
pub(crate) fn no_model(wanted: &str, served: &str) -> ApiError {
    let message = format!("There is no model {wanted:?} on this server. Use {served:?}.");
    ApiError::new(
        axum::http::StatusCode::NOT_FOUND,
        "model_not_found",
        message,
    )
    .at("model")
}
