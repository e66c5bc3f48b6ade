//! Prompts before tokenization: spans of template text, user text, and pictures.

use crate::TokenizerError;
use crate::special::names;

/// The picture mark on the command line.
pub const IMAGE_MARK: &str = names::IMAGE;
/// The picture mark of the released code.
pub const RELEASED_MARK: &str = "[<IMG_PLH>]";

/// A span of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// Text from a template: the spelling of a special token is that token.
    Template(String),
    /// User text: always plain text, whatever it spells.
    Plain(String),
    /// A picture.
    Picture,
}

impl Span {
    /// Length of the text in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Template(text) | Self::Plain(text) => text.len(),
            Self::Picture => 0,
        }
    }
}

/// A prompt as a list of spans. [`encode_prompt`](crate::EmuTokenizer::encode_prompt) encodes it as one text; only template
/// spans may contain special tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptText {
    spans: Vec<Span>,
}

impl PromptText {
    /// The spans in order.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Appends template text.
    pub fn template(&mut self, text: &str) {
        self.push(Span::Template(text.to_owned()));
    }

    /// Appends user text.
    pub fn plain(&mut self, text: &str) {
        self.push(Span::Plain(text.to_owned()));
    }

    /// Appends pictures.
    pub fn pictures(&mut self, count: usize) {
        self.spans.extend(std::iter::repeat_n(Span::Picture, count));
    }

    /// Appends another prompt.
    pub fn append(&mut self, other: Self) {
        self.spans.extend(other.spans);
    }

    /// Replaces the pictures by the templates, in order; the last template is repeated for any further pictures.
    pub fn with_pictures_as(&self, templates: &[&str]) -> Self {
        let mut left = templates.iter();
        let mut template = "";
        let span = |span: &Span| match span {
            Span::Picture => {
                template = left.next().copied().unwrap_or(template);
                Span::Template(template.to_owned())
            }
            other => other.clone(),
        };
        Self {
            spans: self.spans.iter().map(span).collect(),
        }
    }

    /// Whether the prompt has no spans.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn push(&mut self, span: Span) {
        if span.bytes() > 0 {
            self.spans.push(span);
        }
    }
}

/// A picture block: `[IMG]`, then `<image>` once per embedding, then `[/IMG]`.
pub fn picture_block(tokens_per_picture: usize) -> String {
    format!(
        "{}{}{}",
        names::IMG,
        names::IMAGE.repeat(tokens_per_picture),
        names::END_IMG
    )
}

/// The prompt of the released code for an instruction-tuned model.
pub fn instruct_prompt(system: &str, user: &str) -> String {
    format!("{system} {}: {user} {}:", names::USER, names::ASSISTANT)
        .trim()
        .to_owned()
}

/// Replaces each picture mark (`<image>` or `[<IMG_PLH>]`) by a picture block of `tokens_per_picture` tokens. Without marks
/// the pictures come first. Blocks that are already spelled out count as marks.
pub fn expand_pictures(
    prompt: &str,
    pictures: usize,
    tokens_per_picture: usize,
) -> Result<String, TokenizerError> {
    let block = picture_block(tokens_per_picture);
    let mut out = String::with_capacity(prompt.len());
    let (mut marks, mut rest) = (0, prompt);
    while let Some(at) = rest.find(['<', '[']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some((found, after)) = written_out(from) {
            if found != tokens_per_picture {
                return Err(TokenizerError::BlockLength {
                    found,
                    expected: tokens_per_picture,
                });
            }
            out.push_str(&block);
            (marks, rest) = (marks + 1, after);
        } else if let Some(after) = from
            .strip_prefix(RELEASED_MARK)
            .or_else(|| from.strip_prefix(IMAGE_MARK))
        {
            out.push_str(&block);
            (marks, rest) = (marks + 1, after);
        } else {
            let (first, after) = from.split_at(1);
            out.push_str(first);
            rest = after;
        }
    }
    out.push_str(rest);
    match marks {
        0 => Ok(block.repeat(pictures) + &out),
        marks if marks == pictures => Ok(out),
        marks => Err(TokenizerError::MarksMismatch { marks, pictures }),
    }
}

/// Parses a picture block at the start of `text`: the number of `<image>` tokens, and the rest of the text. `[IMG]` around
/// other text, as in the released system messages, is not a block.
fn written_out(text: &str) -> Option<(usize, &str)> {
    let mut rest = text.strip_prefix(names::IMG)?;
    let mut found = 0;
    while let Some(after) = rest.strip_prefix(names::IMAGE) {
        (found, rest) = (found + 1, after);
    }
    let rest = rest.strip_prefix(names::END_IMG)?;
    (found > 0).then_some((found, rest))
}
