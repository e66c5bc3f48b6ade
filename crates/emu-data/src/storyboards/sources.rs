//! Videos with subtitles: archives, files and folders; and the frames of them.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use emu_media::image::{Limits, RgbImage};
use emu_media::video::{frame_times, sample_frames};

use super::options::{Item, Storyboards, Subtitles};
use crate::build::{Feed, Halt, Output, Skip, decode};
use crate::input::{Blob, Value, each_sample, is_picture, kind_of, name_in, read_text, stem};
use crate::videos::{Clip, MAX_FRAMES};

/// Seconds between the frames of a video, as in coarse storyboards.
const INTERVAL: f64 = 10.0;

/// A frame.
pub(super) enum Shot {
    /// A picture file.
    File(Blob),
    /// A decoded frame.
    Frame(RgbImage),
    /// A part of a sheet: left, top, width, height.
    Cell {
        sheet: Arc<RgbImage>,
        place: [u32; 4],
    },
}

impl Shot {
    pub fn open(&self, out: &Output) -> Result<Cow<'_, RgbImage>, Skip> {
        match self {
            Self::File(blob) => decode(&blob.read()?, out).map(Cow::Owned),
            Self::Frame(frame) => Ok(Cow::Borrowed(frame)),
            Self::Cell { sheet, place } => {
                let [left, top, width, height] = *place;
                let cell = image::imageops::crop_imm(&**sheet, left, top, width, height);
                Ok(Cow::Owned(cell.to_image()))
            }
        }
    }
}

impl Storyboards<'_> {
    /// Archives of `ID.0.txt`, `ID.0.png`, `ID.1.txt`, ...
    pub(super) fn tars(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        each_sample(&self.options.source, feed, |feed, source, sample| {
            let mut frames: Vec<(usize, Blob)> = vec![];
            for (extension, blob) in &sample.members {
                let Some((number, kind)) = extension.split_once('.') else {
                    continue;
                };
                if let Ok(number) = number.parse()
                    && is_picture(kind)
                {
                    frames.push((number, blob.clone()));
                }
            }
            frames.sort_by_key(|(number, _)| *number);
            let text = |number: usize| {
                let member = sample.member(&format!("{number}.txt"));
                member.map_or(Ok(String::new()), crate::pairs::utf8)
            };
            let after = frames.last().map_or(0, |(number, _)| number + 1);
            let texts: Result<Vec<String>, Skip> =
                frames.iter().map(|(number, _)| text(*number)).collect();
            let item = texts.and_then(|texts| {
                let frames = frames.into_iter().map(|(_, blob)| blob);
                let frames: Vec<(String, Blob)> = texts.into_iter().zip(frames).collect();
                match frames.is_empty() {
                    true => Err(Skip::plain(
                        "no numbered pictures (ID.0.png, ID.1.png, ...)",
                    )),
                    false => Ok(Item::Ready {
                        frames,
                        rest: text(after)?,
                    }),
                }
            });
            feed.result(source, item)
        })
    }

    /// Videos and folders of frames with subtitles.
    pub(super) fn videos(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        for path in Clip::below(root)? {
            let source = name_in(root, &path);
            feed.result(source, self.clip(&path))?;
        }
        Ok(())
    }

    fn clip(&self, path: &Path) -> Result<Item, Skip> {
        let folder = path.is_dir();
        let id = match folder {
            true => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            false => stem(path),
        };
        let inside = path.join("frames.json");
        let subtitles = self.subtitles(&id, if folder { &inside } else { path })?;
        let (clip, times) = match folder.then(|| listed(path)).flatten() {
            Some(listed) => {
                let (frames, times) = listed?;
                (Clip::Frames(frames), Some(times))
            }
            None => (Clip::at(path)?, None),
        };
        Ok(Item::Clip {
            clip,
            times,
            subtitles,
        })
    }

    /// The frames of a clip with their times.
    pub(super) fn shots(
        &self,
        clip: &Clip,
        times: Option<&[f64]>,
    ) -> Result<Vec<(f64, Shot)>, Skip> {
        let blob = match clip {
            Clip::Frames(frames) => {
                let shots = frames.iter().cloned().map(Shot::File);
                return match (times, self.options.interval) {
                    (Some(times), _) => Ok(times.iter().copied().zip(shots).collect()),
                    (None, Some(interval)) => {
                        let times = (0_u32..).map(|i| f64::from(i) * interval);
                        Ok(times.zip(shots).collect())
                    }
                    (None, None) => Err(Skip::new(
                        "times of the frames are not known",
                        "write frames.json, or give the seconds between frames",
                    )),
                };
            }
            Clip::File(blob) => blob,
        };
        let unusable = |error: emu_media::video::VideoError| {
            Skip::new(format!("unusable video ({})", error.code()), error)
        };
        let bytes = blob.read()?;
        let times = frame_times(&bytes).map_err(unusable)?;
        let Some(times) = times.filter(|times| !times.is_empty()) else {
            return Err(Skip::new(
                "times of the frames are not known",
                "the file is fragmented or no MP4; convert it, or extract its frames",
            ));
        };
        let duration = times[times.len() - 1] - times[0];
        let interval = self.options.interval.unwrap_or(INTERVAL);
        let wanted = (duration / interval).round() as usize;
        let wanted = wanted.clamp(1, MAX_FRAMES).min(times.len());
        let sampled = sample_frames(&bytes, wanted, &Limits::default()).map_err(unusable)?;
        let shots = sampled.offsets.iter().zip(sampled.frames);
        Ok(shots
            .filter_map(|(offset, frame)| Some((*times.get(*offset)?, Shot::Frame(frame))))
            .collect())
    }

    /// Folders in which files beside a video may lie: the chosen one; or those of these names in the source, beside it,
    /// and beside the video.
    pub(super) fn folders(
        &self,
        chosen: &Option<PathBuf>,
        names: &[&str],
        video: &Path,
    ) -> Vec<PathBuf> {
        if let Some(folder) = chosen {
            return vec![folder.clone()];
        }
        let source = &self.options.source;
        let home = video.parent().unwrap_or(Path::new(""));
        let around = [
            Some(source.as_path()),
            source.parent(),
            Some(home),
            home.parent(),
        ];
        let named = around
            .into_iter()
            .flatten()
            .flat_map(|folder| names.iter().map(|name| folder.join(name)));
        named.filter(|folder| folder.is_dir()).collect()
    }

    /// The subtitles of a video: `ID.json`, `ID.srt`, `ID.vtt`, or with a language before the extension.
    pub(super) fn subtitles(&self, id: &str, video: &Path) -> Result<Subtitles, Skip> {
        let options = self.options;
        let mut folders = self.folders(&options.subtitles, &["subtitle", "subtitles"], video);
        if options.subtitles.is_none() {
            let home = video.parent().unwrap_or(Path::new(""));
            folders.extend([home.to_path_buf()]);
            folders.extend(home.parent().map(Path::to_path_buf));
        }
        for folder in &folders {
            let found = in_folder(folder, id, options.language.as_deref(), video);
            if let Some((kind, blob)) = found {
                return Ok(Subtitles { kind, blob });
            }
        }
        Err(Skip::new("no subtitles", format!("of {id}")))
    }
}

/// The subtitles of a video in a folder. The JSON beside a video is its metadata unless it is a list.
fn in_folder(
    folder: &Path,
    id: &str,
    language: Option<&str>,
    video: &Path,
) -> Option<(String, Blob)> {
    let at = |name: String, kind: &str| Some((kind.to_string(), Blob::file(&folder.join(name))?));
    let kinds = ["srt", "vtt", "json"];
    if let Some(language) = language
        && let Some(found) = kinds
            .iter()
            .find_map(|kind| at(format!("{id}.{language}.{kind}"), kind))
    {
        return Some(found);
    }
    for kind in kinds {
        let name = format!("{id}.{kind}");
        let is_metadata = || {
            let text = read_text(&folder.join(&name)).unwrap_or_default();
            folder.join(&name) == video
                || !text.trim_start().starts_with(['[', '{'])
                || (text.trim_start().starts_with('{') && !text.contains("\"start\""))
        };
        if kind == "json" && folder.join(&name).is_file() && is_metadata() {
            continue;
        }
        if let Some(found) = at(name, kind) {
            return Some(found);
        }
    }
    // any language, the first by name
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            name.strip_prefix(id)
                .is_some_and(|rest| rest.starts_with('.'))
        })
        .filter(|name| matches!(kind_of(Path::new(name)).as_str(), "srt" | "vtt"))
        .collect();
    names.sort();
    let name = names.into_iter().next()?;
    let kind = kind_of(Path::new(&name));
    at(name, &kind)
}

/// Frames and their times in seconds.
type Timed = (Vec<Blob>, Vec<f64>);

/// The frames that `frames.json` lists, `[{file, time}]`, sorted by time; `None` without it.
fn listed(folder: &Path) -> Option<Result<Timed, Skip>> {
    let path = folder.join("frames.json");
    if !path.is_file() {
        return None;
    }
    let wrong = |detail: String| Skip::new("frames.json cannot be used", detail);
    let read = || {
        let text = read_text(&path)?;
        let list: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let mut frames = vec![];
        for entry in Value::from(list).list() {
            let name = entry.text_of("file");
            let time = entry.field("time").and_then(Value::number);
            let (Some(name), Some(time)) = (name, time) else {
                return Err(wrong("an entry has no file or no time".into()));
            };
            let blob = Blob::file(&folder.join(&name))
                .ok_or_else(|| Skip::new("picture file not found", name))?;
            frames.push((time, blob));
        }
        frames.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (times, blobs) = frames.into_iter().unzip();
        Ok((blobs, times))
    };
    Some(read())
}
