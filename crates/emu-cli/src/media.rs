//! Pictures and videos from files to the tensors that the encoder reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use emu_model::image::{Limits, RgbImage, decode};
use emu_model::prompt::{ESCAPE, Marked, PromptError, VIDEO_MARK};
use emu_model::video::{FRAMES_PER_VIDEO, VideoFrames, sample_frames, sample_pictures};

/// Reads a picture.
///
/// # Errors
/// Where the file cannot be read or is no picture within the limits.
pub fn picture(path: &Path) -> Result<RgbImage> {
    let bytes = read(path)?;
    decode(&bytes, &Limits::default()).with_context(|| format!("picture {}", path.display()))
}

/// A text with its marks filled, as [`Marked::new`], whose complaint then names the options.
///
/// # Errors
/// Where marks and pictures, or marks and videos, differ in number.
pub fn marked(text: &str, pictures: Vec<RgbImage>, videos: Vec<Vec<RgbImage>>) -> Result<Marked> {
    Marked::new(text, pictures, videos).map_err(|error| match error {
        PromptError::Marks { mark, marks, given } => {
            let option = if mark == VIDEO_MARK { "--video" } else { "--image" };
            anyhow!(
                "The prompt has {marks} {mark} marks but {option} was given {given} times. Give one {option} for each mark, leave the marks out, or write {ESCAPE}{mark} where these very letters are meant."
            )
        }
        error => error.into(),
    })
}

/// Reads the frames of a video that the model sees: of a file, or of a folder of pictures in the order of their names.
///
/// # Errors
/// Where there are none, or they cannot be read.
pub fn video(path: &Path) -> Result<VideoFrames> {
    let limits = Limits::default();
    let frames = if path.is_dir() {
        let files: Vec<Vec<u8>> = frame_files(path)?
            .iter()
            .map(|file| read(file))
            .collect::<Result<_>>()?;
        sample_pictures(&files, FRAMES_PER_VIDEO, &limits)
    } else {
        sample_frames(&read(path)?, FRAMES_PER_VIDEO, &limits)
    };
    frames.with_context(|| format!("video {}", path.display()))
}

fn frame_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| unreadable(folder))?;
    let mut files = vec![];
    for entry in entries {
        let path = entry.with_context(|| unreadable(folder))?.path();
        let kind = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if matches!(
            kind.as_deref(),
            Some("png" | "jpg" | "jpeg" | "webp" | "gif")
        ) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    // Asked before the bytes are: a huge file is refused without being read.
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
