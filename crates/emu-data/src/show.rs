//! Samples of a shard in printable form.

use std::path::Path;

use emu_media::image::RgbImage;

use crate::build::thumbnail;
use crate::record::{Conversation, Part, Record, Role};
use crate::{DataError, Sample, ShardDataset};

/// A sample in printable form.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Key in its shard.
    pub key: String,
    /// Path of the shard.
    pub shard: String,
    /// `pair`, `document`, `video`, `conversation`, `scene` or `drawing`; what is wrong with it if it is no record.
    pub kind: String,
    /// Where the sample comes from, if a builder noted it.
    pub source: Option<String>,
    /// Texts and pictures in the order of the sample, one a line: `user: <picture 0> What is this?`.
    pub lines: Vec<String>,
    /// Pictures in the order of their numbers.
    pub pictures: Vec<ShownPicture>,
}

/// A picture of a sample.
#[derive(Clone)]
pub struct ShownPicture {
    /// Number in the sample.
    pub number: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The picture, at most [`THUMBNAIL`] pixels wide and high.
    pub thumbnail: RgbImage,
}

/// Largest side of a thumbnail.
pub const THUMBNAIL: u32 = 128;

impl std::fmt::Debug for ShownPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            number,
            width,
            height,
            ..
        } = self;
        write!(f, "ShownPicture({number}: {width} x {height})")
    }
}

/// The samples of a shard, or of all shards of a folder, read as they are asked for. An unusable sample is an error
/// ([`DataError::Sample`]) in its place, after which the next one follows.
///
/// # Errors
/// If there is no shard or one cannot be read.
pub fn samples(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Shown, DataError>> + use<>, DataError> {
    let set = ShardDataset::open(path)?;
    Ok((0..set.len()).map(move |index| shown(&set.get(index)?)))
}

/// Prepares a sample for printing.
///
/// # Errors
/// If a picture cannot be resized.
pub fn shown(sample: &Sample) -> Result<Shown, DataError> {
    let text = |name: &str| sample.json.get(name).and_then(|value| value.as_str());
    let (kind, lines) = match sample.record() {
        Ok(record) => (text("kind").unwrap_or("pair").to_string(), lines(&record)),
        Err(error) => (error.to_string(), vec![sample.json.to_string()]),
    };
    let pictures = sample.images.iter().zip(&sample.numbers);
    let pictures = pictures.map(|(picture, number)| {
        Ok(ShownPicture {
            number: *number,
            width: picture.width,
            height: picture.height,
            thumbnail: thumbnail(picture, THUMBNAIL.min(picture.width.max(picture.height)))?,
        })
    });
    Ok(Shown {
        key: sample.key.clone(),
        shard: sample.shard.display().to_string(),
        kind,
        source: text("source").map(str::to_string),
        lines,
        pictures: pictures.collect::<Result<_, DataError>>()?,
    })
}

fn lines(record: &Record) -> Vec<String> {
    match record {
        Record::Pair(pair) => vec![pair.caption.clone()],
        Record::Video(video) => vec![
            video.caption.clone(),
            format!("frames {:?} of {}", video.offsets, video.total),
        ],
        Record::Document(document) => document.parts.iter().map(part).collect(),
        Record::Conversation(conversation) => turns(conversation),
        Record::Scene(scene) => std::iter::once(scene.caption.clone())
            .chain(
                scene
                    .qa
                    .iter()
                    .map(|qa| format!("{} {}", qa.question, qa.answer)),
            )
            .collect(),
        Record::Drawing(drawing) => {
            let object = &drawing.object;
            vec![format!("{} on {}", object.name, drawing.background)]
        }
    }
}

fn turns(conversation: &Conversation) -> Vec<String> {
    let system = conversation
        .system
        .iter()
        .map(|text| format!("system: {text}"));
    let turns = conversation.turns.iter().map(|turn| {
        let parts: Vec<String> = turn.parts.iter().map(part).collect();
        let role = match turn.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        format!("{role}: {}", parts.join(" "))
    });
    system.chain(turns).collect()
}

fn part(part: &Part) -> String {
    match part {
        Part::Text(text) => text.clone(),
        Part::Image(name) => format!("<picture {name}>"),
    }
}
