//! Reports: Markdown, and one page without other files.

mod html;
mod markdown;
mod view;

use std::path::Path;

use super::model::Media;
use super::question::Question;
use super::result::TaskResult;
use super::run::Answer;
pub use view::Thumbnail;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As Markdown.
    pub markdown: String,
    /// As a page.
    pub html: String,
}

/// Writes the reports of a result. `per_answer` are the scores of the answers in the main metric. `thumbnail` makes a small
/// picture of a medium; where it gives none, the page links to the file by its path relative to `folder`, in which the page
/// will lie.
pub fn report(
    questions: &[Question],
    answers: &[Answer],
    per_answer: &[Option<f64>],
    result: &TaskResult,
    folder: &Path,
    thumbnail: &mut dyn FnMut(&Media) -> Option<Thumbnail>,
) -> Report {
    let sections = view::sections(questions, answers, per_answer);
    Report {
        markdown: markdown::write(result, &sections),
        html: html::write(result, &sections, folder, thumbnail),
    }
}
