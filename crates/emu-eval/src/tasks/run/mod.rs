//! Asking a model: few-shot examples, captions of a first step, answers; each in a file that resumes.

mod batches;
mod runner;
mod start;
mod types;

pub use start::run;
pub use types::{Answer, Given, Run, RunOptions, Shots};
