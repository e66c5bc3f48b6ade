//! An HTTP server in the shape of OpenAI's API, over anything that implements [`Engine`].
//!
//! HTTP runs on threads of its own (tokio, axum); the engine on the thread that calls [`Server::run`], one call at a time. A
//! request takes this way:
//!
//! 1. `connection.rs` accepts, `router.rs` checks the key and finds the endpoint.
//! 2. `api/` reads the body (`body.rs`), checks every parameter, and loads the pictures (`pictures/`). Only a complete
//!    and valid request is queued (`app.rs`, `queue.rs`).
//! 3. `work.rs` takes it from the queue, calls the engine, watches for stop strings (`emu_tokenizer::StopStream`), and sends
//!    replies to the connection. If the client has left, the queue drops its call, or the engine is asked to break off.
//! 4. `api/` formats the replies, as one response or as a stream of events.
//!
//! No model, no Burn: the engine is the caller's. `docs/serving.md` describes the endpoints.

mod api;
mod app;
mod auth;
mod body;
mod config;
mod connection;
pub mod engine;
mod error;
mod metrics;
mod page;
mod pictures;
mod queue;
mod router;
mod server;
mod work;

pub use config::Config;
pub use engine::Engine;
pub use error::ServeError;
pub use server::{Server, serve};
