//! Helpers shared by the tests of the workspace.

pub mod compare;
pub mod files;
pub mod reference;
pub mod sizes;
