//! Conversations for instruction tuning.
//!
//! The form of each record is found out from its fields:
//!
//! | fields | data sets |
//! | --- | --- |
//! | `conversations: [{from, value}]`, `image`, `video` | LLaVA, ShareGPT4V, ShareGPT |
//! | `messages: [{role, content}]`, `images` | OpenAI-like |
//! | `instruction`, `input`, `output` | Alpaca |
//! | `q`, `a`, `video_id`; `QA: [{q, a}]`, `video` | Video-ChatGPT, VideoChat |
//! | `texts: [{user, assistant}]`, `images` | Hugging Face data sets with several pictures, in parquet |
//! | `question`, `answer`, `image` | question lists |
//!
//! A mark `<image>` or `<video>` in a user's turn is replaced by the picture or the frames; without a mark these come first.
//! In records without pictures the marks are plain text.

mod options;
mod schema;

use std::path::{Path, PathBuf};

use serde::Serialize;

pub use options::{Options, Place};

use crate::DataError;
use crate::build::{Build, Feed, Halt, Made, Progress, Report, Skip, encode, prepare, run};
use crate::input::{Bases, Blob, Downloads, is_table, name_in, rows, walk};
use crate::record::{Conversation, Part, Record, Role, Turn};
use crate::videos::{Clip, MAX_FRAMES};
use schema::{Media, Piece, Spoken};

/// Builds shards of conversations.
///
/// # Errors
/// As [`pairs::build`](crate::pairs::build).
pub fn build(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, DataError> {
    if !(1..=MAX_FRAMES).contains(&options.frames) || options.max_pictures > MAX_FRAMES {
        let message = format!("a conversation has at most {MAX_FRAMES} pictures or frames");
        return Err(DataError::Options(message));
    }
    let instruct = Instruct {
        options,
        downloads: Downloads::new(options.images.clone()),
    };
    run(&instruct, &options.out, options, progress)
}

struct Instruct<'a> {
    options: &'a Options,
    downloads: Downloads,
}

/// A candidate.
#[derive(Serialize)]
struct Item {
    spoken: Spoken,
    pictures: Vec<Blob>,
    video: Option<Clip>,
}

impl Build for Instruct<'_> {
    type Item = Item;
    const KIND: &'static str = "instruct";

    fn source(&self) -> &Path {
        &self.options.source
    }

    fn read(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        let files: Vec<PathBuf> = walk(root)?
            .into_iter()
            .filter(|path| is_table(path))
            .collect();
        if files.is_empty() {
            let error = DataError::Source {
                kind: "conversations",
                path: root.clone(),
                message:
                    "it holds no JSON, JSON lines, parquet or CSV file. Name another file or folder"
                        .into(),
            };
            return Err(error.into());
        }
        for path in files {
            let name = name_in(root, &path);
            let images = Bases::new(self.options.images.as_deref(), &path);
            let videos = Bases::new(self.options.videos.as_deref(), &path);
            rows(&path, false, &mut |row| {
                let source = format!("{name} {}", row.place);
                let item = row
                    .value
                    .and_then(|record| schema::read(&record))
                    .and_then(|(spoken, media)| self.item(spoken, &media, &images, &videos));
                feed.result(source, item)
            })?;
        }
        Ok(())
    }

    fn make(&self, _: &str, item: &Item) -> Result<Vec<Made>, Skip> {
        let options = self.options;
        // 1. all pictures, each by its index in the record
        let mut pictures = vec![];
        for blob in &item.pictures {
            pictures.push(prepare(blob.read()?.into_owned(), &options.out)?);
        }
        let mut frames = 0;
        if let Some(clip) = &item.video {
            let sampled = clip.frames(options.frames, &options.out)?;
            frames = sampled.frames.len();
            for frame in &sampled.frames {
                pictures.push(encode(frame, &options.out)?);
            }
        }
        // 2. the turns; pictures are numbered in the order of their places
        let mut turns: Vec<Turn> = vec![];
        let mut order = vec![];
        let mut words = 0;
        for (role, pieces) in &item.spoken.turns {
            let mut parts = vec![];
            for piece in pieces {
                match piece {
                    Piece::Text(text) => {
                        words += text.split_whitespace().count();
                        parts.push(Part::Text(text.clone()));
                    }
                    Piece::Image(at) => {
                        parts.push(Part::Image(order.len().to_string()));
                        order.push(*at);
                    }
                    Piece::Video => {
                        for frame in 0..frames {
                            parts.push(Part::Image(order.len().to_string()));
                            order.push(item.pictures.len() + frame);
                        }
                    }
                }
            }
            turns.push(Turn { role: *role, parts });
        }
        let pictures = order
            .iter()
            .map(|at| pictures.get(*at).cloned())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Skip::plain("mark of a picture that is not there"))?;
        Ok(vec![Made {
            record: Record::Conversation(Conversation {
                system: item.spoken.system.clone(),
                video: item.video.is_some(),
                turns,
            }),
            pictures,
            words,
            dropped: vec![],
        }])
    }

    fn held(item: &Item) -> usize {
        let pictures: usize = item.pictures.iter().map(Blob::held).sum();
        pictures + item.video.as_ref().map_or(0, Clip::held)
    }
}

impl Instruct<'_> {
    fn item(
        &self,
        mut spoken: Spoken,
        media: &Media,
        images: &Bases,
        videos: &Bases,
    ) -> Result<Item, Skip> {
        let options = self.options;
        let pictures = media
            .images
            .iter()
            .map(|value| crate::pairs::picture_of(value, images, &self.downloads))
            .collect::<Result<Vec<_>, _>>()?;
        if pictures.len() > options.max_pictures {
            let detail = pictures.len().to_string();
            return Err(Skip::new("too many pictures", detail));
        }
        let video = match &media.video {
            Some(name) => Some(clip(name, videos)?),
            None => None,
        };
        if video.is_some() && !pictures.is_empty() {
            return Err(Skip::plain("both pictures and a video"));
        }
        spoken.place(pictures.len(), video.is_some(), options.place)?;
        spoken.alternate()?;
        spoken.shorten(options.max_words)?;
        let answers = spoken.words(Role::Assistant);
        if answers < options.min_answer_words {
            return Err(Skip::new(
                "answers are too short",
                format!("{answers} words"),
            ));
        }
        Ok(Item {
            spoken,
            pictures,
            video,
        })
    }
}

/// The video of a record: a path, or an id without its extension.
fn clip(name: &str, bases: &Bases) -> Result<Clip, Skip> {
    const KINDS: [&str; 6] = ["", ".mp4", ".webm", ".mkv", ".avi", ".gif"];
    let found = KINDS
        .iter()
        .find_map(|kind| bases.find(&format!("{name}{kind}")))
        .ok_or_else(|| {
            Skip::new(
                "video file not found",
                format!("{name} in {}", bases.names()),
            )
        })?;
    Clip::at(&found)
}

#[cfg(test)]
mod tests;
