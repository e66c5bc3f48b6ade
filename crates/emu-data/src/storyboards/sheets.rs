//! Thumbnail sheets of YouTube, as Emu's fork of video2dataset downloads them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use emu_media::image::Limits;

use super::options::{Item, Storyboards};
use super::sources::Shot;
use crate::build::{Feed, Halt, Skip};
use crate::input::{Blob, Value, kind_of, name_in, stem, walk};

/// Formats of sheets.
const SHEET: [&str; 4] = ["webp", "jpg", "png", "jpeg"];
/// The fork stores at most this many sheets of a video.
const MAX_SHEETS: usize = 100;

/// The first sheet of a video, by the JSON of the video.
pub(super) fn first(json: &Path) -> Option<PathBuf> {
    sheet(json, 0).filter(|_| kind_of(json) == "json")
}

fn sheet(json: &Path, number: usize) -> Option<PathBuf> {
    let name = stem(json);
    SHEET
        .iter()
        .map(|kind| json.with_file_name(format!("{name}_{number}.{kind}")))
        .find(|path| path.is_file())
}

impl Storyboards<'_> {
    pub(super) fn sheets(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        for path in walk(root)? {
            if first(&path).is_none() {
                continue;
            }
            let source = name_in(root, &path);
            feed.result(source, self.sheet_item(&path))?;
        }
        Ok(())
    }

    fn sheet_item(&self, path: &Path) -> Result<Item, Skip> {
        let meta = Blob::file(path).ok_or_else(|| Skip::plain("file not found"))?;
        let json = crate::pairs::parse(&meta)?;
        let id = video_id(&json).unwrap_or_else(|| stem(path));
        let sheets = (0..MAX_SHEETS)
            .map_while(|number| Blob::file(&sheet(path, number)?))
            .collect();
        let label = self.folders(&self.options.labels, &["label", "labels"], path);
        let label = label
            .iter()
            .find_map(|folder| Blob::file(&folder.join(format!("{id}.json"))));
        Ok(Item::Sheets {
            subtitles: self.subtitles(&id, path)?,
            meta,
            sheets,
            label,
        })
    }

    /// The frames of the sheets with their times: each sheet is cut row by row; the interval is the duration by the number
    /// of frames, rounded to whole seconds as in the fork (halves to even), unless that is zero.
    pub(super) fn cut(
        &self,
        meta: &Blob,
        sheets: &[Blob],
        label: Option<&Blob>,
    ) -> Result<Vec<(f64, Shot)>, Skip> {
        let meta = crate::pairs::parse(meta)?;
        let label = label.map(crate::pairs::parse).transpose()?;
        let yt = meta.field("yt_meta_dict");
        let Some(boards @ Value::Map(_)) = yt.and_then(|yt| yt.field("sb")) else {
            return Err(Skip::new("no yt_meta_dict.sb", meta.names()));
        };
        let duration = label
            .as_ref()
            .and_then(|label| label.field("duration"))
            .or_else(|| yt?.field("info")?.field("duration"))
            .or_else(|| yt?.field("duration"))
            .or_else(|| meta.field("duration"))
            .and_then(Value::number)
            .filter(|duration| *duration > 0.0);
        let Some(duration) = duration else {
            return Err(Skip::plain("no duration of the video"));
        };
        let mut frames = vec![];
        let mut total = 0;
        for (number, blob) in sheets.iter().enumerate() {
            let board = boards.field(&number.to_string()).map(Value::list);
            let numbers: Option<Vec<u32>> = board.map(|board| {
                let numbers = board.iter().skip(2).take(3);
                numbers
                    .filter_map(|value| value.number().map(|value| value as u32))
                    .collect()
            });
            let Some(&[columns, rows, count]) = numbers.as_deref() else {
                return Err(Skip::new("no sizes of a sheet", format!("sheet {number}")));
            };
            total += count as usize;
            let sheet =
                emu_media::image::decode(&blob.read()?, &Limits::default()).map_err(|error| {
                    Skip::new(format!("unusable picture ({})", error.code()), error)
                })?;
            let (width, height) = sheet.dimensions();
            if columns == 0 || rows == 0 || width % columns != 0 || height % rows != 0 {
                let detail = format!("{width} x {height} pixels, {columns} columns, {rows} rows");
                return Err(Skip::new("sheet cannot be divided into its frames", detail));
            }
            let (width, height, sheet) = (width / columns, height / rows, Arc::new(sheet));
            for row in 0..rows {
                for column in 0..columns {
                    frames.push(Shot::Cell {
                        sheet: sheet.clone(),
                        place: [column * width, row * height, width, height],
                    });
                }
            }
        }
        frames.truncate(total);
        if frames.is_empty() {
            return Err(Skip::plain("video has no frames"));
        }
        let exact = duration / frames.len() as f64;
        let interval = match exact.round_ties_even() {
            0.0 => exact,
            rounded => rounded,
        };
        let times = (0_u32..).map(|i| f64::from(i) * interval);
        Ok(times.zip(frames).collect())
    }
}

/// The id of a video: in its URL, or in the metadata.
fn video_id(json: &Value) -> Option<String> {
    let url = json.text_of("url").unwrap_or_default();
    let after = |mark: &str| {
        let (_, id) = url.split_once(mark)?;
        let id: String = id
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .collect();
        (!id.is_empty()).then_some(id)
    };
    after("v=")
        .or_else(|| after("youtu.be/"))
        .or_else(|| after("/shorts/"))
        .or_else(|| json.text_of("videoid"))
        .or_else(|| json.text_of("id"))
}
