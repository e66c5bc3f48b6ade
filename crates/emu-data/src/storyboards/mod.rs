//! Interleaved videos: frames with the subtitles between them.
//!
//! | layout | what it is |
//! | --- | --- |
//! | `sheets` | YouTube's storyboards by Emu's fork of video2dataset: `KEY.json`, thumbnail sheets `KEY_0.webp`, ... |
//! | `tars` | the WebDataset that Emu's own builder writes: `ID.0.txt`, `ID.0.png`, ... |
//! | `videos` | videos, or folders of frames, with subtitles (SRT, WebVTT, JSON) of the same names |
//!
//! The text before a frame is that of the subtitles that start since the frame before; a subtitle that starts with a frame
//! follows it. A long video becomes several documents of [`Options::frames`] frames each.

mod options;
mod sheets;
mod sources;
mod subtitles;

use std::path::{Path, PathBuf};

pub use options::{Layout, Options};

use crate::DataError;
use crate::build::{Build, Feed, Halt, Made, Progress, Report, Skip, encode, run, tidy};
use crate::documents::story;
use crate::input::{is_picture, kind_of, walk};
use crate::record::{Part, Record};
use crate::videos::{Clip, MAX_FRAMES};
use options::{Item, Storyboards, Subtitles};
use sources::Shot;
use subtitles::Cue;

/// Builds shards of storyboards, as documents of the task `story`: texts and frames are targets.
///
/// # Errors
/// As [`pairs::build`](crate::pairs::build).
pub fn build(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, DataError> {
    if !(1..=MAX_FRAMES).contains(&options.frames) || options.every == 0 {
        let message = format!(
            "a document has 1 to {MAX_FRAMES} frames, and every first or later frame can be used"
        );
        return Err(DataError::Options(message));
    }
    if options
        .interval
        .is_some_and(|seconds| seconds <= 0.0 || !seconds.is_finite())
    {
        let message = "the seconds between frames have to be above 0";
        return Err(DataError::Options(message.into()));
    }
    let layout = match options.layout {
        Some(layout) => layout,
        None => detect(&options.source)?,
    };
    let storyboards = Storyboards { options, layout };
    run(&storyboards, &options.out, options, progress)
}

fn detect(source: &Path) -> Result<Layout, DataError> {
    let files = walk(source)?;
    if files.iter().any(|file| sheets::first(file).is_some()) {
        return Ok(Layout::Sheets);
    }
    if files.iter().any(|file| kind_of(file) == "tar") {
        return Ok(Layout::Tars);
    }
    let is_clip = |file: &PathBuf| {
        let kind = kind_of(file);
        is_picture(&kind) || Clip::is_file(&kind)
    };
    match files.iter().any(is_clip) {
        true => Ok(Layout::Videos),
        false => Err(DataError::Source {
            kind: "storyboards",
            path: source.to_path_buf(),
            message: "it holds no thumbnail sheets with their JSON, no tar, no video and no folder of frames. Name another folder".into(),
        }),
    }
}

impl Build for Storyboards<'_> {
    type Item = Item;
    const KIND: &'static str = "storyboards";

    fn source(&self) -> &Path {
        &self.options.source
    }

    fn read(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        match self.layout {
            Layout::Sheets => self.sheets(feed),
            Layout::Tars => self.tars(feed),
            Layout::Videos => self.videos(feed),
        }
    }

    fn make(&self, _: &str, item: &Item) -> Result<Vec<Made>, Skip> {
        let (frames, rest) = match item {
            Item::Ready { frames, rest } => {
                let frames = frames
                    .iter()
                    .map(|(text, blob)| (tidy(text), Shot::File(blob.clone())))
                    .collect();
                (frames, tidy(rest))
            }
            Item::Clip {
                clip,
                times,
                subtitles,
            } => {
                let cues = subtitles.read()?;
                let shots = self.shots(clip, times.as_deref())?;
                interleave(self.thinned(shots), &cues)
            }
            Item::Sheets {
                meta,
                sheets,
                subtitles,
                label,
            } => {
                let cues = subtitles.read()?;
                let shots = self.cut(meta, sheets, label.as_ref())?;
                interleave(self.thinned(shots), &cues)
            }
        };
        self.parts(frames, rest)
    }

    fn held(item: &Item) -> usize {
        match item {
            Item::Sheets { meta, .. } => meta.held(),
            Item::Clip { clip, .. } => clip.held(),
            Item::Ready { frames, .. } => frames
                .iter()
                .map(|(text, blob)| text.len() + blob.held())
                .sum(),
        }
    }
}

impl Subtitles {
    fn read(&self) -> Result<Vec<Cue>, Skip> {
        let text = crate::input::decode_text(self.blob.read()?.into_owned());
        subtitles::parse(&self.kind, &text)
    }
}

/// Frames, each with the text before it; and the text after the last.
type Interleaved = (Vec<(String, Shot)>, String);

/// Puts subtitles between frames, by time. Both are sorted.
fn interleave(shots: Vec<(f64, Shot)>, cues: &[Cue]) -> Interleaved {
    let mut cues = cues.iter().peekable();
    let mut frames = vec![];
    for (time, shot) in shots {
        let mut texts = vec![];
        while let Some(cue) = cues.next_if(|cue| cue.start < time) {
            texts.push(cue.text.as_str());
        }
        frames.push((texts.join(" "), shot));
    }
    let rest: Vec<&str> = cues.map(|cue| cue.text.as_str()).collect();
    (frames, rest.join(" "))
}

impl Storyboards<'_> {
    fn thinned(&self, shots: Vec<(f64, Shot)>) -> Vec<(f64, Shot)> {
        shots.into_iter().step_by(self.options.every).collect()
    }

    /// The documents of a video.
    fn parts(&self, frames: Vec<(String, Shot)>, rest: String) -> Result<Vec<Made>, Skip> {
        let options = self.options;
        let mut made = vec![];
        let mut short = 0;
        let windows = frames.len().div_ceil(options.frames);
        for (i, window) in frames.chunks(options.frames).enumerate() {
            let mut parts = vec![];
            let mut pictures = vec![];
            for (text, shot) in window {
                if !text.is_empty() {
                    parts.push(Part::Text(text.clone()));
                }
                let picture = shot.open(&options.out)?;
                parts.push(Part::Image(pictures.len().to_string()));
                pictures.push(encode(&picture, &options.out)?);
            }
            if i + 1 == windows && !rest.is_empty() {
                parts.push(Part::Text(rest.clone()));
            }
            let words = parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => text.split_whitespace().count(),
                    Part::Image(_) => 0,
                })
                .sum();
            if words < options.min_words {
                short += 1;
                continue;
            }
            made.push(Made {
                record: Record::Document(story(parts)),
                pictures,
                words,
                dropped: vec![],
            });
        }
        if let Some(first) = made.first_mut() {
            let skip = Skip::new("part of a video with too few words", "");
            first.dropped.extend(std::iter::repeat_n(skip, short));
            return Ok(made);
        }
        Err(match windows {
            0 => Skip::plain("video has no frames"),
            _ => Skip::plain("video has too few words"),
        })
    }
}

#[cfg(test)]
mod tests;
