//! `/v1/completions`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fields::{TextFields, TextOr, choices};
use super::stream::{self, Format};
use super::{Usage, check_model, finish_reason, identifier};
use crate::app::App;
use crate::body;
use crate::engine::{Answer, TokenLogprob};
use crate::error::{ApiError, json_response};
use crate::metrics::now;
use crate::work::{Reply, Work};

/// Maximum of `logprobs`, as in OpenAI's API.
const MAX_TOP: usize = 5;

#[derive(Debug, Deserialize)]
struct CompletionBody {
    prompt: TextOr<Value>,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    best_of: Option<usize>,
}

impl CompletionBody {
    fn prompts(&mut self, most: usize) -> Result<Vec<String>, ApiError> {
        let prompts = match std::mem::replace(&mut self.prompt, TextOr::Many(vec![])) {
            TextOr::Text(prompt) => vec![prompt],
            TextOr::Many(prompts) => {
                let text = |prompt: Value| match prompt {
                    Value::String(prompt) => Some(prompt),
                    _ => None,
                };
                let prompts: Option<Vec<String>> = prompts.into_iter().map(text).collect();
                prompts.ok_or_else(|| {
                    ApiError::unsupported(
                        "prompt",
                        "A prompt is not a string. Send text, not tokens.",
                    )
                })?
            }
        };
        match prompts.len() {
            0 => Err(ApiError::value(
                "prompt",
                "There is no prompt. Give at least one.",
            )),
            n if n > most => {
                let message = format!("There are {n} prompts. Give at most {most}.");
                Err(ApiError::value("prompt", message))
            }
            _ => Ok(prompts),
        }
    }

    /// Checks what this server does not do. Number of alternatives per token; `None` without log-probabilities.
    fn check(&self, n: usize) -> Result<Option<(usize, &'static str)>, ApiError> {
        if self
            .suffix
            .as_ref()
            .is_some_and(|suffix| !suffix.is_empty())
        {
            let message = "This model continues a text, and inserts none. Leave suffix out.";
            return Err(ApiError::unsupported("suffix", message));
        }
        if self.best_of.is_some_and(|best| best != n) {
            let message = "This server gives all texts that it generates. Leave best_of out.";
            return Err(ApiError::unsupported("best_of", message));
        }
        match self.logprobs {
            Some(_) if self.echo == Some(true) => {
                let message = "The prompt has no log-probabilities. Leave out echo or logprobs.";
                Err(ApiError::unsupported("echo", message))
            }
            Some(top) if top > MAX_TOP => {
                let message = format!("logprobs is {top}. Give at most {MAX_TOP}.");
                Err(ApiError::value("logprobs", message))
            }
            logprobs => Ok(logprobs.map(|top| (top, "logprobs"))),
        }
    }
}

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = app.receive(request, "application/json").await?;
    let mut fields: TextFields = body::parse(&received.body)?;
    let mut body: CompletionBody = body::parse(&received.body)?;
    check_model(fields.model.as_deref(), &app.model.id)?;
    let n = choices(fields.n, &app.config)?;
    let stops = fields.stops()?;
    let options = fields.options(body.check(n)?, &app.model)?;
    let prompts = body.prompts(app.config.max_choices)?;
    let echo = body.echo == Some(true);
    let echoed = |index: usize| prompts.get(index / n).filter(|_| echo).cloned();
    let choices: Vec<Choice> = (0..prompts.len() * n)
        .map(|index| Choice {
            text: echoed(index).unwrap_or_default(),
            ..Choice::default()
        })
        .collect();
    let mut texts = Texts {
        id: identifier("cmpl"),
        created: now(),
        model: app.model.id.clone(),
        n,
        choices,
        has_logprobs: options.logprobs.is_some(),
        usage: Usage::default(),
        tells_usage: fields.stream_usage(),
    };
    let work = Work::Complete {
        prompts,
        options,
        n,
        stops,
    };
    let mut call = app.submit(received, work)?;
    if fields.streams() {
        return stream::respond(call, texts).await;
    }
    while let Some(reply) = call.next().await {
        texts.take(reply?);
    }
    let choices = (0..texts.choices.len())
        .map(|index| texts.choice(index))
        .collect();
    let mut response = texts.response(choices);
    response["usage"] = texts.usage.json();
    response["timings"] = texts.usage.timings();
    Ok(json_response(&response))
}

/// A choice; in a stream, the part of it that was not sent.
#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Vec<TokenLogprob>,
    /// Characters of the tokens that were sent.
    offset: usize,
    answer: Option<Answer>,
}

/// The texts of a call.
struct Texts {
    id: String,
    created: u64,
    model: String,
    /// Choices per prompt.
    n: usize,
    choices: Vec<Choice>,
    has_logprobs: bool,
    usage: Usage,
    tells_usage: bool,
}

impl Texts {
    /// Takes a reply. Returns the index of the choice that it belongs to.
    fn take(&mut self, reply: Reply) -> Option<usize> {
        match reply {
            Reply::Text {
                index,
                text,
                logprobs,
            } => {
                let choice = self.choices.get_mut(index)?;
                choice.text += &text;
                choice.logprobs.extend(logprobs);
                Some(index)
            }
            Reply::Finished {
                index,
                answer,
                times,
            } => {
                self.usage.add(&answer, times, index.is_multiple_of(self.n));
                self.choices.get_mut(index)?.answer = Some(answer);
                Some(index)
            }
            _ => None,
        }
    }

    /// Formats a choice, and empties it.
    fn choice(&mut self, index: usize) -> Value {
        let has_logprobs = self.has_logprobs;
        let Some(choice) = self.choices.get_mut(index) else {
            return Value::Null;
        };
        let logprobs = std::mem::take(&mut choice.logprobs);
        let logprobs = has_logprobs.then(|| logprobs_json(&logprobs, &mut choice.offset));
        json!({
            "index": index, "text": std::mem::take(&mut choice.text), "logprobs": logprobs,
            "finish_reason": choice.answer.as_ref().map(finish_reason),
        })
    }

    fn response(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "choices": choices,
        })
    }
}

fn logprobs_json(logprobs: &[TokenLogprob], offset: &mut usize) -> Value {
    let (mut tokens, mut values, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for at in logprobs {
        tokens.push(json!(at.chosen.token()));
        values.push(json!(at.chosen.logprob));
        let top = at
            .top
            .iter()
            .map(|top| (top.token().into_owned(), json!(top.logprob)));
        tops.push(Value::Object(top.collect::<Map<_, _>>()));
        offsets.push(json!(*offset));
        *offset += at.chosen.token().chars().count();
    }
    json!({
        "tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets,
    })
}

impl Format for Texts {
    fn reply(&mut self, reply: Reply) -> Vec<Value> {
        let Some(index) = self.take(reply) else {
            return vec![];
        };
        let choice = self.choice(index);
        let mut chunk = self.response(vec![choice]);
        if self.tells_usage {
            chunk["usage"] = Value::Null;
        }
        vec![chunk]
    }

    fn end(&mut self) -> Vec<Value> {
        if !self.tells_usage {
            return vec![];
        }
        let mut chunk = self.response(vec![]);
        chunk["usage"] = self.usage.json();
        chunk["timings"] = self.usage.timings();
        vec![chunk]
    }
}
