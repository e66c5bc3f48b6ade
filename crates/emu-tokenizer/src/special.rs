//! Emu's special tokens, and splitting of texts into segments at control tokens.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Spellings of the special tokens.
pub mod names {
    /// Start of a sequence.
    pub const BOS: &str = "<s>";
    /// End of a sequence.
    pub const EOS: &str = "</s>";
    /// Unknown: text that the vocabulary cannot express.
    pub const UNK: &str = "<unk>";
    /// Padding.
    pub const PAD: &str = "[PAD]";
    /// Before the embeddings of a picture.
    pub const IMG: &str = "[IMG]";
    /// After the embeddings of a picture.
    pub const END_IMG: &str = "[/IMG]";
    /// One embedding of a picture.
    pub const IMAGE: &str = "<image>";
    /// Before a user turn.
    pub const USER: &str = "[USER]";
    /// Before a model turn.
    pub const ASSISTANT: &str = "[ASSISTANT]";
    /// Before a ChatML turn.
    pub const CHAT_START: &str = "<|im_start|>";
    /// After a ChatML turn.
    pub const CHAT_END: &str = "<|im_end|>";
    /// End of text, in ChatML models.
    pub const END_OF_TEXT: &str = "<|endoftext|>";
}

/// The special token conventions of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Released Emu: `<s>` begins every prompt, and special tokens strip adjacent white space.
    Llama,
    /// ChatML: templates write every special token, and no white space is stripped.
    ChatMl,
}

impl Manner {
    /// Detects the convention from the tokens of a vocabulary.
    pub fn of(has: impl Fn(&str) -> bool) -> Self {
        match has(names::CHAT_START) && !has(names::BOS) {
            true => Self::ChatMl,
            false => Self::Llama,
        }
    }

    /// Spellings of the BOS, EOS and UNK tokens.
    pub fn marks(self) -> [&'static str; 3] {
        match self {
            Self::Llama => [names::BOS, names::EOS, names::UNK],
            Self::ChatMl => [names::CHAT_START, names::CHAT_END, names::END_OF_TEXT],
        }
    }

    /// Whether special tokens strip adjacent white space.
    pub fn strips(self) -> bool {
        self == Self::Llama
    }
}

/// The special tokens to add to a language model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// `[PAD] [IMG] [/IMG] <image>`.
    Pretrain,
    /// Those of [`Roles::Pretrain`], `[USER]` and `[ASSISTANT]`.
    Instruct,
}

impl Roles {
    /// The added tokens in id order.
    pub(crate) fn added(self) -> &'static [&'static str] {
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
    /// `<unk>`; `<|endoftext|>` in ChatML, where byte-level BPE needs no unknown token
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

/// A segment of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Text(String),
    Special(u32),
}

impl SpecialTokens {
    /// Ids and spellings.
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
    pub(crate) fn all_ids(&self) -> Vec<u32> {
        self.all(Manner::Llama).map(|(id, _)| id).collect()
    }

    /// Whether `id` is a special token.
    pub fn contains(&self, id: u32) -> bool {
        self.all(Manner::Llama).any(|(special, _)| special == id)
    }
}

/// A control token: only templates may produce it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Control {
    pub spelling: String,
    pub id: u32,
    /// Whether it strips the white space before it, and after it.
    pub strips: (bool, bool),
}

/// All control tokens of a tokenizer: Emu's special tokens, and those of the original vocabulary.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    /// Longest spelling first.
    tokens: Vec<Control>,
    /// First bytes of the spellings, for a quick scan.
    starts: Vec<u8>,
    /// Index in `tokens` by id.
    by_id: HashMap<u32, usize>,
}

impl Controls {
    /// Emu's special tokens strip white space on both sides or none, depending on `manner`; `others` keep their own rule.
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

    /// The first control token spelled in a text, and its offset.
    fn find(&self, text: &str) -> Option<(usize, &Control)> {
        let bytes = text.bytes().enumerate();
        let starts = bytes.filter(|(_, byte)| self.starts.contains(byte));
        // `get` is `None` inside a character; a spelling starts at a character boundary.
        starts.map(|(at, _)| at).find_map(|at| {
            let rest = text.get(at..)?;
            let found = self.tokens.iter().find(|c| rest.starts_with(&c.spelling))?;
            Some((at, found))
        })
    }
}

/// Splits a prompt into segments at its control tokens, from left to right. Empty segments are dropped.
pub(crate) struct Cutter<'a> {
    controls: &'a Controls,
    segments: Vec<Segment>,
    /// Text since the last control token.
    text: String,
    /// Whether that token strips the white space after it.
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

    /// Appends template text: the spelling of a control token is that token.
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

    /// Appends user text: nothing in it is a control token.
    pub fn plain(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends a control token by its id.
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

    /// Returns the segments.
    pub fn finish(mut self) -> Vec<Segment> {
        self.end_text(false);
        self.segments
    }
}

/// Python's `str.isspace`: Unicode white space and the four separators U+001C to U+001F.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}
