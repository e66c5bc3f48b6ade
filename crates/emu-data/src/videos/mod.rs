//! Videos with captions, as frames.
//!
//! | layout | what it is |
//! | --- | --- |
//! | `webvid` | WebVid's CSV (`videoid`, `name`, `page_dir`), and `videos/PAGE_DIR/VIDEOID.mp4` |
//! | `tars` | WebDataset, as video2dataset writes it: `KEY.mp4` with `KEY.txt` or `KEY.json` |
//! | `table` | CSV, TSV, JSON lines or a JSON list of paths and captions; a path may be a folder of frames |
//! | `files` | videos, or folders of frames, with `.txt` or `.json` files of the same names |
//!
//! Frames are taken evenly, by the formula of the released code
//! ([`sample_offsets`](emu_media::video::sample_offsets)); a shorter video gives each of its frames once. The H.264
//! decoder of emu-media reads MP4; other codecs are told one by one.

mod clean;
mod frames;
mod read;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::build::{
    Build, Captions, Feed, Filters, Halt, Made, Output, Progress, Report, Skip, encode, run,
};
use crate::input::{columns, is_picture, is_table, is_video, kind_of, walk, without_gz};
use crate::record::{Record, Video};

pub(crate) use frames::{Clip, MAX_FRAMES};

/// How the source is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of the module describes them")]
pub enum Layout {
    Webvid,
    Tars,
    Table,
    Files,
}

/// Options of the builder of videos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// A file or a folder.
    #[serde(skip)]
    pub source: PathBuf,
    /// Where and how to write.
    pub out: Output,
    /// Default: found out.
    pub layout: Option<Layout>,
    /// Folder of the videos that a list names. Default: `videos` beside WebVid's CSV; the folder of another list and those
    /// around it.
    #[serde(skip)]
    pub videos: Option<PathBuf>,
    /// The column of the video. Default: the first of `video`, `filepath`, `file_name`, ... that exists.
    pub video_field: Option<String>,
    /// Which captions are used.
    pub captions: Captions,
    /// Conditions on the fields beside the caption.
    pub filters: Filters,
    /// Frames of a video that are stored at most; training draws 8 of them. Default: 16.
    pub frames: usize,
    /// Remove what describes resolution or camera ("4k footage") from captions, by rules. Default: yes.
    pub clean: bool,
}

impl Options {
    /// The defaults.
    pub fn new(source: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            out: Output::new(folder, 100),
            layout: None,
            videos: None,
            video_field: None,
            captions: Captions::default(),
            filters: Filters::default(),
            frames: 16,
            clean: true,
        }
    }
}

/// Builds shards of videos.
///
/// # Errors
/// As [`pairs::build`](crate::pairs::build).
pub fn build(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, DataError> {
    options.captions.validate()?;
    if !(1..=MAX_FRAMES).contains(&options.frames) {
        let message = format!("1 to {MAX_FRAMES} frames of a video can be stored");
        return Err(DataError::Options(message));
    }
    let layout = match options.layout {
        Some(layout) => layout,
        None => detect(&options.source)?,
    };
    let videos = Videos { options, layout };
    run(&videos, &options.out, options, progress)
}

fn detect(source: &Path) -> Result<Layout, DataError> {
    let unknown = |message: String| DataError::Source {
        kind: "videos",
        path: source.to_path_buf(),
        message,
    };
    if source.is_file() {
        return match kind_of(source).as_str() {
            "tar" => Ok(Layout::Tars),
            _ if is_webvid(source)? => Ok(Layout::Webvid),
            "txt" => Ok(Layout::Table),
            _ if is_table(source) => Ok(Layout::Table),
            other => Err(unknown(format!(
                "the extension {other:?} is none of tar, csv, tsv, jsonl, json, parquet and txt. Name a list, an archive or a folder"
            ))),
        };
    }
    let files = walk(source)?;
    let has = |wanted: &dyn Fn(&str) -> bool| files.iter().any(|file| wanted(&kind_of(file)));
    if has(&|kind| kind == "tar") {
        return Ok(Layout::Tars);
    }
    for file in &files {
        if is_webvid(file)? {
            return Ok(Layout::Webvid);
        }
    }
    match has(&is_video) || has(&is_picture) {
        true => Ok(Layout::Files),
        false => Err(unknown(
            "it holds no tar, no CSV of WebVid, no video and no folder of frames. Name another folder, or a list".into(),
        )),
    }
}

/// Whether a file is a list of WebVid, by its columns.
fn is_webvid(path: &Path) -> Result<bool, DataError> {
    if !matches!(kind_of(&without_gz(path)).as_str(), "csv" | "tsv") {
        return Ok(false);
    }
    let names = columns(path)?.unwrap_or_default();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    Ok(has("videoid") && has("name") && has("page_dir"))
}

struct Videos<'a> {
    options: &'a Options,
    layout: Layout,
}

/// A candidate.
#[derive(Serialize)]
struct Item {
    caption: String,
    clip: Clip,
}

impl Build for Videos<'_> {
    type Item = Item;
    const KIND: &'static str = "videos";

    fn source(&self) -> &Path {
        &self.options.source
    }

    fn read(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        match self.layout {
            Layout::Webvid => self.webvid(feed),
            Layout::Tars => self.tars(feed),
            Layout::Table => self.table(&self.options.source, feed),
            Layout::Files => self.files(feed),
        }
    }

    fn make(&self, _: &str, item: &Item) -> Result<Vec<Made>, Skip> {
        let sampled = item.clip.frames(self.options.frames, &self.options.out)?;
        let mut pictures = vec![];
        let mut offsets = vec![];
        for (frame, offset) in sampled.frames.iter().zip(&sampled.offsets) {
            if offsets.last() != Some(offset) {
                pictures.push(encode(frame, &self.options.out)?);
                offsets.push(*offset);
            }
        }
        Ok(vec![Made {
            words: item.caption.split_whitespace().count(),
            record: Record::Video(Video {
                caption: item.caption.clone(),
                offsets,
                total: sampled.total,
            }),
            pictures,
            dropped: vec![],
        }])
    }

    fn held(item: &Item) -> usize {
        item.clip.held() + item.caption.len()
    }
}

#[cfg(test)]
mod tests;
