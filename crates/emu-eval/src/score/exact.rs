//! Answers that are right or wrong: video questions (MSVD-QA, MSRVTT-QA) and the project's own splits.

use crate::score::clean::short_answer;
use crate::score::python::strip;

/// Whether a model's text gives the answer: [`short_answer`] of the text equals the answer in lower case, without white
/// space at the ends.
///
/// The papers on MSVD-QA and MSRVTT-QA ask for the exact answer and do not say how texts are normalized; this is the
/// clean-up that Emu's evaluation uses for pictures.
pub fn is_correct(text: &str, answer: &str) -> bool {
    short_answer(text) == strip(answer).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_is_correct() {
        for (text, answer) in [("A dog.", "dog"), ("two", " Two "), ("", "")] {
            assert!(is_correct(text, answer), "{text:?}");
        }
        for (text, answer) in [("dogs", "dog"), ("", "dog"), ("dog", "a dog")] {
            assert!(!is_correct(text, answer), "{text:?}");
        }
    }
}
