//! Evaluation without a model: the scorers, and the goldens that compare them with the original programs.
//!
//! [`score`] has one module a metric. A scorer takes texts and numbers and returns numbers; it uses no files, clock, threads
//! or random state, so it gives the same result natively and in a page. [`goldens`] runs all scorers on a folder of
//! recorded results. [`tasks`] has the paper's tasks: from their official files and a model that the caller implements to
//! answers, submission files and a report.

pub mod goldens;
pub mod score;
pub mod tasks;
