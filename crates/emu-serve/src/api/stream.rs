//! Responses as server-sent events.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde_json::Value;

use crate::app::Call;
use crate::error::ApiError;
use crate::work::Reply;

/// Time without events after which a comment is sent, so that proxies keep the connection and lost clients are noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Formats the replies of a call as chunks.
pub(super) trait Format: Send + 'static {
    /// The chunks of a reply.
    fn reply(&mut self, reply: Reply) -> Vec<Value>;
    /// The chunks at the end.
    fn end(&mut self) -> Vec<Value>;
}

/// Streams a call. An error before the first reply is the response; a later one is an event.
///
/// # Errors
/// The error of the call.
pub(super) async fn respond(mut call: Call, mut format: impl Format) -> Result<Response, ApiError> {
    let first = call.next().await.transpose()?;
    let opening = match first {
        Some(reply) => data(format.reply(reply)),
        None => closing(&mut format),
    };
    let state = (call, format, Some(opening));
    let chunks = stream::unfold(state, |(mut call, mut format, opening)| async move {
        if let Some(opening) = opening {
            return Some((Ok(opening), (call, format, None)));
        }
        if call.ended() {
            return None;
        }
        let chunk = match tokio::time::timeout(KEEP_ALIVE, call.next()).await {
            Err(_) => Bytes::from_static(b": \n\n"),
            Ok(Some(Ok(reply))) => data(format.reply(reply)),
            Ok(Some(Err(error))) => data(vec![error.body()]),
            Ok(None) => closing(&mut format),
        };
        Some((
            Ok::<_, std::convert::Infallible>(chunk),
            (call, format, None),
        ))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

fn closing(format: &mut impl Format) -> Bytes {
    let mut text = data(format.end()).to_vec();
    text.extend_from_slice(b"data: [DONE]\n\n");
    text.into()
}

/// JSON has no line breaks, so that each chunk is one line.
fn data(chunks: Vec<Value>) -> Bytes {
    let lines = chunks.iter().map(|chunk| format!("data: {chunk}\n\n"));
    lines.collect::<String>().into()
}
