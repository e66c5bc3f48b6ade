//! `/v1/embeddings` of pictures

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Value, json};

use super::check_model;
use super::fields::TextOr;
use super::messages::ContentPart;
use crate::app::App;
use crate::body;
use crate::engine::{Embedding, Part};
use crate::error::{ApiError, json_response};
use crate::pictures::Album;
use crate::work::{Reply, Work};

#[derive(Debug, serde::Deserialize)]
struct EmbeddingBody {
    #[serde(default)]
    model: Option<String>,
    input: TextOr<Input>,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default)]
    pooling: Option<String>,
}

/// A picture: its address, or a content part.
#[derive(Debug)]
enum Input {
    Address(String),
    Part(ContentPart),
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Input;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the address of a picture, or a content part")
            }
            fn visit_str<E: Error>(self, address: &str) -> Result<Input, E> {
                Ok(Input::Address(address.to_owned()))
            }
            fn visit_string<E: Error>(self, address: String) -> Result<Input, E> {
                Ok(Input::Address(address))
            }
            fn visit_map<A: MapAccess<'de>>(self, part: A) -> Result<Input, A::Error> {
                ContentPart::deserialize(MapAccessDeserializer::new(part)).map(Input::Part)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Input {
    async fn load(self, album: &mut Album<'_>, param: &str) -> Result<bytes::Bytes, ApiError> {
        let text = || {
            let message = "This model embeds pictures, not texts. Send addresses of pictures.";
            ApiError::unsupported(param, message)
        };
        match self {
            Input::Address(address) if !address.contains(':') => Err(text()),
            Input::Address(address) => album.address(&address, param).await,
            Input::Part(part) => match part.load(album, true, param).await? {
                Part::Picture(picture) => Ok(picture),
                Part::Text(_) => Err(text()),
            },
        }
    }
}

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = app.receive(request, "application/json").await?;
    let body: EmbeddingBody = body::parse(&received.body)?;
    check_model(body.model.as_deref(), &app.model.id)?;
    if !app.model.embeds {
        let message = "This model embeds no pictures. Use a model that sees.";
        return Err(ApiError::bad("unsupported_endpoint", message));
    }
    let base64 = one_of(
        "encoding_format",
        body.encoding_format.as_deref(),
        ["float", "base64"],
    )?;
    let whole = one_of("pooling", body.pooling.as_deref(), ["mean", "none"])?;
    let inputs = match body.input {
        TextOr::Text(address) => vec![Input::Address(address)],
        TextOr::Many(inputs) => inputs,
    };
    if inputs.is_empty() {
        return Err(ApiError::value(
            "input",
            "There is no picture. Give at least one.",
        ));
    }
    let mut album = app.loader.album();
    let mut pictures = vec![];
    for (at, input) in inputs.into_iter().enumerate() {
        pictures.push(input.load(&mut album, &format!("input[{at}]")).await?);
    }
    let mut call = app.submit(received, Work::Embed { pictures })?;
    let mut embeddings = vec![];
    while let Some(reply) = call.next().await {
        if let Reply::Embeddings(found) = reply? {
            embeddings = found;
        }
    }
    let tokens: usize = embeddings.iter().map(|e| rows(e).count()).sum();
    let mut data = vec![];
    for (index, embedding) in embeddings.iter().enumerate() {
        let values = if whole {
            embedding.values.clone()
        } else {
            mean(embedding)
        };
        if let Some(dimensions) = body.dimensions.filter(|wanted| *wanted != values.len()) {
            let message = format!(
                "dimensions is {dimensions}, and this model's embeddings have {}. Leave it out.",
                values.len()
            );
            return Err(ApiError::unsupported("dimensions", message));
        }
        let mut entry = json!({"object": "embedding", "index": index});
        if whole {
            entry["shape"] = json!([rows(embedding).count(), embedding.width]);
        }
        entry["embedding"] = if base64 {
            encoded(&values)
        } else {
            json!(values)
        };
        data.push(entry);
    }
    Ok(json_response(&json!({
        "object": "list", "data": data, "model": app.model.id,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })))
}

/// Whether the second of two values is asked for; the first is the default.
fn one_of(param: &str, value: Option<&str>, [first, second]: [&str; 2]) -> Result<bool, ApiError> {
    match value {
        None => Ok(false),
        Some(value) if value == first => Ok(false),
        Some(value) if value == second => Ok(true),
        Some(value) => {
            let message = format!("{param} is {value:?}. Use {first:?} or {second:?}.");
            Err(ApiError::value(param, message))
        }
    }
}

/// The N embeddings of a picture, each of width D.
fn rows(embedding: &Embedding) -> impl Iterator<Item = &[f32]> {
    embedding.values.chunks_exact(embedding.width.max(1))
}

/// The mean of a picture's embeddings, `[D]`.
fn mean(embedding: &Embedding) -> Vec<f32> {
    let mut sum = vec![0.0f64; embedding.width];
    let mut count = 0;
    for row in rows(embedding) {
        count += 1;
        for (sum, value) in sum.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let n = f64::from(count.max(1));
    sum.iter().map(|sum| (sum / n) as f32).collect()
}

/// Little-endian f32 in base64, as OpenAI's clients ask for.
fn encoded(values: &[f32]) -> Value {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    Value::String(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_taken_over_the_embeddings() {
        let embedding = Embedding {
            width: 2,
            values: vec![1.0, 2.0, 3.0, 6.0],
        };
        assert_eq!(mean(&embedding), [2.0, 4.0]);
        let empty = Embedding {
            width: 0,
            values: vec![],
        };
        assert_eq!(mean(&empty), [0.0f32; 0]);
    }

    #[test]
    fn base64_is_little_endian() {
        assert_eq!(encoded(&[1.0, -2.0]), json!("AACAPwAAAMA="));
    }
}
