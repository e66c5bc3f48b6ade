//! Routes, and what every request passes through: keys, counters, errors of unknown routes.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::api::{chat, completions, embeddings, images, no_model};
use crate::app::App;
use crate::body;
use crate::error::{ApiError, json_response};
use crate::page::Page;

/// Answered without a key.
const HEALTH: &str = "/health";

/// All routes of a server.
pub(crate) fn router(app: &Arc<App>, page: Page) -> Router {
    let page = Arc::new(page);
    let files = move |request| files(page.clone(), request);
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/embeddings", post(embeddings::handle))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/metrics", get(metrics))
        .route(HEALTH, get(health))
        .method_not_allowed_fallback(wrong_method)
        .fallback(files)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app.clone())
}

/// Counts the request.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let time = started.elapsed();
    tracing::info!(%method, route, status, seconds = time.as_secs_f64(), "request");
    app.metrics.request(&route, status, time);
    response
}

/// Refuses requests without a key, and those of other sites. Files of the page need no key.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let open = route.is_none_or(|route| route.as_str() == HEALTH);
    if open && !app.config.api_keys.is_empty() {
        return next.run(request).await;
    }
    match app.keys.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            body::discard(request.into_body()).await;
            error.into_response()
        }
    }
}

fn model_json(app: &App) -> Value {
    json!({
        "id": app.model.id, "object": "model", "created": app.model.created, "owned_by": app.model.owner,
    })
}

async fn models(State(app): State<Arc<App>>) -> Response {
    json_response(&json!({"object": "list", "data": [model_json(&app)]}))
}

async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    match id == app.model.id {
        true => Ok(json_response(&model_json(&app))),
        false => Err(no_model(&id, &app.model.id)),
    }
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let stopping = app.queue.is_closed();
    let status = if stopping { "stopping" } else { "ok" };
    let mut response = json_response(&json!({
        "status": status, "model": app.model.id, "waiting": app.queue.waiting(), "running": app.queue.running(),
    }));
    if stopping {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut response = Response::new(app.metrics.text(&app.gauges()).into());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!(
        "{} has no method {}. Use GET for models, health and metrics, and POST for everything else.",
        request.uri().path(),
        request.method()
    );
    body::discard(request.into_body()).await;
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}

/// A file of the page.
async fn files(page: Arc<Page>, request: Request) -> Response {
    let (parts, rest) = request.into_parts();
    let path = parts.uri.path();
    let read = matches!(parts.method, Method::GET | Method::HEAD);
    if read
        && !page.is_empty()
        && let Some(response) = page.answer(&parts.method, path, &parts.headers).await
    {
        return response;
    }
    body::discard(rest).await;
    let message = format!("There is nothing at {path}. The endpoints begin with /v1/.");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_url", message).into_response()
}
