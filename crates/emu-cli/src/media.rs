//! Reads pictures and videos from files for the encoder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use emu_media::image::{Limits, RgbImage, decode};
use emu_media::video::{
    Container, FRAMES_PER_VIDEO, VideoError, VideoFrames, sample_frames, sample_pictures,
};
use emu_model::prompt::{ESCAPE, Marked, PromptError, VIDEO_MARK};

use crate::ffmpeg::Ffmpeg;

/// Reads a picture.
///
/// # Errors
/// Where the file cannot be read, is not a picture, or exceeds the limits.
pub fn picture(path: &Path) -> Result<RgbImage> {
    let bytes = read(path)?;
    decode(&bytes, &Limits::default()).with_context(|| format!("picture {}", path.display()))
}

/// [`Marked::new`], with error messages that name the command-line options.
///
/// # Errors
/// Where marks and pictures, or marks and videos, differ in number.
pub fn marked(text: &str, pictures: Vec<RgbImage>, videos: Vec<Vec<RgbImage>>) -> Result<Marked> {
    Marked::new(text, pictures, videos).map_err(|error| match error {
        PromptError::Marks { mark, marks, given } => {
            let option = if mark == VIDEO_MARK { "--video" } else { "--image" };
            let are = if marks == 1 { "mark" } else { "marks" };
            let times = if given == 1 { "time" } else { "times" };
            anyhow!(
                "The prompt has {marks} {mark} {are} but {option} was given {given} {times}. Give one {option} for each mark, leave the marks out, or write {ESCAPE}{mark} where these very letters are meant."
            )
        }
        error => error.into(),
    })
}

/// Reads the frames of a video that the encoder gets. The video is a file, or a folder of pictures sorted by name. Formats
/// that [`sample_frames`] cannot read go through an `ffmpeg` on the PATH, if there is one.
///
/// # Errors
/// Where there are no frames, or they cannot be read.
pub fn video(path: &Path) -> Result<VideoFrames> {
    video_with(path, &Ffmpeg::default()).with_context(|| format!("video {}", path.display()))
}

/// [`video`] with a given `ffmpeg` program.
pub(crate) fn video_with(path: &Path, ffmpeg: &Ffmpeg) -> Result<VideoFrames> {
    let limits = Limits::default();
    if path.is_dir() {
        let files: Vec<Vec<u8>> = frame_files(path)?
            .iter()
            .map(|file| read(file))
            .collect::<Result<_>>()?;
        return Ok(sample_pictures(&files, FRAMES_PER_VIDEO, &limits)?);
    }
    let container = Container::of(&head(path)?);
    let other = container.filter(|c| *c != Container::Mp4);
    let error = match other {
        // ffmpeg reads this file, so the size limit of `read` does not apply.
        Some(other) => VideoError::UnsupportedContainer {
            container: other.name(),
        },
        None => match sample_frames(&read(path)?, FRAMES_PER_VIDEO, &limits) {
            Ok(frames) => return Ok(frames),
            Err(error) => error,
        },
    };
    let what = match &error {
        VideoError::UnsupportedContainer { container } => (*container).to_owned(),
        VideoError::UnsupportedCodec { codec } => codec.clone(),
        _ => return Err(error.into()),
    };
    let frames = match container {
        Some(container) => ffmpeg.sample(path, container, FRAMES_PER_VIDEO, &limits)?,
        None => return Err(error.into()),
    };
    match frames {
        Some(frames) => {
            eprintln!(
                "note: ffmpeg decodes {} ({what}, which emu does not read itself)",
                path.display()
            );
            if matches!(error, VideoError::UnsupportedCodec { .. }) {
                eprintln!("note: {error}");
            }
            Ok(frames)
        }
        None => bail!("{error} An ffmpeg on the PATH would be used as it is."),
    }
}

/// The first bytes of a file.
fn head(path: &Path) -> Result<Vec<u8>> {
    const LENGTH: u64 = 4096;
    let mut head = Vec::new();
    let file = File::open(path).with_context(|| unreadable(path))?;
    file.take(LENGTH)
        .read_to_end(&mut head)
        .with_context(|| unreadable(path))?;
    Ok(head)
}

/// Whether a file has the name of a picture.
pub fn is_picture_name(path: &Path) -> bool {
    let kind = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    matches!(
        kind.as_deref(),
        Some("png" | "jpg" | "jpeg" | "webp" | "gif" | "bmp" | "tif" | "tiff")
    )
}

fn frame_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| unreadable(folder))?;
    let mut files = vec![];
    for entry in entries {
        let path = entry.with_context(|| unreadable(folder))?.path();
        if is_picture_name(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // The length is checked first, so that a huge file is rejected without being read.
    let limit = Limits::default().max_bytes as u64;
    let length = std::fs::metadata(path)
        .with_context(|| unreadable(path))?
        .len();
    if length > limit {
        bail!(
            "{} has {length} bytes, more than the {limit} that are read. Cut or compress it first.",
            path.display()
        );
    }
    std::fs::read(path).with_context(|| unreadable(path))
}

fn unreadable(path: &Path) -> String {
    format!(
        "{} cannot be read; check the path and its permissions",
        path.display()
    )
}
