//! `/v1/images/generations` and `/v1/images/edits`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::check_model;
use super::fields::{DrawFields, choices};
use crate::app::{App, Received};
use crate::body;
use crate::engine::{Drawing, Model, Part};
use crate::error::{ApiError, json_response};
use crate::metrics::now;
use crate::work::{Reply, Work};

/// Mark of a picture's place in the prompt of an edit, and its escape, as on the command line.
const MARK: &str = "<image>";
const ESCAPE: char = '\\';
/// Fields of a form that are numbers.
const NUMBERS: &[&str] = &["n", "seed", "steps", "guidance"];

#[derive(Debug, Deserialize)]
struct ImageBody {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    response_format: Option<String>,
    #[serde(default)]
    output_format: Option<String>,
    #[serde(default)]
    background: Option<String>,
    #[serde(default)]
    stream: Option<Value>,
}

impl ImageBody {
    /// Checks everything but the prompt. Returns the number of pictures.
    fn check(&self, app: &App) -> Result<usize, ApiError> {
        check_model(self.model.as_deref(), &app.model.id)?;
        if !app.model.draws {
            let message = "This model draws no pictures. Use a model with a decoder.";
            return Err(ApiError::bad("unsupported_endpoint", message));
        }
        let supported = [
            ("response_format", &self.response_format, "b64_json"),
            ("output_format", &self.output_format, "png"),
        ];
        for (param, value, only) in supported {
            if let Some(value) = value.as_deref().filter(|value| *value != only) {
                let message =
                    format!("{param} is {value:?}, and only {only:?} is supported. Ask for that.");
                return Err(ApiError::unsupported(param, message));
            }
        }
        if self.background.as_deref() == Some("transparent") {
            let message = "Pictures are not transparent. Leave background out.";
            return Err(ApiError::unsupported("background", message));
        }
        if matches!(&self.stream, Some(stream) if *stream == json!(true) || *stream == json!("true"))
        {
            let message = "Pictures are not streamed. Leave stream out.";
            return Err(ApiError::unsupported("stream", message));
        }
        choices(self.n, &app.config)
    }
}

pub(crate) async fn generations(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = app.receive(request, "application/json").await?;
    let body: ImageBody = body::parse(&received.body)?;
    let fields: DrawFields = body::parse(&received.body)?;
    let n = body.check(&app)?;
    let prompt = body.prompt.unwrap_or_default();
    if prompt.trim().is_empty() {
        return Err(ApiError::value(
            "prompt",
            "There is no prompt. Say what to draw.",
        ));
    }
    draw(&app, received, vec![Part::Text(prompt)], fields, n).await
}

pub(crate) async fn edits(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = app.receive(request, "multipart/form-data").await?;
    let form = body::form(&received.headers, received.body.clone(), NUMBERS).await?;
    let json = Value::Object(form.fields).to_string();
    let body: ImageBody = body::parse(json.as_bytes())?;
    let fields: DrawFields = body::parse(json.as_bytes())?;
    let n = body.check(&app)?;
    check_sees(&app.model)?;
    let mut album = app.loader.album();
    let mut pictures = vec![];
    for (name, file) in form.files {
        match name.as_str() {
            "image" | "image[]" => pictures.push(album.file(file, "image")?),
            "mask" => {
                let message = "This model blends whole pictures, without masks. Leave mask out.";
                return Err(ApiError::unsupported("mask", message));
            }
            _ => {
                let message =
                    "The form has a file of another name than image. Send the pictures as image.";
                return Err(ApiError::unsupported(name, message));
            }
        }
    }
    if pictures.is_empty() {
        return Err(ApiError::value(
            "image",
            "There is no picture. Send at least one file as image.",
        ));
    }
    let prompt = placed(&body.prompt.unwrap_or_default(), pictures)?;
    draw(&app, received, prompt, fields, n).await
}

fn check_sees(model: &Model) -> Result<(), ApiError> {
    match model.sees {
        true => Ok(()),
        false => Err(ApiError::bad(
            "unsupported_endpoint",
            "This model reads no pictures. Use a model that sees.",
        )),
    }
}

async fn draw(
    app: &App,
    received: Received,
    prompt: Vec<Part>,
    fields: DrawFields,
    n: usize,
) -> Result<Response, ApiError> {
    let drawing = Drawing {
        prompt,
        options: fields.options(None)?,
    };
    let created = now();
    let mut call = app.submit(received, Work::Draw { drawing, n })?;
    let mut data = vec![];
    while let Some(reply) = call.next().await {
        if let Reply::Picture { drawn, .. } = reply? {
            data.push(json!({
                "b64_json": STANDARD.encode(&drawn.png), "seed": drawn.seed, "flagged": drawn.flagged,
            }));
        }
    }
    Ok(json_response(
        &json!({"created": created, "data": data, "output_format": "png"}),
    ))
}

/// Places pictures at the marks of a prompt, or before it if there are none. A mark after a backslash is text.
fn placed(prompt: &str, pictures: Vec<bytes::Bytes>) -> Result<Vec<Part>, ApiError> {
    // Text between marks.
    let mut texts = vec![String::new()];
    let mut rest = prompt;
    while let Some((before, after)) = rest.split_once(MARK) {
        if let Some(text) = texts.last_mut() {
            match before.strip_suffix(ESCAPE) {
                Some(before) => text.extend([before, MARK]),
                None => {
                    text.push_str(before);
                    texts.push(String::new());
                }
            }
        }
        rest = after;
    }
    if let Some(text) = texts.last_mut() {
        text.push_str(rest);
    }
    let (marks, given) = (texts.len() - 1, pictures.len());
    if marks != 0 && marks != given {
        let message = format!(
            "The prompt has {marks} {MARK} marks for {given} pictures. Write one mark for each, none, or {ESCAPE}{MARK} where these very letters are meant."
        );
        return Err(ApiError::value("prompt", message));
    }
    let mut parts = vec![];
    let mut pictures = pictures.into_iter().map(Part::Picture);
    if marks == 0 {
        parts.extend(pictures.by_ref());
    }
    for text in texts {
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        parts.extend(pictures.next());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn shown(prompt: &str, pictures: u8) -> Option<String> {
        let pictures = (0..pictures)
            .map(|n| Bytes::copy_from_slice(&[b'0' + n]))
            .collect();
        let show = |part: &Part| match part {
            Part::Text(text) => format!("'{text}'"),
            Part::Picture(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        };
        Some(placed(prompt, pictures).ok()?.iter().map(show).collect())
    }

    #[test]
    fn pictures_stand_at_their_marks() {
        for (prompt, pictures, expected) in [
            ("", 2, Some("01")),
            ("both", 2, Some("01'both'")),
            (
                "<image> in the style of <image>",
                2,
                Some("0' in the style of '1"),
            ),
            ("a <image> b", 1, Some("'a '0' b'")),
            (r"a \<image> b", 1, Some("0'a <image> b'")),
            (r"\<image><image>", 1, Some("'<image>'0")),
            ("<image>", 2, None),
            ("<image><image>", 1, None),
        ] {
            assert_eq!(shown(prompt, pictures).as_deref(), expected, "{prompt}");
        }
    }
}
