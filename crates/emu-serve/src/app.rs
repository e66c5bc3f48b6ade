//! What all requests share: settings, model, queue, counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Keys;
use crate::body;
use crate::config::Config;
use crate::engine::Model;
use crate::error::{ApiError, ServeError};
use crate::metrics::{Gauges, Metrics};
use crate::pictures::Loader;
use crate::queue::{Place, Queue, Refused};
use crate::work::{Job, Reply, Work};

/// Unit of [`App::bytes`].
const KIB: usize = 1024;
/// Bounds of `Retry-After`, in seconds.
const RETRY: (u64, u64) = (1, 120);

/// The state of a server.
pub(crate) struct App {
    pub config: Config,
    pub model: Model,
    pub keys: Keys,
    pub loader: Loader,
    pub queue: Arc<Queue<Job>>,
    pub metrics: Metrics,
    /// Open connections.
    pub connections: AtomicUsize,
    /// KiB of requests that may still be accepted.
    bytes: Arc<Semaphore>,
}

/// The body of a request. Its bytes count as in use until it is dropped.
pub(crate) struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    permit: OwnedSemaphorePermit,
}

impl App {
    pub fn new(config: Config, model: Model) -> Result<Self, ServeError> {
        Ok(Self {
            model,
            keys: Keys::new(&config.api_keys),
            loader: Loader::new(&config)?,
            queue: Arc::new(Queue::new(config.queue)),
            metrics: Metrics::default(),
            connections: AtomicUsize::new(0),
            bytes: Arc::new(Semaphore::new(kib(config.queue_bytes) as usize)),
            config,
        })
    }

    /// Reads the body of a request of this media type, if there is room for its call.
    pub async fn receive(&self, request: Request, media: &str) -> Result<Received, ApiError> {
        let (parts, body) = request.into_parts();
        let permit = match self.admit(&parts.headers, media) {
            Ok(permit) => permit,
            Err(error) => {
                body::discard(body).await;
                return Err(error);
            }
        };
        let read = body::read(body, self.config.max_body, self.config.body_timeout);
        Ok(Received {
            body: read.await?,
            headers: parts.headers,
            permit,
        })
    }

    fn admit(&self, headers: &HeaderMap, media: &str) -> Result<OwnedSemaphorePermit, ApiError> {
        self.queue.room().map_err(|refused| self.refused(refused))?;
        let most = self.config.max_body;
        let length = body::length(headers);
        if length.is_some_and(|length| length > most) {
            return Err(body::too_large(most));
        }
        if body::media_type(headers) != media {
            return Err(body::unsupported_media(media));
        }
        // A body of unknown length counts as one of the maximum length.
        let cost = length.unwrap_or(most).min(self.config.queue_bytes);
        let permit = self.bytes.clone().try_acquire_many_owned(kib(cost));
        permit.map_err(|_| self.refused(Refused::Full))
    }

    /// Queues a call.
    pub fn submit(&self, received: Received, work: Work) -> Result<Call, ApiError> {
        let (replies, receiver) = unbounded_channel();
        let queued = Instant::now();
        let place = self.queue.push(Job {
            work,
            replies,
            queued,
        });
        Ok(Call {
            place: place.map_err(|refused| self.refused(refused))?,
            receiver,
            ended: false,
            _permit: received.permit,
        })
    }

    fn refused(&self, refused: Refused) -> ApiError {
        match refused {
            Refused::Closed => ApiError::stopping(),
            Refused::Full => {
                let calls = self.queue.waiting() + 1;
                let seconds = (self.metrics.mean_call() * calls as f64).ceil() as u64;
                let message = "Too many requests are waiting. Try again later.";
                ApiError {
                    retry_after: Some(seconds.clamp(RETRY.0, RETRY.1)),
                    ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
                }
            }
        }
    }

    pub fn gauges(&self) -> Gauges {
        Gauges {
            waiting: self.queue.waiting(),
            running: self.queue.running(),
            capacity: self.config.queue,
            connections: self.connections.load(Ordering::Relaxed),
        }
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX)
}

/// A queued or running call. Dropping it ends the call.
pub(crate) struct Call {
    receiver: UnboundedReceiver<Reply>,
    place: Place<Job>,
    ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Call {
    /// Whether the last reply was taken.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next reply; `None` after the last one. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Reply, ApiError>> {
        if self.ended {
            return None;
        }
        let reply = self.receiver.recv().await;
        self.ended = matches!(reply, None | Some(Reply::Failed(_) | Reply::Done));
        match reply {
            Some(Reply::Done) => None,
            Some(Reply::Failed(error)) => Some(Err(error)),
            Some(reply) => Some(Ok(reply)),
            // The call was dropped unanswered.
            None if self.place.aborted() => Some(Err(ApiError::stopping())),
            None => Some(Err(ApiError::broken())),
        }
    }
}
