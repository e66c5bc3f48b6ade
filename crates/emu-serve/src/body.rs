//! Reads the bodies of requests, within limits of length and time.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Maximum number of bytes, and time, that are spent on reading the rest of a refused request. A client that still sends
/// does not read the answer, and loses it if the connection is closed meanwhile.
const DISCARDED: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(3);

/// Reads and drops the body of a refused request.
pub(crate) async fn discard(body: Body) {
    let mut body = Limited::new(body, DISCARDED);
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

/// The declared length of a body, if there is one.
pub(crate) fn length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Reads a body of at most `most` bytes within `time`.
pub(crate) async fn read(mut body: Body, most: usize, time: Duration) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                let message = "The body of the request broke off. Send it again.";
                ApiError::bad("incomplete_body", message)
            })?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > most {
                    return Err(too_large(most));
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(())
    };
    match tokio::time::timeout(time, reading).await {
        Ok(Ok(())) => Ok(bytes.freeze()),
        Ok(Err(error)) => {
            discard(body).await;
            Err(error)
        }
        Err(_) => {
            let seconds = time.as_secs_f64();
            let message = format!(
                "The body of the request did not arrive within {seconds} s. Send it faster, or send less."
            );
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(ApiError::new(status, "request_timeout", message))
        }
    }
}

/// The error for a body above the limit.
pub(crate) fn too_large(most: usize) -> ApiError {
    let message =
        format!("The request has more than {most} bytes. Send fewer or smaller pictures.");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
}

/// The media type of a body, without parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

/// The error for another media type than `wanted`.
pub(crate) fn unsupported_media(wanted: &str) -> ApiError {
    let message =
        format!("The body has another type than {wanted}. Send it with Content-Type: {wanted}.");
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    )
}

/// Parses JSON. Unknown fields are ignored.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            let message = format!("The body is not valid JSON: {inner}. Send a JSON object.");
            return ApiError::bad("invalid_json", message);
        }
        let told = in_words(&inner.to_string());
        let error = ApiError::bad("invalid_type", format!("{told}. Check the request."));
        match path.as_str() {
            "." => error,
            _ => error.at(path),
        }
    })?;
    let end = reader.end();
    end.map_err(|error| {
        ApiError::bad(
            "invalid_json",
            format!("The body is not valid JSON: {error}. Send one JSON object."),
        )
    })?;
    Ok(parsed)
}

/// An error of the parser without names of Rust's types.
fn in_words(error: &str) -> String {
    let names = [
        ("expected usize", "expected a whole number, at least 0"),
        ("expected f32", "expected a number"),
        ("expected f64", "expected a number"),
    ];
    names.iter().fold(error.to_owned(), |told, (name, words)| {
        told.replace(name, words)
    })
}

/// A parsed form: its text fields as a JSON object, and its files.
#[derive(Debug, Default)]
pub(crate) struct Form {
    pub fields: Map<String, Value>,
    /// Field name and contents.
    pub files: Vec<(String, Bytes)>,
}

/// Parses a `multipart/form-data` body. `numbers` names the fields whose text is a number.
pub(crate) async fn form(
    headers: &HeaderMap,
    body: Bytes,
    numbers: &[&str],
) -> Result<Form, ApiError> {
    let broken = |error: multer::Error| {
        ApiError::bad(
            "invalid_form",
            format!("The form cannot be read: {error}. Send it again."),
        )
    };
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let boundary = multer::parse_boundary(kind.unwrap_or_default()).map_err(broken)?;
    let body = futures_util::stream::once(async { Ok::<_, std::convert::Infallible>(body) });
    let mut parts = multer::Multipart::new(body, boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(broken)? {
        let name = part.name().unwrap_or_default().to_owned();
        if part.file_name().is_some() {
            form.files.push((name, part.bytes().await.map_err(broken)?));
            continue;
        }
        let text = part.text().await.map_err(broken)?;
        let value = match serde_json::from_str(text.trim()) {
            Ok(Value::Number(number)) if numbers.contains(&name.as_str()) => Value::Number(number),
            _ => Value::String(text),
        };
        form.fields.insert(name, value);
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Outer {
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Inner {
        n: u8,
    }

    #[test]
    fn errors_name_the_parameter() {
        let wrong = |json: &str| {
            let error = parse::<Outer>(json.as_bytes()).expect_err(json);
            assert_eq!(error.status, 400);
            (error.code, error.param)
        };
        let of = |code: &str, param: Option<&str>| (code.to_owned(), param.map(str::to_owned));
        assert_eq!(
            wrong(r#"{"inner": [{"n": 1}, {"n": "2"}]}"#),
            of("invalid_type", Some("inner[1].n"))
        );
        assert_eq!(
            wrong(r#"{"inner": [{"n": 300}]}"#),
            of("invalid_type", Some("inner[0].n"))
        );
        assert_eq!(wrong(r#"{"inner": 3}"#), of("invalid_type", Some("inner")));
        assert_eq!(wrong("{}"), of("invalid_type", None));
        for broken in [
            "",
            "{",
            "{\"inner\": []} x",
            "\u{feff}{}",
            "{'inner': []}",
            "nul",
        ] {
            assert_eq!(wrong(broken), of("invalid_json", None), "{broken}");
        }
        assert!(parse::<Outer>(br#"{"inner": [], "more": 1}"#).is_ok());
    }

    #[test]
    fn errors_name_no_types_of_rust() {
        let wrong = |json: &[u8]| {
            let error = parse::<Vec<(usize, f32)>>(json).expect_err("a wrong type");
            assert_eq!(error.code, "invalid_type");
            error.message
        };
        let negative = wrong(b"[[-1, 1]]");
        assert!(
            negative.contains("expected a whole number, at least 0"),
            "{negative}"
        );
        let text = wrong(br#"[[1, "x"]]"#);
        assert!(text.contains("expected a number"), "{text}");
    }

    #[test]
    fn depth_is_limited() {
        let deep = "[".repeat(100_000);
        assert_eq!(
            parse::<Value>(deep.as_bytes()).expect_err("too deep").code,
            "invalid_json"
        );
    }
}
