//! The server over HTTP, with a fake engine.

mod chats;
mod clients;
mod endpoints;
mod fake;
mod http;
mod limits;
mod load;
mod page;
mod pictures;
