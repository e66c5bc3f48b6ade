//! From what a model writes to what is scored, as Emu's released evaluation does it.

use crate::score::python::strip;

/// The answer in a model's text for VQAv2, OK-VQA and VizWiz: its first clause in lower case, without an introduction or
/// article.
///
/// In this order: the text before the first newline, `. `, `"` and `, `; white space at the ends; lower case; one final
/// period; and then each of `it is `, `it's `, `a `, `an `, `the `, once, if the rest begins with it.
pub fn short_answer(text: &str) -> String {
    let mut text = text;
    for end in ["\n", ". ", "\"", ", "] {
        text = before(text, end);
    }
    let lower = strip(text).to_lowercase();
    let mut answer = lower.strip_suffix('.').unwrap_or(&lower);
    for start in ["it is ", "it's ", "a ", "an ", "the "] {
        answer = answer.strip_prefix(start).unwrap_or(answer);
    }
    answer.to_string()
}

/// The caption in a model's text for COCO: the text before the first newline and `. `, without one final period, in lower
/// case.
pub fn caption(text: &str) -> String {
    let text = before(before(text, "\n"), ". ");
    text.strip_suffix('.').unwrap_or(text).to_lowercase()
}

fn before<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or(text, |(start, _)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn introductions_and_articles_go_once_and_in_order() {
        for (text, answer) in [
            ("A red ball.", "red ball"),
            ("It is an owl, I think", "owl"),
            ("an the x", "x"),
            ("the an x", "an x"),
            ("\"quoted\"", ""),
            ("end. ", "end"),
            ("x..", "x."),
            ("a", "a"),
            ("\u{a0}Two\nthree", "two"),
        ] {
            assert_eq!(short_answer(text), answer, "{text:?}");
        }
    }

    #[test]
    fn captions_keep_their_articles_and_blanks() {
        assert_eq!(caption(" A Dog. On a mat."), " a dog");
        assert_eq!(caption("A dog, sleeping.\nNext"), "a dog, sleeping");
    }
}
