//! Builds prompts from user input: image marks, templates, token ids, visual embeddings.

mod embed;

use std::borrow::Cow;

use burn::tensor::{Device, Tensor};
use emu_media::image::{ImageError, RgbImage, scene};
use emu_tokenizer::{
    EmuTokenizer, IMAGE_MARK, PromptText, RELEASED_MARK, Span, TokenizerError, names,
};

use crate::config::{EmuConfig, PromptConfig};
use crate::emu::Emu;
use crate::generate::{LastTurn, Prompt, VisualKey};
use crate::pictures::PictureCache;
use crate::spelling::{DREW, is_drawn};

/// Mark of a video.
pub const VIDEO_MARK: &str = "<video>";
/// Escapes a mark that is meant as text.
pub const ESCAPE: char = '\\';
/// Placeholder of the user's text in a template.
const SAID: &str = "{}";
/// Placeholder of images in a template.
const PICTURES: &str = "{pictures}";

/// User input: text, with images before it or in it.
///
/// Text is never parsed for marks or special tokens, except by [`Marked::new`].
#[derive(Clone, Debug, Default)]
pub struct Marked {
    /// The text, with the positions of all images that are not leading.
    said: PromptText,
    /// Images, including video frames: the leading ones, then in order of their positions.
    pub pictures: Vec<RgbImage>,
    /// Number of leading images, which the model's template may place elsewhere.
    pub leading: usize,
}

impl Marked {
    /// Text without images.
    pub fn words(text: &str) -> Self {
        let mut marked = Self::default();
        marked.say(text);
        marked
    }

    /// Appends text.
    pub fn say(&mut self, text: &str) {
        self.said.plain(text);
    }

    /// Appends an image; before any text it is a leading one.
    pub fn show(&mut self, picture: RgbImage) {
        match self.said.is_empty() {
            true => self.leading += 1,
            false => self.said.pictures(1),
        }
        self.pictures.push(picture);
    }

    /// Parses a text with marks, as the command line passes them: `<image>` stands for one image, `<video>` for the
    /// frames of one video. If the text has no marks for them, images or videos are leading, videos before images. A
    /// mark after a backslash is text.
    ///
    /// # Errors
    /// If there are marks, but not as many as images or videos.
    pub fn new(
        text: &str,
        pictures: Vec<RgbImage>,
        videos: Vec<Vec<RgbImage>>,
    ) -> Result<Self, PromptError> {
        let pieces = cut(text);
        let marked = |wanted: Mark, given: usize| {
            let marks = pieces.iter().filter(|p| **p == Piece::Mark(wanted)).count();
            match marks {
                0 => Ok(false),
                _ if marks == given => Ok(true),
                _ => Err(PromptError::Marks {
                    mark: wanted.spelling(),
                    marks,
                    given,
                }),
            }
        };
        let pictures_marked = marked(Mark::Image, pictures.len())?;
        let videos_marked = marked(Mark::Video, videos.len())?;

        let mut filled = Self::default();
        let (mut pictures, mut videos) = (pictures.into_iter(), videos.into_iter());
        if !videos_marked {
            filled.pictures.extend(videos.by_ref().flatten());
        }
        if !pictures_marked {
            filled.pictures.extend(pictures.by_ref());
        }
        filled.leading = filled.pictures.len();
        for piece in pieces {
            match piece {
                Piece::Words(words) => filled.say(words),
                Piece::Mark(Mark::Image) => filled.place(pictures.next()),
                Piece::Mark(Mark::Video) => filled.place(videos.next().into_iter().flatten()),
            }
        }
        Ok(filled)
    }

    /// Inserts images at this position.
    fn place(&mut self, pictures: impl IntoIterator<Item = RgbImage>) {
        for picture in pictures {
            self.said.pictures(1);
            self.pictures.push(picture);
        }
    }

    /// The image of a turn that shows one image and says nothing.
    fn lone_picture(&self) -> Option<&RgbImage> {
        let is_blank = |span: &Span| match span {
            Span::Plain(text) => text.trim().is_empty(),
            Span::Template(_) => false,
            Span::Picture => true,
        };
        match &*self.pictures {
            [picture] if self.said.spans().iter().all(is_blank) => Some(picture),
            _ => None,
        }
    }

    /// Formats a user turn that requests an answer. A lone image without words is no question, which a model trained on
    /// questions answers with anything: it requests a caption.
    pub fn turn(&self, templates: &PromptConfig) -> PromptText {
        match self.lone_picture() {
            Some(_) => caption_request(templates),
            None => self.question(templates),
        }
    }

    fn question(&self, templates: &PromptConfig) -> PromptText {
        if self.pictures.len() > self.leading
            && let Some(template) = &templates.marked
        {
            return self.fill(template);
        }
        let mut asked = self.fill(&templates.user);
        asked.template(&templates.assistant);
        asked
    }

    /// Formats a request to draw.
    pub fn request(&self, templates: &PromptConfig) -> PromptText {
        let template = match (&templates.blend, self.pictures.is_empty()) {
            (Some(blend), false) => blend,
            _ => &templates.imagine,
        };
        self.fill(template)
    }

    /// Fills a template with the text and the leading images; without a placeholder, the images precede the text.
    fn fill(&self, template: &str) -> PromptText {
        let mut filled = PromptText::default();
        let apart = template.contains(PICTURES);
        let (mut rest, mut slots) = (template, vec![PICTURES, SAID]);
        let first = |rest: &str, slots: &[&'static str]| {
            let found = slots
                .iter()
                .filter_map(|slot| Some((rest.find(slot)?, *slot)));
            found.min()
        };
        while let Some((at, slot)) = first(rest, &slots) {
            let (before, from) = rest.split_at(at);
            filled.template(before);
            if slot == PICTURES || !apart {
                filled.pictures(self.leading);
            }
            if slot == SAID {
                filled.append(self.said.clone());
            }
            rest = from.get(slot.len()..).unwrap_or_default();
            slots.retain(|open| *open != slot);
        }
        filled.template(rest);
        filled
    }
}

/// Formats a request to caption an image: the image alone, or with the model's caption prompt.
fn caption_request(templates: &PromptConfig) -> PromptText {
    let mut request = PromptText::default();
    match templates.caption.as_str() {
        "" => request.pictures(1),
        words => {
            let mut asked = Marked {
                leading: 1,
                ..Default::default()
            };
            asked.said.template(words);
            request = asked.question(templates);
        }
    }
    request
}

/// Kind of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Image,
    Video,
}

impl Mark {
    /// Spellings of the marks.
    const SPELLINGS: [(&str, Self); 3] = [
        (IMAGE_MARK, Self::Image),
        (RELEASED_MARK, Self::Image),
        (VIDEO_MARK, Self::Video),
    ];

    const fn spelling(self) -> &'static str {
        match self {
            Self::Image => IMAGE_MARK,
            Self::Video => VIDEO_MARK,
        }
    }
}

/// A segment of a text with marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Words(&'a str),
    Mark(Mark),
}

/// Splits a text at its marks. The [`ESCAPE`] before a mark is removed.
fn cut(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = vec![];
    let (mut rest, mut from) = (text, 0);
    while let Some((at, length, mark)) = first_mark(rest, from) {
        let (before, marked) = rest.split_at(at);
        match before.strip_suffix(ESCAPE) {
            Some(before) => {
                pieces.push(Piece::Words(before));
                // The mark is the start of the following text.
                (rest, from) = (marked, length);
            }
            None => {
                pieces.extend([Piece::Words(before), Piece::Mark(mark)]);
                (rest, from) = (marked.get(length..).unwrap_or_default(), 0);
            }
        }
    }
    pieces.push(Piece::Words(rest));
    pieces
}

/// Position, length and kind of the first mark at or after `from`.
fn first_mark(text: &str, from: usize) -> Option<(usize, usize, Mark)> {
    let searched = text.get(from..)?;
    Mark::SPELLINGS
        .into_iter()
        .filter_map(|(spelling, mark)| {
            Some((from + searched.find(spelling)?, spelling.len(), mark))
        })
        .min_by_key(|(at, ..)| *at)
}

/// A conversation: its turns and their images.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// System message; `None` for the model's default.
    pub system: Option<String>,
    /// Turns; the answer of the last one is still to be generated.
    pub turns: Vec<Turn>,
}

impl Conversation {
    /// The last `most` turns. If none of them has images, the latest images of the dropped turns are moved to the
    /// first. If `most` is limited, a last turn with its own images is used alone: text about other images is
    /// misleading.
    fn followed(&self, most: Option<usize>) -> Cow<'_, [Turn]> {
        let has_pictures = |turn: &&Turn| !turn.user.pictures.is_empty();
        let most = match self.turns.last() {
            Some(last) if has_pictures(&last) => most.map(|_| 1),
            _ => most,
        };
        let first = most.map_or(0, |most| self.turns.len().saturating_sub(most));
        let (before, rest) = self.turns.split_at(first);
        let shown = before.iter().rfind(has_pictures);
        match (shown, rest.split_first()) {
            (Some(shown), Some((first, others)))
                if !rest.iter().any(|turn| has_pictures(&turn)) =>
            {
                let mut first = first.clone();
                first.user.leading = shown.user.pictures.len();
                first.user.pictures.clone_from(&shown.user.pictures);
                Cow::Owned([&[first], others].concat())
            }
            _ => Cow::Borrowed(rest),
        }
    }
}

/// Formats the system message before the first turn: a given one in the model's template, or the model's own.
pub fn system_message(given: Option<&str>, templates: &PromptConfig) -> PromptText {
    let mut text = PromptText::default();
    match (given, &templates.system_turn) {
        (None, _) => text.template(&templates.system),
        (Some(said), None) => text.plain(said),
        // An empty message requests no system message.
        (Some(""), Some(_)) => {}
        (Some(said), Some(template)) => text = Marked::words(said).fill(template),
    }
    text
}

/// User input and the model's answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The user's text and images.
    pub user: Marked,
    /// The model's answer.
    pub answer: String,
}

/// How an image is read.
struct Seen<'a> {
    /// Template of the image.
    template: Option<&'a str>,
    /// Areas of the objects that are read one by one; empty if the image is read as a whole.
    things: Vec<scene::Area>,
}

/// What the encoder reads of an image: all of it, or its objects one by one.
fn views(picture: &RgbImage, seen: &Seen<'_>) -> Vec<RgbImage> {
    match seen.things.len() {
        0 => vec![picture.clone()],
        _ => { seen.things.iter() }
            .map(|thing| scene::cut(picture, *thing))
            .collect(),
    }
}

/// What precedes the first turn.
enum Opening {
    /// The model's default.
    Own,
    /// The user's system message.
    Given(PromptText),
}

/// Why a prompt cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Number of marks and number of images or videos differ.
    #[error(
        "The prompt has {marks} {mark} marks for {given} given. Give one for each mark, leave the marks out, or write \\{mark} where these very letters are meant."
    )]
    Marks {
        /// The mark.
        mark: &'static str,
        /// Number of marks in the text.
        marks: usize,
        /// Number of images or videos.
        given: usize,
    },
    /// The text cannot be encoded or is too long.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An image cannot be resized.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl PromptError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Marks { .. } => "image-marks",
            Self::Tokenizer(TokenizerError::PromptTooLong { .. }) => "prompt-too-long",
            Self::Tokenizer(_) => "bad-prompt",
            Self::Image(_) => "bad-image",
        }
    }
}

/// Builds prompts for a model.
#[derive(Clone, Copy, Debug)]
pub struct Prompter<'a> {
    /// Vision encoder and causal former, or namer.
    pub emu: &'a Emu,
    /// Its configuration.
    pub config: &'a EmuConfig,
    /// Its tokenizer.
    pub tokenizer: &'a EmuTokenizer,
    /// Its device.
    pub device: &'a Device,
    /// Visual embeddings of the pictures read before; `None` to encode every picture anew.
    pub pictures: Option<&'a PictureCache>,
}

impl Prompter<'_> {
    /// Builds the prompt of a conversation, up to the start of the next answer.
    ///
    /// # Errors
    /// If it exceeds the context.
    pub fn conversation(&self, conversation: &Conversation) -> Result<Prompt, PromptError> {
        let templates = &self.config.prompts;
        let (mut text, mut pictures) = (PromptText::default(), vec![]);
        let mut opening = Opening::Own;
        let is_own = conversation.system.is_none();
        if let Some(said) = &conversation.system {
            opening = Opening::Given(system_message(Some(said), templates));
        }
        let turns = conversation.followed(templates.turns);
        if let ([only], true) = (&*turns, is_own)
            && let Some(picture) = only.user.lone_picture()
        {
            return self.caption_of(picture);
        }
        for (i, turn) in turns.iter().enumerate() {
            text.append(turn.user.turn(templates));
            text.plain(&turn.answer);
            if i + 1 < turns.len() {
                text.template(&templates.answered);
            }
            pictures.extend_from_slice(&turn.user.pictures);
        }
        let mut prompt = self.behind(opening, text, &pictures)?;
        let drew = |turn: &Turn| is_drawn(&turn.answer);
        if self.config.requests.is_some() && is_own && !turns.iter().any(drew) {
            prompt.claim = Some(self.tokenizer.encode_plain(DREW.trim_end())?);
        }
        // What a message says by itself shows better without the turns before it.
        if let ([_, .., last], Some(_), true) = (&*turns, &self.config.requests, is_own) {
            prompt.last = Some(Box::new(LastTurn {
                prompt: self.behind(Opening::Own, last.user.turn(templates), &[])?,
                after_talk: pictures.is_empty() && !turns.iter().any(drew),
            }));
        }
        Ok(prompt)
    }

    /// Builds the prompt of turns after their opening: a system message, or the soft prompt that replaces the default
    /// one.
    fn behind(
        &self,
        opening: Opening,
        turns: PromptText,
        pictures: &[RgbImage],
    ) -> Result<Prompt, PromptError> {
        let context = self.config.lm.context;
        let count = |text: &PromptText| -> Result<usize, TokenizerError> {
            Ok(self.tokenizer.encode_prompt(text, 0, context)?.len())
        };
        let mut text = PromptText::default();
        let (opening, persona) = match (opening, &self.emu.persona) {
            (Opening::Own, Some(persona)) => {
                // `<image>` tokens that the rows of the soft prompt will replace.
                let [length, _] = persona.embeddings.dims();
                text.template(&names::IMAGE.repeat(length));
                (length, Some(persona))
            }
            (Opening::Own, None) => {
                text.append(system_message(None, &self.config.prompts));
                (count(&text)?, None)
            }
            (Opening::Given(said), _) => {
                text.append(said);
                (count(&text)?, None)
            }
        };
        let alone = self
            .config
            .requests
            .as_ref()
            .and_then(|requests| requests.alone.as_ref());
        let alone = match (persona, alone) {
            (Some(_), Some(_)) if pictures.is_empty() => {
                Some(self.tokenizer.encode_prompt(&turns, 0, context)?)
            }
            _ => None,
        };
        text.append(turns);
        let mut prompt = self.ask(&text, pictures)?;
        prompt.opening = opening;
        prompt.alone = alone;
        if let Some(persona) = persona {
            let rows = persona.begin(1);
            let [_, _, d] = rows.dims();
            let seen = prompt.visual.map(|seen| {
                let [pictures, q, _] = seen.dims();
                seen.reshape([1, pictures * q, d])
            });
            let rows = [rows].into_iter().chain(seen);
            prompt.visual = Some(Tensor::cat(rows.collect(), 1));
            let soft = (0..opening as u32).map(VisualKey::SoftPrompt);
            prompt.visual_keys = soft.chain(prompt.visual_keys).collect();
        }
        Ok(prompt)
    }

    /// Builds a caption prompt: the image alone, or with the model's caption prompt.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn caption(&self, picture: RgbImage) -> Result<Prompt, PromptError> {
        self.caption_of(&picture)
    }

    fn caption_of(&self, picture: &RgbImage) -> Result<Prompt, PromptError> {
        let pictures = std::slice::from_ref(picture);
        let request = caption_request(&self.config.prompts);
        match self.config.prompts.caption.is_empty() {
            true => self.ask(&request, pictures),
            false => self.behind(Opening::Own, request, pictures),
        }
    }

    /// Builds the caption prompt of each image. The encoder reads the images together, in batches.
    ///
    /// # Errors
    /// As [`Prompter::conversation`]; the first error of any image.
    pub fn captions(&self, pictures: &[RgbImage]) -> Result<Vec<Prompt>, PromptError> {
        let views: Vec<RgbImage> = { pictures.iter() }
            .flat_map(|picture| views(picture, &self.see(picture)))
            .collect();
        let read = PictureCache::default();
        let prompter = Prompter {
            pictures: self.pictures.or(Some(&read)),
            ..*self
        };
        // Fills the cache that the prompts are built from.
        prompter.embed(&views)?;
        { pictures.iter() }
            .map(|picture| prompter.caption_of(picture))
            .collect()
    }

    /// Builds a prompt that continues with an image, without the final [IMG]. White space before [IMG] is dropped.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn picture(&self, marked: &Marked) -> Result<Prompt, PromptError> {
        let mut request = marked.request(&self.config.prompts);
        if self.config.requests.is_some() {
            // A conversation turn: the request reader was trained on these.
            return self.behind(Opening::Own, request, &marked.pictures);
        }
        request.template(names::IMG);
        let mut prompt = self.ask(&request, &marked.pictures)?;
        prompt.ids.pop();
        Ok(prompt)
    }

    /// Builds the prompt of a text with images.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn ask(&self, text: &PromptText, pictures: &[RgbImage]) -> Result<Prompt, PromptError> {
        let (queries, context) = (self.config.queries(), self.config.lm.context);
        let seen: Vec<Seen<'_>> = pictures.iter().map(|p| self.see(p)).collect();
        let templates: Option<Vec<&str>> = seen.iter().map(|seen| seen.template).collect();
        let spelled = templates.filter(|all| !all.is_empty());
        let spelled = spelled.map(|templates| text.with_pictures_as(&templates));
        let text = spelled.as_ref().unwrap_or(text);
        let ids = self.tokenizer.encode_prompt(text, queries, context)?;
        let (visual, visual_keys) = match seen.iter().all(|seen| seen.things.is_empty()) {
            true => self.embed_whole(pictures)?,
            false => self.embed_things(pictures, &seen)?,
        };
        Ok(Prompt {
            visual,
            visual_keys,
            ..Prompt::text(ids)
        })
    }

    /// How an image is read.
    fn see(&self, picture: &RgbImage) -> Seen<'_> {
        let templates = &self.config.prompts;
        let whole = Seen {
            template: templates.picture.as_deref(),
            things: vec![],
        };
        let Some(scenes) = &templates.scenes else {
            return whole;
        };
        let things = scene::objects(picture);
        let template = match things.len() {
            // A single object is also recognised better when cropped.
            1 => {
                return Seen { things, ..whole };
            }
            2 if scene::in_a_row(&things) => &scenes.beside,
            2 => &scenes.above,
            3 => &scenes.three,
            4 => &scenes.four,
            _ => return whole,
        };
        Seen {
            template: Some(template),
            things,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(shade: u8) -> RgbImage {
        RgbImage::from_pixel(1, 1, [shade; 3].into())
    }

    fn shades(marked: &Marked) -> Vec<u8> {
        marked.pictures.iter().map(|p| p.as_raw()[0]).collect()
    }

    /// User text in quotes, images as `*`.
    fn shown(text: &PromptText) -> String {
        let show = |span: &Span| match span {
            Span::Template(text) => text.clone(),
            Span::Plain(text) => format!("'{text}'"),
            Span::Picture => "*".into(),
        };
        text.spans().iter().map(show).collect()
    }

    fn whole(marked: &Marked) -> String {
        "*".repeat(marked.leading) + &shown(&marked.said)
    }

    #[test]
    fn marks_are_filled_in_order() {
        let videos = vec![vec![picture(7), picture(8)]];
        let text = "a <image> b <video> c [<IMG_PLH>]";
        let marked = Marked::new(text, vec![picture(1), picture(2)], videos.clone()).expect("fits");
        assert_eq!(whole(&marked), "'a '*' b '**' c '*");
        assert_eq!((shades(&marked), marked.leading), (vec![1, 7, 8, 2], 0));
        let marked = Marked::new("what?", vec![picture(1)], videos.clone()).expect("fits");
        assert_eq!(whole(&marked), "***'what?'");
        assert_eq!((shades(&marked), marked.leading), (vec![7, 8, 1], 3));
        let marked = Marked::new("<image>?", vec![picture(1)], videos).expect("fits");
        assert_eq!(whole(&marked), "***'?'");
        assert_eq!((shades(&marked), marked.leading), (vec![7, 8, 1], 2));
    }

    #[test]
    fn a_model_is_shown_the_turns_that_it_follows() {
        let turn = |said: &str, pictures: usize| Turn {
            user: Marked::new(said, vec![picture(pictures as u8); pictures], vec![]).expect("fits"),
            answer: String::new(),
        };
        let told = |turns: Vec<Turn>, most| -> String {
            let conversation = Conversation {
                system: None,
                turns,
            };
            let shown = conversation.followed(most);
            shown.iter().map(|turn| whole(&turn.user)).collect()
        };
        let all = || vec![turn("a", 1), turn("b", 2), turn("c", 0), turn("d", 0)];
        assert_eq!(told(all(), None), "*'a'**'b''c''d'");
        assert_eq!(told(all(), Some(1)), "**'d'");
        assert_eq!(told(all(), Some(2)), "**'c''d'");
        assert_eq!(told(all(), Some(3)), "**'b''c''d'");
        assert_eq!(told(vec![turn("a", 1), turn("b", 1)], Some(1)), "*'b'");
        assert_eq!(told(vec![turn("a", 0), turn("b", 1)], Some(2)), "*'b'");
        assert_eq!(told(vec![turn("a", 0), turn("b", 1)], None), "'a'*'b'");
        assert_eq!(told(vec![turn("a", 0), turn("b", 0)], Some(1)), "'b'");
        assert_eq!(told(vec![turn("a", 0)], Some(9)), "'a'");
    }

    #[test]
    fn a_mark_behind_a_backslash_is_text() {
        let said = |text: &str, pictures: usize| {
            let marked = Marked::new(text, vec![picture(1); pictures], vec![]).expect("fits");
            whole(&marked)
        };
        assert_eq!(said(r"a \<image> tag", 0), "'a ''<image> tag'");
        assert_eq!(said(r"a \<image> tag", 1), "*'a ''<image> tag'");
        assert_eq!(said(r"\<video>, <image>", 1), "'<video>, '*");
        assert_eq!(
            said(r"\[<IMG_PLH>]\<image><image>", 1),
            "'[<IMG_PLH>]''<image>'*"
        );
        assert_eq!(
            said(r"C:\pic \<images \\<image>", 0),
            r"'C:\pic \<images \''<image>'"
        );
    }

    #[test]
    fn what_is_said_and_shown_piece_by_piece_has_no_marks() {
        let mut marked = Marked::default();
        marked.say("");
        marked.show(picture(1));
        marked.say("is <image> a tag");
        marked.show(picture(2));
        marked.say("<video>?");
        assert_eq!(whole(&marked), "*'is <image> a tag'*'<video>?'");
        assert_eq!((shades(&marked), marked.leading), (vec![1, 2], 1));
    }

    #[test]
    fn templates_put_pictures_where_the_model_learned_them() {
        let one = |text: &str| Marked::new(text, vec![picture(1)], vec![]).expect("fits");
        let words = Marked::words("a dog");
        let special = EmuConfig::tiny().special;

        let instruct = EmuConfig::tiny().instruct().prompts;
        let turn = |marked: Marked| shown(&marked.turn(&instruct));
        assert_eq!(turn(one("what?")), "[USER]: *'what?' [ASSISTANT]:");
        assert_eq!(turn(one("a <image>?")), "[USER]: 'a '*'?' [ASSISTANT]:");
        assert_eq!(shown(&one("like").request(&instruct)), "*'like'");

        let mini = EmuConfig::emu_mini(400, special).prompts;
        let turn = |marked: &Marked| shown(&marked.turn(&mini));
        assert_eq!(turn(&one("what?")), "*[USER]'what?'[ASSISTANT]");
        assert_eq!(turn(&words), "[USER]'a dog'[ASSISTANT]");
        assert_eq!(turn(&one("<image> a cat")), "*' a cat'");
        let request = |marked: &Marked| shown(&marked.request(&mini));
        assert_eq!(request(&words), "[USER]'a dog'[ASSISTANT]");
        assert_eq!(request(&one("<image>")), "*");
        // Braces in user text are not placeholders.
        let braces = Marked::words("{} {pictures} {0}");
        assert_eq!(turn(&braces), "[USER]'{} {pictures} {0}'[ASSISTANT]");
    }

    #[test]
    fn a_lone_picture_asks_for_a_caption() {
        let shows = |text: &str, pictures: usize| {
            Marked::new(text, vec![picture(1); pictures], vec![]).expect("fits")
        };
        let with_caption = |caption: &str| PromptConfig {
            caption: caption.into(),
            ..EmuConfig::tiny().instruct().prompts
        };
        let (shows_only, asks) = (with_caption(""), with_caption("Describe it."));
        for lone in ["", " \n", "<image>", " <image> "] {
            assert_eq!(shown(&shows(lone, 1).turn(&shows_only)), "*", "{lone:?}");
            let asked = "[USER]: *Describe it. [ASSISTANT]:";
            assert_eq!(shown(&shows(lone, 1).turn(&asks)), asked, "{lone:?}");
        }
        // Words, another picture and no picture are questions.
        assert_eq!(
            shown(&shows("?", 1).turn(&asks)),
            "[USER]: *'?' [ASSISTANT]:"
        );
        assert_eq!(shown(&shows("", 2).turn(&asks)), "[USER]: ** [ASSISTANT]:");
        assert_eq!(shown(&shows("", 0).turn(&asks)), "[USER]:  [ASSISTANT]:");
    }

    #[test]
    fn marks_that_do_not_match_are_an_error() {
        for (text, pictures) in [
            ("<image>", 0),
            ("<image> <image>", 1),
            ("<image>", 2),
            ("<video>", 1),
        ] {
            let pictures = vec![picture(0); pictures];
            let message = Marked::new(text, pictures, vec![])
                .expect_err(text)
                .to_string();
            assert!(message.contains("marks"), "{message}");
            let mark = if text.contains("video") {
                r"\<video>"
            } else {
                r"\<image>"
            };
            assert!(message.contains(mark), "{message}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Any text can be passed on the command line with a backslash before each mark.
        #[test]
        fn any_text_can_be_written(text in r"(a|\\|<|>|<image>|<video>|\[<IMG_PLH>\]|\PC){0,12}") {
            let escaped = Mark::SPELLINGS.iter().fold(text.clone(), |text, (spelling, _)| {
                text.replace(spelling, &format!("{ESCAPE}{spelling}"))
            });
            let marked = Marked::new(&escaped, vec![], vec![]).expect("no marks");
            let said = marked.said.spans().iter().map(|span| match span {
                Span::Plain(text) => text.as_str(),
                Span::Template(_) | Span::Picture => "not words",
            });
            proptest::prop_assert_eq!(said.collect::<String>(), text);
        }
    }
}
