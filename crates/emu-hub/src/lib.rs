//! Models on the Hugging Face Hub, and on servers with its interface: [`parse`] an address, look at a repository
//! ([`listing`]), choose what a conversion or a run needs ([`choose`]), read tensors' names and shapes without the weights
//! ([`headers`], [`Remote`], [`RemoteFile`]), and [`fetch`].
//!
//! Files are kept in the hub's own cache, whose layout and token file are those of the crate `hf-hub`, so that they are shared
//! with every other program that uses it. The transfer is not hf-hub's. That of its versions 0.x neither checks hashes nor
//! resumes where a server has no byte ranges, and panics on some answers; versions 1.x start an interrupted file anew, and
//! link an asynchronous runtime and a second transfer protocol. Here every file is checked against the hash that the hub
//! states for it, and a broken transfer continues where it ended.
//!
//! This crate knows no model and prints nothing. The caller learns of bytes by a callback, and stops a transfer by a flag.

mod address;
mod cache;
mod client;
mod contents;
mod disk;
mod download;
mod entry;
mod error;
mod fetch;
mod headers;
mod listing;
mod options;
mod pattern;
mod progress;
mod remote;
mod select;

pub use address::{Address, SCHEME, is_address, parse};
pub use contents::{Contents, Remote};
pub use disk::free_space;
pub use entry::{Entry, Hash, Listing};
pub use error::HubError;
pub use fetch::fetch;
pub use headers::{FileHeader, TensorHeader, headers};
pub use listing::listing;
pub use options::{DEFAULT_ENDPOINT, Options, Token};
pub use progress::Progress;
pub use remote::RemoteFile;
pub use select::choose;
