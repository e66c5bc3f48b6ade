//! Errors: of the server itself, and as clients see them, in OpenAI's shape.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::engine::EngineError;

/// Why a server cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Other machines can reach the address, but no key is set.
    #[error(
        "{0} can be reached from other machines and no API key is set. Set an API key, or listen on 127.0.0.1."
    )]
    NoKey(SocketAddr),
    /// A key that no client can send.
    #[error(
        "An API key is empty, or has characters other than visible ASCII. Use letters and digits, at least 16 of them."
    )]
    BadKey,
    /// An option out of range.
    #[error("The server's option {0} is 0. Give at least 1.")]
    Zero(&'static str),
    /// The address is in use, or not of this machine.
    #[error("The server cannot listen on {address}: {source}. Choose another address or port.")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// A folder to be served is missing.
    #[error("{} is not a folder that can be read. Name the folder that holds the page.", .0.display())]
    Folder(PathBuf),
    /// The system gives no threads or timers.
    #[error("The server's threads cannot be started: {0}. Close other programs and try again.")]
    Runtime(std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}. Switch the fetching of pictures off.")]
    Tls(String),
}

impl ServeError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey(_) => "serve-no-key",
            Self::BadKey => "serve-bad-key",
            Self::Zero(_) => "bad-option",
            Self::Bind { .. } => "serve-address",
            Self::Folder(_) => "serve-folder",
            Self::Runtime(_) => "serve-threads",
            Self::Tls(_) => "serve-tls",
        }
    }
}

/// An error as a client gets it: `{"error": {"message", "type", "param", "code"}}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: String,
    pub param: Option<String>,
    pub message: String,
    /// Seconds after which a repetition may succeed.
    pub retry_after: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            param: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Status 400.
    pub fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A parameter with a wrong value.
    pub fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad("invalid_value", message).at(param)
    }

    /// A parameter that this server or this model does not know.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::bad("unsupported_parameter", message).at(param)
    }

    /// Names the parameter.
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The server is stopping.
    pub fn stopping() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_stopping",
            "The server is stopping. Try again when it is running.",
        )
    }

    /// The engine broke off without an answer.
    pub fn broken() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "engine_failed",
            "The model failed on this request. Try again; if it fails again, restart the server.",
        )
    }

    /// OpenAI's `type`.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body.
    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        }})
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Request { code, message } => Self::bad(&code, message),
            EngineError::Failed { code, message } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, &code, message)
            }
            // Seen only by a client whose call outlived the time that a stopping server leaves it.
            EngineError::Stopped => Self::stopping(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(&self.body());
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            // The rest of the body is still to come, so the connection takes no other request.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// A response with a JSON body.
pub(crate) fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
