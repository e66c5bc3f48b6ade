//! From what the user gave to the model's prompt: marks, templates, token ids.

use anyhow::{Result, bail};
use emu_model::generate::Prompt;
use emu_model::image::RgbImage;
use emu_model::tokenizer::{IMAGE_MARK, RELEASED_MARK, names};

use crate::media::embed;
use crate::runtime::Runtime;

/// The mark for a video.
pub const VIDEO_MARK: &str = "<video>";

/// A text with a mark for each picture, and the pictures in the order of the marks.
#[derive(Clone, Debug, Default)]
pub struct Marked {
    /// The text, one `<image>` for each picture.
    pub text: String,
    /// Pictures, frames of videos among them.
    pub pictures: Vec<RgbImage>,
}

impl Marked {
    /// Fills the marks of a text: `<image>` by one picture, `<video>` by a mark for each frame. Pictures or videos that
    /// no mark names come first, videos before pictures.
    ///
    /// # Errors
    /// Where marks and pictures, or marks and videos, differ in number.
    pub fn new(text: &str, pictures: Vec<RgbImage>, videos: Vec<Vec<RgbImage>>) -> Result<Self> {
        let mut text = text.replace(RELEASED_MARK, IMAGE_MARK);
        for (mark, given, option) in [
            (IMAGE_MARK, pictures.len(), "--image"),
            (VIDEO_MARK, videos.len(), "--video"),
        ] {
            match text.matches(mark).count() {
                0 => text.insert_str(0, &mark.repeat(given)),
                marks if marks == given => {}
                marks => bail!(
                    "The prompt has {marks} {mark} marks but {option} was given {given} times. Give one {option} for each mark, or leave the marks out."
                ),
            }
        }
        let (mut pictures, mut videos) = (pictures.into_iter(), videos.into_iter());
        let mut marked = Self::default();
        let mut rest = text.as_str();
        while let Some((at, mark)) = first_mark(rest) {
            let (before, from) = rest.split_at(at);
            marked.text.push_str(before);
            match mark {
                IMAGE_MARK => marked.add(pictures.next()),
                _ => marked.add(videos.next().into_iter().flatten()),
            }
            rest = &from[mark.len()..];
        }
        marked.text.push_str(rest);
        Ok(marked)
    }

    fn add(&mut self, pictures: impl IntoIterator<Item = RgbImage>) {
        for picture in pictures {
            self.text.push_str(IMAGE_MARK);
            self.pictures.push(picture);
        }
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
pub fn fill(template: &str, content: &str) -> String {
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

impl Conversation {
    /// All of it as one prompt that asks for the next answer.
    ///
    /// # Errors
    /// Where it does not fit the context, or the model cannot be loaded.
    pub fn prompt(&self, runtime: &Runtime) -> Result<Prompt> {
        let templates = &runtime.emu_config().prompts;
        let mut all = Marked {
            text: self.system.clone(),
            pictures: vec![],
        };
        for turn in &self.turns {
            all.text.push_str(&fill(&templates.user, &turn.user.text));
            all.text.push_str(&templates.assistant);
            all.text.push_str(&turn.answer);
            all.pictures.extend_from_slice(&turn.user.pictures);
        }
        ask(runtime, &all)
    }
}

/// A caption's prompt: the picture alone, or asked for in the words of the model's template.
///
/// # Errors
/// As [`Conversation::prompt`].
pub fn caption(runtime: &Runtime, picture: RgbImage) -> Result<Prompt> {
    let templates = &runtime.emu_config().prompts;
    let text = match templates.caption.as_str() {
        "" => IMAGE_MARK.to_owned(),
        words => {
            let asked = fill(&templates.user, &format!("{IMAGE_MARK}{words}"));
            format!("{}{asked}{}", templates.system, templates.assistant)
        }
    };
    let pictures = vec![picture];
    ask(runtime, &Marked { text, pictures })
}

/// A text with its pictures as the model reads it.
///
/// # Errors
/// As [`Conversation::prompt`].
pub fn ask(runtime: &Runtime, marked: &Marked) -> Result<Prompt> {
    let config = runtime.emu_config();
    let (pictures, queries) = (marked.pictures.len(), config.causal.queries);
    let ids =
        runtime
            .tokenizer
            .encode_prompt(&marked.text, pictures, queries, config.lm.context)?;
    let visual = embed(runtime, &marked.pictures)?;
    Ok(Prompt { ids, visual })
}

/// A prompt whose continuation is a picture. Without its final [IMG], before which white space is dropped.
///
/// # Errors
/// As [`Conversation::prompt`].
pub fn picture(runtime: &Runtime, marked: &Marked) -> Result<Prompt> {
    let mut prompt = ask(
        runtime,
        &Marked {
            text: format!("{}{}", marked.text, names::IMG),
            pictures: marked.pictures.clone(),
        },
    )?;
    prompt.ids.pop();
    Ok(prompt)
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
        assert_eq!(shades(&marked), [1, 7, 8, 2]);
        let marked = Marked::new("what?", vec![picture(1)], videos).expect("fits");
        assert_eq!(marked.text, "<image><image><image>what?");
        assert_eq!(shades(&marked), [7, 8, 1]);
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
