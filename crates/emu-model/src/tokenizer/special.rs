//! Emu's special tokens, and how control tokens cut a text into segments.

use std::collections::HashMap;

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
    /// Before a turn of ChatML.
    pub const CHAT_START: &str = "<|im_start|>";
    /// After a turn of ChatML.
    pub const CHAT_END: &str = "<|im_end|>";
    /// After a text, in models that speak ChatML.
    pub const END_OF_TEXT: &str = "<|endoftext|>";
}

/// Whose conventions a tokenizer follows for the tokens around texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// The released Emu's: `<s>` begins every prompt, and special tokens take the white space beside them.
    Llama,
    /// ChatML's: templates write every special token, and no text is stripped.
    ChatMl,
}

impl Manner {
    /// The manner of a tokenizer with these tokens.
    pub fn of(has: impl Fn(&str) -> bool) -> Self {
        match has(names::CHAT_START) && !has(names::BOS) {
            true => Self::ChatMl,
            false => Self::Llama,
        }
    }

    /// Spellings of what begins a sequence, ends it, and stands for the unknown.
    pub fn marks(self) -> [&'static str; 3] {
        match self {
            Self::Llama => [names::BOS, names::EOS, names::UNK],
            Self::ChatMl => [names::CHAT_START, names::CHAT_END, names::END_OF_TEXT],
        }
    }

    /// Whether special tokens take the white space beside them.
    pub fn strips(self) -> bool {
        self == Self::Llama
    }
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
    /// `<s>`; `<|im_start|>` in ChatML
    pub bos: u32,
    /// `</s>`; `<|im_end|>` in ChatML
    pub eos: u32,
    /// `<unk>`; `<|endoftext|>` in ChatML, whose bytes express every text
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
pub(super) enum Segment {
    Text(String),
    Special(u32),
}

impl SpecialTokens {
    /// Ids with their spellings.
    fn all(&self, manner: Manner) -> impl Iterator<Item = (u32, &'static str)> {
        let [bos, eos, unk] = manner.marks();
        let required = [
            (self.bos, bos),
            (self.eos, eos),
            (self.unk, unk),
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

    /// The ids.
    #[cfg(test)]
    pub(super) fn all_ids(&self) -> Vec<u32> {
        self.all(Manner::Llama).map(|(id, _)| id).collect()
    }

    /// Whether `id` is one of them.
    pub fn contains(&self, id: u32) -> bool {
        self.all(Manner::Llama).any(|(special, _)| special == id)
    }
}

/// A token that only templates may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Control {
    pub spelling: String,
    pub id: u32,
    /// Whether it takes the white space before it, and behind it.
    pub strips: (bool, bool),
}

/// All control tokens of a tokenizer: Emu's, and those that its vocabulary had before.
#[derive(Debug, Default)]
pub(super) struct Controls {
    /// The longest spelling first.
    tokens: Vec<Control>,
    /// First bytes of the spellings.
    starts: Vec<u8>,
    /// Places in `tokens`.
    by_id: HashMap<u32, usize>,
}

impl Controls {
    /// Emu's special tokens strip white space on both sides or on none, as is the manner; `others` do as they say.
    pub fn new(
        specials: &SpecialTokens,
        manner: Manner,
        others: impl IntoIterator<Item = Control>,
    ) -> Self {
        let own = specials.all(manner).map(|(id, name)| Control {
            spelling: name.to_owned(),
            id,
            strips: (manner.strips(), manner.strips()),
        });
        let others = others
            .into_iter()
            .filter(|control| !specials.contains(control.id) && !control.spelling.is_empty());
        let mut tokens: Vec<Control> = own.chain(others).collect();
        tokens.sort_by_key(|control| std::cmp::Reverse(control.spelling.len()));
        let mut starts: Vec<u8> = { tokens.iter() }
            .filter_map(|control| control.spelling.bytes().next())
            .collect();
        starts.sort_unstable();
        starts.dedup();
        let mut by_id = HashMap::new();
        for (at, control) in tokens.iter().enumerate() {
            by_id.entry(control.id).or_insert(at);
        }
        Self {
            tokens,
            starts,
            by_id,
        }
    }

    /// The control token with this id.
    pub fn get(&self, id: u32) -> Option<&Control> {
        self.tokens.get(*self.by_id.get(&id)?)
    }

    /// The first control token that a text spells, and where.
    fn find(&self, text: &str) -> Option<(usize, &Control)> {
        let bytes = text.bytes().enumerate();
        let starts = bytes.filter(|(_, byte)| self.starts.contains(byte));
        // A spelling starts with the first byte of a character.
        starts.map(|(at, _)| at).find_map(|at| {
            let rest = text.get(at..)?;
            let found = self.tokens.iter().find(|c| rest.starts_with(&c.spelling))?;
            Some((at, found))
        })
    }
}

/// Cuts a prompt into segments at its control tokens, from left to right. Segments that are empty are left out.
pub(super) struct Cutter<'a> {
    controls: &'a Controls,
    segments: Vec<Segment>,
    /// Since the last control token.
    text: String,
    /// Whether that one strips the white space behind it.
    strip_start: bool,
}

impl<'a> Cutter<'a> {
    pub fn new(controls: &'a Controls) -> Self {
        Self {
            controls,
            segments: Vec::new(),
            text: String::new(),
            strip_start: false,
        }
    }

    /// A text in which the spelling of a control token is that token.
    pub fn template(&mut self, text: &str) {
        let mut rest = text;
        while let Some((at, control)) = self.controls.find(rest) {
            let (before, from) = rest.split_at(at);
            self.text.push_str(before);
            self.control(control);
            rest = from.get(control.spelling.len()..).unwrap_or_default();
        }
        self.text.push_str(rest);
    }

    /// A text in which nothing is a control token.
    pub fn plain(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A control token by its id.
    pub fn special(&mut self, id: u32) {
        if let Some(control) = self.controls.get(id) {
            self.control(control);
        }
    }

    fn control(&mut self, control: &Control) {
        self.end_text(control.strips.0);
        self.segments.push(Segment::Special(control.id));
        self.strip_start = control.strips.1;
    }

    fn end_text(&mut self, strip_end: bool) {
        let mut text = self.text.as_str();
        if self.strip_start {
            text = text.trim_start_matches(is_space);
        }
        if strip_end {
            text = text.trim_end_matches(is_space);
        }
        if !text.is_empty() {
            self.segments.push(Segment::Text(text.to_owned()));
        }
        self.text.clear();
    }

    /// The segments.
    pub fn finish(mut self) -> Vec<Segment> {
        self.end_text(false);
        self.segments
    }
}

/// Python's `str.isspace`: Unicode's white space and four separators among the control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
