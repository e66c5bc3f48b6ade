//! Emu's special tokens, and how they cut a text into segments.

use serde::{Deserialize, Serialize};

/// How the special tokens are spelled.
pub mod names {
    /// Start of a sequence.
    pub const BOS: &str = "<s>";
    /// End of a sequence.
    pub const EOS: &str = "</s>";
    /// What the vocabulary cannot express.
    pub const UNK: &str = "<unk>";
    /// Padding.
    pub const PAD: &str = "[PAD]";
    /// Before the embeddings of a picture.
    pub const IMG: &str = "[IMG]";
    /// After the embeddings of a picture.
    pub const END_IMG: &str = "[/IMG]";
    /// One embedding of a picture.
    pub const IMAGE: &str = "<image>";
    /// Before what the user says.
    pub const USER: &str = "[USER]";
    /// Before what the model says.
    pub const ASSISTANT: &str = "[ASSISTANT]";
}

/// Which special tokens are added to a language model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// `[PAD] [IMG] [/IMG] <image>`.
    Pretrain,
    /// Those, `[USER]` and `[ASSISTANT]`.
    Instruct,
}

impl Roles {
    /// The added tokens in the order in which they get ids.
    pub(super) fn added(self) -> &'static [&'static str] {
        const ALL: [&str; 6] = [
            names::PAD,
            names::IMG,
            names::END_IMG,
            names::IMAGE,
            names::USER,
            names::ASSISTANT,
        ];
        match self {
            Self::Pretrain => &ALL[..4],
            Self::Instruct => &ALL,
        }
    }
}

/// Ids of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// `<s>`
    pub bos: u32,
    /// `</s>`
    pub eos: u32,
    /// `<unk>`
    pub unk: u32,
    /// `[PAD]`
    pub pad: u32,
    /// `[IMG]`
    pub img: u32,
    /// `[/IMG]`
    pub end_img: u32,
    /// `<image>`
    pub image: u32,
    /// `[USER]`, of instruction-tuned models
    pub user: Option<u32>,
    /// `[ASSISTANT]`, of instruction-tuned models
    pub assistant: Option<u32>,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Text(&'a str),
    Special(u32),
}

impl SpecialTokens {
    /// Ids with their spellings.
    fn all(&self) -> impl Iterator<Item = (u32, &'static str)> {
        let required = [
            (self.bos, names::BOS),
            (self.eos, names::EOS),
            (self.unk, names::UNK),
            (self.pad, names::PAD),
            (self.img, names::IMG),
            (self.end_img, names::END_IMG),
            (self.image, names::IMAGE),
        ];
        let roles = [(self.user, names::USER), (self.assistant, names::ASSISTANT)];
        required
            .into_iter()
            .chain(roles.into_iter().filter_map(|(id, name)| Some((id?, name))))
    }

    /// Whether `id` is one of them.
    pub fn contains(&self, id: u32) -> bool {
        self.all().any(|(special, _)| special == id)
    }

    /// Cuts a text at its special tokens, from left to right, and strips white space on both sides of each. Segments
    /// that are empty then are left out.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Segment<'a>> {
        let mut segments = Vec::new();
        let (mut from, mut at, mut after_special) = (0, 0, false);
        while let Some(offset) = text[at..].find(['<', '[']) {
            at += offset;
            // no spelling is the start of another, so the first that fits is the longest
            match self.all().find(|(_, name)| text[at..].starts_with(name)) {
                Some((id, name)) => {
                    push_text(&mut segments, &text[from..at], after_special, true);
                    segments.push(Segment::Special(id));
                    at += name.len();
                    (from, after_special) = (at, true);
                }
                None => at += 1,
            }
        }
        push_text(&mut segments, &text[from..], after_special, false);
        segments
    }
}

fn push_text<'a>(
    segments: &mut Vec<Segment<'a>>,
    text: &'a str,
    strip_start: bool,
    strip_end: bool,
) {
    let text = if strip_start {
        text.trim_start_matches(is_space)
    } else {
        text
    };
    let text = if strip_end {
        text.trim_end_matches(is_space)
    } else {
        text
    };
    if !text.is_empty() {
        segments.push(Segment::Text(text));
    }
}

/// Python's `str.isspace`: Unicode's white space and four separators among the control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
