//! What the tests of the workspace share.

pub mod compare;
pub mod files;
pub mod reference;
