//! `/v1/chat/completions`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::{DrawFields, TextFields, choices};
use super::messages::{Message, Refusable, conversation, refused};
use super::stream::{self, Format};
use super::{Usage, check_model, finish_reason, identifier, likelihood};
use crate::app::App;
use crate::body;
use crate::engine::{Answer, Chat, Drawn, Model, TokenLogprob};
use crate::error::{ApiError, json_response};
use crate::metrics::now;
use crate::work::{Reply, Work};

/// Maximum of `top_logprobs`, as in OpenAI's API.
const MAX_TOP: usize = 20;

#[derive(Debug, Deserialize)]
struct ChatBody {
    messages: Vec<Message>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(default)]
    modalities: Option<Vec<String>>,
    #[serde(default)]
    drawing: Option<DrawFields>,
}

impl ChatBody {
    /// Number of alternatives per token; `None` without log-probabilities.
    fn logprobs(&self) -> Result<Option<(usize, &'static str)>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs) {
            (_, Some(top)) if top > MAX_TOP => {
                let message = format!("top_logprobs is {top}. Give at most {MAX_TOP}.");
                Err(ApiError::value("top_logprobs", message))
            }
            (true, top) => Ok(Some((top.unwrap_or(0), "logprobs"))),
            (false, None | Some(0)) => Ok(None),
            (false, Some(_)) => Err(ApiError::value(
                "top_logprobs",
                "top_logprobs needs logprobs. Set it to true, or leave both out.",
            )),
        }
    }

    /// Whether the answer may contain pictures.
    fn draws(&self, model: &Model) -> Result<bool, ApiError> {
        let modalities = self.modalities.as_deref().unwrap_or_default();
        if let Some(other) = modalities
            .iter()
            .find(|m| !matches!(m.as_str(), "text" | "image"))
        {
            let message = format!("The modality {other:?} is not supported. Use text and image.");
            return Err(ApiError::unsupported("modalities", message));
        }
        match modalities.iter().any(|modality| modality == "image") {
            true if !model.draws => {
                let message = "This model draws no pictures. Leave image out of the modalities.";
                Err(ApiError::unsupported("modalities", message))
            }
            draws => Ok(draws),
        }
    }
}

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = app.receive(request, "application/json").await?;
    let mut fields: TextFields = body::parse(&received.body)?;
    let body: ChatBody = body::parse(&received.body)?;
    if let Some(error) = refused(&body::parse::<Refusable>(&received.body)?) {
        return Err(error);
    }
    check_model(fields.model.as_deref(), &app.model.id)?;
    let n = choices(fields.n, &app.config)?;
    let stops = fields.stops()?;
    let draws = body.draws(&app.model)?;
    let text = fields.options(body.logprobs()?, &app.model)?;
    if draws && text.beams.is_some_and(|beams| beams > 1) {
        let message = "A beam search cannot draw. Leave out beams, or image in the modalities.";
        return Err(ApiError::unsupported("beams", message));
    }
    let drawing = body.drawing.unwrap_or_default().options(Some(text.seed))?;
    let mut album = app.loader.album();
    let chat = Chat {
        conversation: conversation(body.messages, &mut album, app.model.sees).await?,
        draw: draws.then_some(drawing),
        text,
    };
    let head = Head {
        id: identifier("chatcmpl"),
        created: now(),
        model: app.model.id.clone(),
    };
    let has_logprobs = chat.text.logprobs.is_some();
    let mut call = app.submit(received, Work::Chat { chat, n, stops })?;
    if fields.streams() {
        let chunks = Chunks {
            head,
            begun: vec![false; n],
            usage: Usage::default(),
            tells_usage: fields.stream_usage(),
        };
        return stream::respond(call, chunks).await;
    }
    let mut choices: Vec<Choice> = (0..n).map(|_| Choice::default()).collect();
    let mut usage = Usage::default();
    while let Some(reply) = call.next().await {
        let reply = reply?;
        if let Reply::Finished {
            index,
            answer,
            times,
        } = &reply
        {
            usage.add(answer, *times, *index == 0);
        }
        let index = index_of(&reply).and_then(|index| choices.get_mut(index));
        if let Some(choice) = index {
            choice.take(reply);
        }
    }
    let choices = choices.into_iter().enumerate();
    let choices: Vec<Value> = choices
        .map(|(index, choice)| choice.json(index, has_logprobs))
        .collect();
    Ok(json_response(&json!({
        "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
        "choices": choices, "usage": usage.json(), "timings": usage.timings(),
    })))
}

/// Fields of every response and chunk.
struct Head {
    id: String,
    created: u64,
    model: String,
}

fn index_of(reply: &Reply) -> Option<usize> {
    match reply {
        Reply::Text { index, .. }
        | Reply::Picture { index, .. }
        | Reply::Finished { index, .. } => Some(*index),
        _ => None,
    }
}

/// A picture as a content part: that of a request, with two additional fields.
fn picture_part(drawn: &Drawn) -> Value {
    let url = format!("data:image/png;base64,{}", STANDARD.encode(&drawn.png));
    json!({
        "type": "image_url", "image_url": {"url": url}, "seed": drawn.seed, "flagged": drawn.flagged,
    })
}

fn logprobs_json(logprobs: &[TokenLogprob]) -> Value {
    let token = |at: &TokenLogprob| {
        let mut token = likelihood(&at.chosen);
        token["top_logprobs"] = at.top.iter().map(likelihood).collect();
        token
    };
    json!({"content": logprobs.iter().map(token).collect::<Vec<_>>(), "refusal": null})
}

/// A choice of a complete response.
#[derive(Default)]
struct Choice {
    text: String,
    /// Parts before `text`; empty if there are no pictures.
    parts: Vec<Value>,
    logprobs: Vec<TokenLogprob>,
    answer: Option<Answer>,
}

impl Choice {
    fn take(&mut self, reply: Reply) {
        match reply {
            Reply::Text { text, logprobs, .. } => {
                self.text += &text;
                self.logprobs.extend(logprobs);
            }
            Reply::Picture { drawn, .. } => {
                self.end_text();
                self.parts.push(picture_part(&drawn));
            }
            Reply::Finished { answer, .. } => self.answer = Some(answer),
            _ => {}
        }
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.parts.push(json!({"type": "text", "text": text}));
        }
    }

    fn json(mut self, index: usize, has_logprobs: bool) -> Value {
        let content = match self.parts.is_empty() {
            true => Value::String(self.text),
            false => {
                self.end_text();
                Value::Array(self.parts)
            }
        };
        json!({
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": null},
            "logprobs": has_logprobs.then(|| logprobs_json(&self.logprobs)),
            "finish_reason": self.answer.as_ref().map(finish_reason),
        })
    }
}

/// The chunks of a stream.
struct Chunks {
    head: Head,
    /// Choices whose first chunk was sent.
    begun: Vec<bool>,
    usage: Usage,
    tells_usage: bool,
}

impl Chunks {
    fn chunk(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = json!({
            "id": self.head.id, "object": "chat.completion.chunk", "created": self.head.created,
            "model": self.head.model, "choices": choices,
        });
        if self.tells_usage {
            chunk["usage"] = usage;
        }
        chunk
    }

    fn delta(&self, index: usize, delta: Value, logprobs: Value, reason: Option<&str>) -> Value {
        let choice = json!({
            "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason,
        });
        self.chunk(json!([choice]), Value::Null)
    }
}

impl Format for Chunks {
    fn reply(&mut self, reply: Reply) -> Vec<Value> {
        let mut chunks = vec![];
        if let Some(index) = index_of(&reply)
            && let Some(begun) = self.begun.get_mut(index)
            && !std::mem::replace(begun, true)
        {
            let role = json!({"role": "assistant", "content": "", "refusal": null});
            chunks.push(self.delta(index, role, Value::Null, None));
        }
        match reply {
            Reply::Text {
                index,
                text,
                logprobs,
            } => {
                let logprobs = match logprobs.is_empty() {
                    true => Value::Null,
                    false => logprobs_json(&logprobs),
                };
                chunks.push(self.delta(index, json!({"content": text}), logprobs, None));
            }
            Reply::Picture { index, drawn } => {
                let content = json!({"content": [picture_part(&drawn)]});
                chunks.push(self.delta(index, content, Value::Null, None));
            }
            Reply::Finished {
                index,
                answer,
                times,
            } => {
                self.usage.add(&answer, times, index == 0);
                chunks.push(self.delta(
                    index,
                    json!({}),
                    Value::Null,
                    Some(finish_reason(&answer)),
                ));
            }
            _ => {}
        }
        chunks
    }

    fn end(&mut self) -> Vec<Value> {
        match self.tells_usage {
            true => {
                let mut chunk = self.chunk(json!([]), self.usage.json());
                chunk["timings"] = self.usage.timings();
                vec![chunk]
            }
            false => vec![],
        }
    }
}
