//! Pictures of requests: from data: addresses, from files of forms, and, where it is allowed, from the network.

mod address;
mod data;
mod fetch;

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use tokio::time::Instant;

use crate::config::Config;
use crate::error::{ApiError, ServeError};
use fetch::{FetchError, Fetcher};

/// The first bytes of the supported formats: PNG, JPEG, GIF, BMP, TIFF. WebP has its own rule.
const SIGNATURES: [&[u8]; 7] = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
];

/// Loads the pictures of requests.
pub(crate) struct Loader {
    fetcher: Option<Fetcher>,
    max_pictures: usize,
    max_bytes: usize,
    timeout: Duration,
}

impl Loader {
    pub fn new(config: &Config) -> Result<Self, ServeError> {
        let fetches = config.fetch || config.fetch_private;
        Ok(Self {
            fetcher: fetches.then(|| Fetcher::new(config)).transpose()?,
            max_pictures: config.max_pictures,
            max_bytes: config.max_picture,
            timeout: config.fetch_timeout,
        })
    }

    /// The pictures of one request.
    pub fn album(&self) -> Album<'_> {
        Album {
            loader: self,
            count: 0,
            deadline: Instant::now() + self.timeout,
        }
    }
}

/// Loads the pictures of one request, within limits that hold for all of them together.
pub(crate) struct Album<'a> {
    loader: &'a Loader,
    count: usize,
    /// For pictures from the network.
    deadline: Instant,
}

impl Album<'_> {
    /// Loads a picture from an address. `param` names it in errors.
    pub async fn address(&mut self, address: &str, param: &str) -> Result<Bytes, ApiError> {
        self.count(param)?;
        let bytes = match scheme(address).as_deref() {
            Some("data") => data::decode(address)
                .map_err(|error| ApiError::bad("invalid_image_url", error.to_string()).at(param))?,
            Some("http" | "https") => self.fetched(address, param).await?,
            _ => {
                let message = "A picture is given by a data: address, or by an http or https address. Use one of these.";
                return Err(ApiError::bad("invalid_image_url", message).at(param));
            }
        };
        self.checked(bytes, param)
    }

    /// Takes a file of a form.
    pub fn file(&mut self, bytes: Bytes, param: &str) -> Result<Bytes, ApiError> {
        self.count(param)?;
        self.checked(bytes, param)
    }

    fn count(&mut self, param: &str) -> Result<(), ApiError> {
        self.count += 1;
        let most = self.loader.max_pictures;
        if self.count > most {
            let message = format!("There are more than {most} pictures. Send fewer.");
            return Err(ApiError::bad("too_many_images", message).at(param));
        }
        Ok(())
    }

    fn checked(&self, bytes: Bytes, param: &str) -> Result<Bytes, ApiError> {
        let most = self.loader.max_bytes;
        if bytes.len() > most {
            return Err(too_large(most, param));
        }
        if !is_picture(&bytes) {
            let message =
                "This is not a picture in PNG, JPEG, GIF, WebP, BMP or TIFF. Send one of these.";
            return Err(ApiError::bad("invalid_image_format", message).at(param));
        }
        Ok(bytes)
    }

    async fn fetched(&self, address: &str, param: &str) -> Result<Bytes, ApiError> {
        let Some(fetcher) = &self.loader.fetcher else {
            let message =
                "This server fetches no pictures from the network. Send them as data: addresses.";
            return Err(ApiError::bad("image_fetch_disabled", message).at(param));
        };
        let fetched = tokio::time::timeout_at(self.deadline, fetcher.fetch(address));
        let error = match fetched.await {
            Ok(Ok(bytes)) => return Ok(bytes),
            Ok(Err(error)) => error,
            Err(_) => FetchError::Slow,
        };
        match error {
            FetchError::TooLarge => Err(too_large(self.loader.max_bytes, param)),
            error => Err(ApiError::bad(error.code(), error.to_string()).at(param)),
        }
    }
}

fn too_large(most: usize, param: &str) -> ApiError {
    let message = format!("The picture has more than {most} bytes. Send a smaller one.");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", message).at(param)
}

fn scheme(address: &str) -> Option<String> {
    let (scheme, _) = address.split_once(':')?;
    Some(scheme.to_ascii_lowercase())
}

fn is_picture(bytes: &[u8]) -> bool {
    let webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    webp || SIGNATURES
        .iter()
        .any(|signature| bytes.starts_with(signature))
}
