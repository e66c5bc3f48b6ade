//! Penn Treebank tokens, as COCO's evaluation makes them of captions.
//!
//! COCO's evaluation runs a Java program over all captions, one a line, and drops punctuation from its output. This module
//! computes the same caption by caption: what a caption becomes does not depend on its neighbours, and a character that
//! Java takes for the end of a line is a space here, where it would shift all captions that follow.

mod lexer;
mod rules;

use lexer::Lexer;

/// Tokens that the evaluation drops.
const PUNCTUATION: [&str; 13] = [
    "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";",
];

/// A tokenizer. To make one takes some milliseconds, so keep it for all captions.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    lexer: Lexer,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// A new tokenizer.
    pub fn new() -> Self {
        Self {
            lexer: Lexer::new(),
        }
    }

    /// The tokens of a caption in lower case, without punctuation. A token may contain no-break spaces.
    pub fn tokens(&mut self, caption: &str) -> Vec<String> {
        let mut tokens = self.lexer.tokens(caption);
        tokens.retain(|token| !PUNCTUATION.contains(&token.as_str()));
        tokens
    }

    /// [`Tokenizer::tokens`] separated by spaces.
    pub fn tokenize(&mut self, caption: &str) -> String {
        self.tokens(caption).join(" ")
    }
}

#[cfg(test)]
mod tests;
