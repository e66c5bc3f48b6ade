//! From what a user gave to the model's prompt: marks, templates, token ids, visual embeddings.

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{EmuConfig, PromptConfig};
use crate::emu::Emu;
use crate::generate::Prompt;
use crate::image::{ImageError, RgbImage, process_img_with};
use crate::tokenizer::{EmuTokenizer, IMAGE_MARK, RELEASED_MARK, TokenizerError, names};

/// Pictures that the encoder reads at once.
const BATCH: usize = 8;

/// The mark for a video.
pub const VIDEO_MARK: &str = "<video>";
/// Where a template wants pictures.
const PICTURES: &str = "{pictures}";

/// What a user said: a text, and pictures at marks in it or before it.
#[derive(Clone, Debug, Default)]
pub struct Marked {
    /// The text, one `<image>` for each picture that is not in front of it.
    pub text: String,
    /// Pictures, frames of videos among them: first those without a mark, then in the order of the marks.
    pub pictures: Vec<RgbImage>,
    /// Pictures without a mark.
    pub leading: usize,
}

impl Marked {
    /// Fills the marks of a text: `<image>` by one picture, `<video>` by a mark for each frame. Pictures or videos that
    /// no mark names come first, videos before pictures.
    ///
    /// # Errors
    /// Where marks and pictures, or marks and videos, differ in number.
    pub fn new(
        text: &str,
        pictures: Vec<RgbImage>,
        videos: Vec<Vec<RgbImage>>,
    ) -> Result<Self, PromptError> {
        let text = text.replace(RELEASED_MARK, IMAGE_MARK);
        let marked = |mark: &'static str, given: usize| match text.matches(mark).count() {
            0 => Ok(false),
            marks if marks == given => Ok(true),
            marks => Err(PromptError::Marks { mark, marks, given }),
        };
        let pictures_marked = marked(IMAGE_MARK, pictures.len())?;
        let videos_marked = marked(VIDEO_MARK, videos.len())?;

        let mut filled = Self::default();
        let (mut pictures, mut videos) = (pictures.into_iter(), videos.into_iter());
        if !videos_marked {
            filled.pictures.extend(videos.by_ref().flatten());
        }
        if !pictures_marked {
            filled.pictures.extend(pictures.by_ref());
        }
        filled.leading = filled.pictures.len();
        let mut rest = text.as_str();
        while let Some((at, mark)) = first_mark(rest) {
            let (before, from) = rest.split_at(at);
            filled.text.push_str(before);
            match mark {
                IMAGE_MARK => filled.add(pictures.next()),
                _ => filled.add(videos.next().into_iter().flatten()),
            }
            rest = &from[mark.len()..];
        }
        filled.text.push_str(rest);
        Ok(filled)
    }

    fn add(&mut self, pictures: impl IntoIterator<Item = RgbImage>) {
        for picture in pictures {
            self.text.push_str(IMAGE_MARK);
            self.pictures.push(picture);
        }
    }

    /// Marks of the pictures in front.
    fn front(&self) -> String {
        IMAGE_MARK.repeat(self.leading)
    }

    /// The text with a mark for every picture.
    fn whole(&self) -> String {
        self.front() + &self.text
    }

    /// As a user's turn that asks for an answer.
    pub fn turn(&self, templates: &PromptConfig) -> String {
        if self.pictures.len() > self.leading
            && let Some(template) = &templates.marked
        {
            return fill(template, &self.whole());
        }
        let asked = match templates.user.contains(PICTURES) {
            true => fill(
                &templates.user.replacen(PICTURES, &self.front(), 1),
                &self.text,
            ),
            false => fill(&templates.user, &self.whole()),
        };
        asked + &templates.assistant
    }

    /// As a request to draw.
    pub fn request(&self, templates: &PromptConfig) -> String {
        let template = match (&templates.blend, self.pictures.is_empty()) {
            (Some(blend), false) => blend,
            _ => &templates.imagine,
        };
        fill(template, &self.whole())
    }
}

/// Where the first mark is, and which.
fn first_mark(text: &str) -> Option<(usize, &'static str)> {
    [IMAGE_MARK, VIDEO_MARK]
        .into_iter()
        .filter_map(|mark| Some((text.find(mark)?, mark)))
        .min()
}

/// A template with its `{}` replaced.
fn fill(template: &str, content: &str) -> String {
    template.replacen("{}", content, 1)
}

/// A conversation: what was said by turns, and the pictures in it.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// Before everything.
    pub system: String,
    /// What was said, the last answer still to come.
    pub turns: Vec<Turn>,
}

/// What a user said, and the answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The user's words and pictures.
    pub user: Marked,
    /// What the model answered.
    pub answer: String,
}

/// What is wrong with a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Marks and pictures, or marks and videos, differ in number.
    #[error(
        "The prompt has {marks} {mark} marks for {given} given. Give one for each mark, or leave the marks out."
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
    /// Encoder and causal former.
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
        let (mut text, mut pictures) = (conversation.system.clone(), vec![]);
        for turn in &conversation.turns {
            text.push_str(&turn.user.turn(templates));
            text.push_str(&turn.answer);
            pictures.extend_from_slice(&turn.user.pictures);
        }
        self.ask(&text, &pictures)
    }

    /// A caption's prompt: the picture alone, or asked for in the words of the model's template.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn caption(&self, picture: RgbImage) -> Result<Prompt, PromptError> {
        let templates = &self.config.prompts;
        let text = match templates.caption.as_str() {
            "" => IMAGE_MARK.to_owned(),
            words => {
                let asked = Marked {
                    text: words.to_owned(),
                    pictures: vec![],
                    leading: 1,
                };
                templates.system.clone() + &asked.turn(templates)
            }
        };
        self.ask(&text, &[picture])
    }

    /// A prompt whose continuation is a picture. Without its final [IMG], before which white space is dropped.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn picture(&self, marked: &Marked) -> Result<Prompt, PromptError> {
        let request = marked.request(&self.config.prompts);
        let mut prompt = self.ask(&format!("{request}{}", names::IMG), &marked.pictures)?;
        prompt.ids.pop();
        Ok(prompt)
    }

    /// A text with its pictures as the model reads it.
    ///
    /// # Errors
    /// As [`Prompter::conversation`].
    pub fn ask(&self, text: &str, pictures: &[RgbImage]) -> Result<Prompt, PromptError> {
        let (given, queries) = (pictures.len(), self.config.causal.queries);
        let context = self.config.lm.context;
        let ids = self
            .tokenizer
            .encode_prompt(text, given, queries, context)?;
        let visual = self.embed(pictures)?;
        Ok(Prompt { ids, visual })
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

    fn picture(shade: u8) -> RgbImage {
        RgbImage::from_pixel(1, 1, [shade; 3].into())
    }

    fn shades(marked: &Marked) -> Vec<u8> {
        marked.pictures.iter().map(|p| p.as_raw()[0]).collect()
    }

    #[test]
    fn marks_are_filled_in_order() {
        let videos = vec![vec![picture(7), picture(8)]];
        let text = "a <image> b <video> c [<IMG_PLH>]";
        let marked = Marked::new(text, vec![picture(1), picture(2)], videos.clone()).expect("fits");
        assert_eq!(marked.text, "a <image> b <image><image> c <image>");
        assert_eq!((shades(&marked), marked.leading), (vec![1, 7, 8, 2], 0));
        let marked = Marked::new("what?", vec![picture(1)], videos.clone()).expect("fits");
        assert_eq!(marked.whole(), "<image><image><image>what?");
        assert_eq!((shades(&marked), marked.leading), (vec![7, 8, 1], 3));
        let marked = Marked::new("<image>?", vec![picture(1)], videos).expect("fits");
        assert_eq!(marked.whole(), "<image><image><image>?");
        assert_eq!((shades(&marked), marked.leading), (vec![7, 8, 1], 2));
    }

    #[test]
    fn templates_put_pictures_where_the_model_learned_them() {
        let one = |text: &str| Marked::new(text, vec![picture(1)], vec![]).expect("fits");
        let words = Marked::new("a dog", vec![], vec![]).expect("fits");
        let special = EmuConfig::tiny().special;

        let instruct = EmuConfig::tiny().instruct().prompts;
        assert_eq!(
            one("what?").turn(&instruct),
            "[USER]: <image>what? [ASSISTANT]:"
        );
        assert_eq!(
            one("a <image>?").turn(&instruct),
            "[USER]: a <image>? [ASSISTANT]:"
        );
        assert_eq!(one("like").request(&instruct), "<image>like");

        let mini = EmuConfig::emu_mini(400, special).prompts;
        assert_eq!(one("what?").turn(&mini), "<image>[USER]what?[ASSISTANT]");
        assert_eq!(words.turn(&mini), "[USER]a dog[ASSISTANT]");
        assert_eq!(one("<image> a cat").turn(&mini), "<image> a cat");
        assert_eq!(words.request(&mini), "[USER]a dog[ASSISTANT]");
        assert_eq!(one("<image>").request(&mini), "<image>");
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
        }
    }
}
