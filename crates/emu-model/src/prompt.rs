//! From what a user gave to the model's prompt: marks, templates, token ids, visual embeddings.

use std::borrow::Cow;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{EmuConfig, PromptConfig};
use crate::emu::Emu;
use crate::generate::Prompt;
use crate::image::{ImageError, RgbImage, process_img_with, scene};
use crate::tokenizer::{
    EmuTokenizer, IMAGE_MARK, PromptText, RELEASED_MARK, TokenizerError, names,
};

/// Pictures that the encoder reads at once.
const BATCH: usize = 8;

/// The mark for a video.
pub const VIDEO_MARK: &str = "<video>";
/// Before a mark that is meant as text.
pub const ESCAPE: char = '\\';
/// Where a template wants what was said.
const SAID: &str = "{}";
/// Where a template wants pictures.
const PICTURES: &str = "{pictures}";

/// What a user said: words, and pictures among them or before them.
///
/// Words are text, whatever they spell. Only [`Marked::new`] knows marks.
#[derive(Clone, Debug, Default)]
pub struct Marked {
    /// Words, and places of pictures that are not in front of everything.
    said: PromptText,
    /// Pictures, frames of videos among them: first those in front, then in the order of their places.
    pub pictures: Vec<RgbImage>,
    /// Pictures in front, which the model's template may put elsewhere.
    pub leading: usize,
}

impl Marked {
    /// Words alone.
    pub fn words(text: &str) -> Self {
        let mut marked = Self::default();
        marked.say(text);
        marked
    }

    /// Adds words.
    pub fn say(&mut self, text: &str) {
        self.said.plain(text);
    }

    /// Adds a picture: in front, where no words came before it.
    pub fn show(&mut self, picture: RgbImage) {
        match self.said.is_empty() {
            true => self.leading += 1,
            false => self.said.pictures(1),
        }
        self.pictures.push(picture);
    }

    /// Fills the marks of a text, as the command line has them: `<image>` stands for one picture, `<video>` for the frames of
    /// one video. Pictures or videos that no mark names come first, videos before pictures. A mark behind a backslash is
    /// text.
    ///
    /// # Errors
    /// Where marks and pictures, or marks and videos, differ in number.
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

    /// Adds pictures at this place.
    fn place(&mut self, pictures: impl IntoIterator<Item = RgbImage>) {
        for picture in pictures {
            self.said.pictures(1);
            self.pictures.push(picture);
        }
    }

    /// As a user's turn that asks for an answer.
    pub fn turn(&self, templates: &PromptConfig) -> PromptText {
        if self.pictures.len() > self.leading
            && let Some(template) = &templates.marked
        {
            return self.fill(template);
        }
        let mut asked = self.fill(&templates.user);
        asked.template(&templates.assistant);
        asked
    }

    /// As a request to draw.
    pub fn request(&self, templates: &PromptConfig) -> PromptText {
        let template = match (&templates.blend, self.pictures.is_empty()) {
            (Some(blend), false) => blend,
            _ => &templates.imagine,
        };
        self.fill(template)
    }

    /// A template with what was said in its place, and the pictures in front in theirs, or else before what was said.
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

/// What a text has a mark for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Image,
    Video,
}

impl Mark {
    /// How marks are spelled.
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

/// A piece of a text with marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Words(&'a str),
    Mark(Mark),
}

/// Cuts a text at its marks. Of a mark behind [`ESCAPE`], that is left out.
fn cut(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = vec![];
    let (mut rest, mut from) = (text, 0);
    while let Some((at, length, mark)) = first_mark(rest, from) {
        let (before, marked) = rest.split_at(at);
        match before.strip_suffix(ESCAPE) {
            Some(before) => {
                pieces.push(Piece::Words(before));
                // The mark is the start of what follows.
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

/// Where the first mark from a place on is, how long, and which.
fn first_mark(text: &str, from: usize) -> Option<(usize, usize, Mark)> {
    let searched = text.get(from..)?;
    Mark::SPELLINGS
        .into_iter()
        .filter_map(|(spelling, mark)| {
            Some((from + searched.find(spelling)?, spelling.len(), mark))
        })
        .min_by_key(|(at, ..)| *at)
}

/// A conversation: what was said by turns, and the pictures in it.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// Said before everything; the model's own words where there are none.
    pub system: Option<String>,
    /// What was said, the last answer still to come.
    pub turns: Vec<Turn>,
}

impl Conversation {
    /// The last turns, of which there are `most`; the latest pictures of those before go along where there are no others.
    /// Where not all turns are followed, one with pictures of its own is read by itself: what was said of others misleads.
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

/// What a user said, and the answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The user's words and pictures.
    pub user: Marked,
    /// What the model answered.
    pub answer: String,
}

/// How a picture is read.
struct Seen<'a> {
    /// What stands for it.
    template: Option<&'a str>,
    /// Where the things are that are read one by one; none where it is read as a whole.
    things: Vec<scene::Area>,
}

/// What stands in front of a conversation.
enum Opening {
    /// What the model has for that.
    Own,
    /// What a user said.
    Given(PromptText),
}

/// What is wrong with a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Marks and pictures, or marks and videos, differ in number.
    #[error(
        "The prompt has {marks} {mark} marks for {given} given. Give one for each mark, leave the marks out, or write \\{mark} where these very letters are meant."
    )]
    Marks {
        /// Which mark.
        mark: &'static str,
        /// How often it is in the text.
        marks: usize,
        /// Pictures or videos.
        given: usize,
    },
    /// The text cannot be encoded, or is too long.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A picture cannot be resized.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl PromptError {
    /// A stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Marks { .. } => "image-marks",
            Self::Tokenizer(TokenizerError::PromptTooLong { .. }) => "prompt-too-long",
            Self::Tokenizer(_) => "bad-prompt",
            Self::Image(_) => "bad-image",
        }
    }
}

/// Makes prompts for a model.
#[derive(Clone, Copy, Debug)]
pub struct Prompter<'a> {
    /// Encoder and causal former, or namer.
    pub emu: &'a Emu,
    /// Its sizes and templates.
    pub config: &'a EmuConfig,
    /// Its tokenizer.
    pub tokenizer: &'a EmuTokenizer,
    /// Where it runs.
    pub device: &'a Device,
}

impl Prompter<'_> {
    /// A conversation as one prompt that asks for the next answer.
    ///
    /// # Errors
    /// Where it does not fit the context.
    pub fn conversation(&self, conversation: &Conversation) -> Result<Prompt, PromptError> {
        let templates = &self.config.prompts;
        let (mut text, mut pictures) = (PromptText::default(), vec![]);
        let mut opening = Opening::Own;
        if let Some(said) = &conversation.system {
            opening = Opening::Given(match &templates.system_turn {
                None => {
                    let mut words = PromptText::default();
                    words.plain(said);
                    words
                }
                // An empty message asks for none.
                Some(_) if said.is_empty() => PromptText::default(),
                Some(template) => Marked::words(said).fill(template),
            });
        }
        let turns = conversation.followed(templates.turns);
        for (i, turn) in turns.iter().enumerate() {
            text.append(turn.user.turn(templates));
            text.plain(&turn.answer);
            if i + 1 < turns.len() {
                text.template(&templates.answered);
            }
            pictures.extend_from_slice(&turn.user.pictures);
        }
        self.behind(opening, text, &pictures)
    }

    /// A conversation's turns behind what opens it: a system message, or the soft prompt that the model has in its place.
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
                // Rows among the visual ones take the places of its tokens.
                let [length, _] = persona.embeddings.dims();
                text.template(&names::IMAGE.repeat(length));
                (length, Some(persona))
            }
            (Opening::Own, None) => {
                text.template(&self.config.prompts.system);
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
        }
        Ok(prompt)
    }

    /// A caption's prompt: the picture alone, or asked for in the words of the model's template.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn caption(&self, picture: RgbImage) -> Result<Prompt, PromptError> {
        let templates = &self.config.prompts;
        let mut text = PromptText::default();
        match templates.caption.as_str() {
            "" => text.pictures(1),
            words => {
                let mut asked = Marked {
                    leading: 1,
                    ..Default::default()
                };
                asked.said.template(words);
                return self.behind(Opening::Own, asked.turn(templates), &[picture]);
            }
        }
        self.ask(&text, &[picture])
    }

    /// A prompt whose continuation is a picture. Without its final [IMG], before which white space is dropped.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn picture(&self, marked: &Marked) -> Result<Prompt, PromptError> {
        let mut request = marked.request(&self.config.prompts);
        if self.config.requests.is_some() {
            // A turn of a conversation: its reader learnt from these.
            return self.behind(Opening::Own, request, &marked.pictures);
        }
        request.template(names::IMG);
        let mut prompt = self.ask(&request, &marked.pictures)?;
        prompt.ids.pop();
        Ok(prompt)
    }

    /// A text with its pictures as the model reads it.
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
        let visual = match seen.iter().all(|seen| seen.things.is_empty()) {
            true => self.embed(pictures)?,
            false => self.embed_things(pictures, &seen)?,
        };
        Ok(Prompt {
            visual,
            ..Prompt::text(ids)
        })
    }

    /// How a picture is read.
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
            // Also what is alone is seen better from near.
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

    /// The embeddings of pictures of which some are read thing by thing, `[1, N, D]`: of each thing those of its name, of each
    /// picture that of its background behind them.
    fn embed_things(
        &self,
        pictures: &[RgbImage],
        seen: &[Seen<'_>],
    ) -> Result<Option<Tensor<3>>, PromptError> {
        let views = |(picture, seen): (&RgbImage, &Seen<'_>)| match seen.things.len() {
            0 => vec![picture.clone()],
            _ => { seen.things.iter() }
                .map(|thing| scene::cut(picture, *thing))
                .collect(),
        };
        let views: Vec<Vec<RgbImage>> = pictures.iter().zip(seen).map(views).collect();
        let Some(embedded) = self.embed(&views.concat())? else {
            return Ok(None);
        };
        let [_, q, _] = embedded.dims();
        let (mut rows, mut next) = (vec![], 0);
        for views in &views {
            let row = |i: usize| embedded.clone().narrow(0, i, 1);
            rows.extend((next..next + views.len()).map(|i| row(i).narrow(1, 0, q - 1)));
            rows.push(row(next).narrow(1, q - 1, 1));
            next += views.len();
        }
        Ok(Some(Tensor::cat(rows, 1)))
    }

    /// The visual embeddings of pictures, `[N, Q, D]`; none for no pictures.
    ///
    /// # Errors
    /// Where a picture cannot be resized.
    pub fn embed(&self, pictures: &[RgbImage]) -> Result<Option<Tensor<3>>, PromptError> {
        if pictures.is_empty() {
            return Ok(None);
        }
        let side = self.config.vision.image_size;
        let wide = |values: [f32; 3]| values.map(f64::from);
        let (mean, std) = (wide(self.config.image.mean), wide(self.config.image.std));
        let mut embedded = vec![];
        for batch in pictures.chunks(BATCH) {
            let mut values = Vec::with_capacity(batch.len() * 3 * side * side);
            for picture in batch {
                values.extend(process_img_with(picture, side as u32, &mean, &std)?);
            }
            let data = TensorData::new(values, [batch.len(), 3, side, side]);
            embedded.push(
                self.emu
                    .embed_images(Tensor::<4>::from_data(data, self.device)),
            );
        }
        Ok(Some(Tensor::cat(embedded, 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Span;

    fn picture(shade: u8) -> RgbImage {
        RgbImage::from_pixel(1, 1, [shade; 3].into())
    }

    fn shades(marked: &Marked) -> Vec<u8> {
        marked.pictures.iter().map(|p| p.as_raw()[0]).collect()
    }

    /// Words of people in quotes, pictures as `*`.
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
        // Braces of people are no places of a template.
        let braces = Marked::words("{} {pictures} {0}");
        assert_eq!(turn(&braces), "[USER]'{} {pictures} {0}'[ASSISTANT]");
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

        /// Any text can be written on the command line: with a backslash before each mark.
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
