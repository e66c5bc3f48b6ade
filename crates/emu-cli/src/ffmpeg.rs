//! Decodes videos that this program does not decode itself with the `ffmpeg` on the PATH, if there is one.
//!
//! ffmpeg is started without a shell, reads only the given file (no network, no playlists), and writes frames into a pipe.
//! Its time and output are limited: [`TIME_LIMIT`], [`OUTPUT_LIMIT`].

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use emu_media::image::{Limits, RgbImage};
use emu_media::video::{Container, VideoFrames, sample_offsets};

/// Limit for both passes together: the first counts the frames, the second writes the sampled ones.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// Maximum bytes of frames.
const OUTPUT_LIMIT: u64 = 1 << 30;
/// Maximum bytes of ffmpeg's messages that are kept.
const MESSAGE_LIMIT: u64 = 1 << 16;
/// Renumbers the frames, one per tick, so that ffmpeg neither duplicates nor drops frames to keep a frame rate.
const NUMBERED: &str = "settb=1/25,setpts=N";

/// An `ffmpeg` program.
pub struct Ffmpeg {
    program: OsString,
    time_limit: Duration,
}

impl Default for Ffmpeg {
    fn default() -> Self {
        Self {
            program: "ffmpeg".into(),
            time_limit: TIME_LIMIT,
        }
    }
}

/// ffmpeg's name of the demuxer. It is passed explicitly so that ffmpeg never detects a file as a playlist.
fn reader(container: Container) -> Option<&'static str> {
    Some(match container {
        Container::Mp4 => "mov",
        Container::Matroska => "matroska",
        Container::Avi => "avi",
        Container::Flv => "flv",
        Container::Ogg => "ogg",
        Container::Asf => "asf",
        Container::ProgramStream => "mpeg",
        Container::TransportStream => "mpegts",
        _ => return None,
    })
}

impl Ffmpeg {
    /// Samples the frames of a video as [`emu_media::video::sample_frames`] does; `None` if ffmpeg is not installed.
    ///
    /// # Errors
    /// Where ffmpeg cannot read the video or exceeds a limit.
    pub fn sample(
        &self,
        path: &Path,
        container: Container,
        wanted: usize,
        limits: &Limits,
    ) -> Result<Option<VideoFrames>> {
        let Some(reader) = reader(container) else {
            return Ok(None);
        };
        let deadline = Instant::now() + self.time_limit;
        let path = std::path::absolute(path)?;
        let mut input = OsString::from("file:");
        input.push(&path);
        let common: Vec<&OsStr> = [
            "-nostdin",
            "-hide_banner",
            "-loglevel",
            "error",
            "-protocol_whitelist",
            "file,pipe",
            "-f",
            reader,
            "-i",
        ]
        .map(OsStr::new)
        .into_iter()
        .chain([input.as_os_str()])
        .chain(["-map", "0:v:0"].map(OsStr::new))
        .collect();

        // 1. Count the frames.
        let count = [
            "-vf",
            NUMBERED,
            "-r",
            "25",
            "-f",
            "null",
            "-progress",
            "pipe:1",
            "-",
        ];
        let Some(progress) = self.run(&common, &count, MESSAGE_LIMIT * 16, deadline)? else {
            return Ok(None);
        };
        let total = frames_of(&progress);
        if total == 0 {
            bail!(emu_media::video::VideoError::NoFrames);
        }

        // 2. Write the sampled frames.
        let offsets = sample_offsets(total, wanted);
        let mut distinct = offsets.clone();
        distinct.dedup();
        let chosen: Vec<String> = distinct.iter().map(|n| format!("eq(n\\,{n})")).collect();
        let filter = format!("select={},{NUMBERED}", chosen.join("+"));
        let number = distinct.len().to_string();
        let write = [
            "-vf",
            &filter,
            "-r",
            "25",
            "-frames:v",
            &number,
            "-f",
            "image2pipe",
            "-c:v",
            "ppm",
            "-pix_fmt",
            "rgb24",
            "pipe:1",
        ];
        let Some(bytes) = self.run(&common, &write, OUTPUT_LIMIT, deadline)? else {
            return Ok(None);
        };
        let mut rest = bytes.as_slice();
        let mut frames: Vec<RgbImage> = Vec::with_capacity(offsets.len());
        for (at, offset) in offsets.iter().enumerate() {
            if at > 0 && offsets[at - 1] == *offset {
                frames.extend(frames.last().cloned());
            } else {
                frames.push(read_frame(&mut rest, limits)?);
            }
        }
        Ok(Some(VideoFrames {
            frames,
            offsets,
            total,
        }))
    }

    /// Runs ffmpeg and returns its output; `None` if ffmpeg is not installed.
    fn run(
        &self,
        common: &[&OsStr],
        own: &[&str],
        output_limit: u64,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>> {
        let spawned = Command::new(&self.program)
            .args(common)
            .args(own)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).context("ffmpeg cannot be started; check its permissions");
            }
        };
        let (out, messages) = (child.stdout.take(), child.stderr.take());
        // Both pipes are drained while ffmpeg runs. Closing a pipe early at its limit makes ffmpeg exit.
        let (success, out, messages) = std::thread::scope(|scope| {
            let out = scope.spawn(|| read_up_to(out, output_limit));
            let messages = scope.spawn(|| read_up_to(messages, MESSAGE_LIMIT));
            let success = wait(&mut child, deadline);
            (success, out.join(), messages.join())
        });
        let broken = |_| anyhow!("ffmpeg's output could not be read. Try again.");
        let (out, messages) = (out.map_err(broken)?, messages.map_err(broken)?);
        let Some(success) = success? else {
            bail!(
                "ffmpeg took more than {} seconds for this video. Cut it to the part that is meant.",
                self.time_limit.as_secs()
            );
        };
        if out.len() as u64 > output_limit {
            bail!(
                "ffmpeg gave frames of more than {output_limit} bytes. Make the video smaller first."
            );
        }
        if !success {
            let messages = String::from_utf8_lossy(&messages);
            let last = messages.lines().rev().find(|line| !line.trim().is_empty());
            bail!(
                "ffmpeg cannot read this video ({}). Check that it plays, or convert it to MP4 with H.264.",
                last.unwrap_or("it does not say why").trim()
            );
        }
        Ok(Some(out))
    }
}

/// Reads a pipe to its end, up to one byte over the limit.
fn read_up_to(pipe: Option<impl Read>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // On a read error, the exit status decides whether the bytes read so far are used.
        let _ = pipe.take(limit + 1).read_to_end(&mut bytes);
    }
    bytes
}

/// Whether ffmpeg succeeded; `None` if it was killed at the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The last frame count in ffmpeg's progress report.
fn frames_of(progress: &[u8]) -> usize {
    let text = String::from_utf8_lossy(progress);
    let mut counts = text.lines().filter_map(|line| line.strip_prefix("frame="));
    counts
        .next_back()
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}

/// Reads a PPM picture from the start of `bytes` and advances `bytes`.
fn read_frame(bytes: &mut &[u8], limits: &Limits) -> Result<RgbImage> {
    let broken = || {
        anyhow!("ffmpeg gave fewer frames than it counted. Check that the video plays to its end.")
    };
    let mut field = || {
        let end = bytes.iter().position(u8::is_ascii_whitespace)?;
        let (field, rest) = bytes.split_at(end);
        *bytes = &rest[1..];
        std::str::from_utf8(field).ok()
    };
    let header = (field(), field(), field(), field());
    let (Some("P6"), Some(width), Some(height), Some("255")) = header else {
        return Err(broken());
    };
    let (width, height): (u32, u32) = (width.parse()?, height.parse()?);
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        bail!(
            "This video has frames of {width} x {height} pixels, which is over the limit of {} pixels. Make it smaller first.",
            limits.max_pixels
        );
    }
    let length = usize::try_from(pixels * 3)?;
    let (pixels, rest) = bytes.split_at_checked(length).ok_or_else(broken)?;
    *bytes = rest;
    RgbImage::from_raw(width, height, pixels.to_vec()).ok_or_else(broken)
}

#[cfg(test)]
mod tests;
