//! The video track of an MP4 (or QuickTime) file: the location of each coded picture, from one index ([`tables`]) or from an
//! index per fragment ([`fragments`]: written by recorders and streams), and the rotation. Edit lists are not applied:
//! every coded picture counts as a frame.

mod boxes;
mod fragments;
mod sps;
mod tables;
mod times;
mod track;

use boxes::{Atom, Cursor, atoms, damaged, find, need, short};

pub(super) use track::Track;

use super::VideoError;
use crate::image::Orientation;

/// Bytes of a visual sample entry before its child boxes.
const VISUAL_ENTRY_HEADER: usize = 78;

impl<'a> Track<'a> {
    /// Finds the first video track and lists its samples.
    pub fn read(file: &'a [u8]) -> Result<Self, VideoError> {
        let Some((moov, trak)) = video_track(file)? else {
            return Err(VideoError::NoFrames);
        };
        let Some(stbl) = find(trak, &[b"mdia", b"minf", b"stbl"])? else {
            return Err(VideoError::NoFrames);
        };
        let mut track = Self::read_codec(stbl)?;
        track.orientation = orientation(moov, trak)?;
        track.samples = tables::samples(file, stbl)?;
        if !track.samples.is_empty() {
            track.keyframes = tables::keyframes(stbl, track.samples.len())?;
        }
        if find(moov, &[b"mvex"])?.is_some() {
            fragments::append(file, moov, trak, &mut track)?;
        }
        if track.samples.is_empty() {
            return Err(VideoError::NoFrames);
        }
        track.check_profile()?;
        Ok(track)
    }

    /// Rejects unsupported H.264 profiles by name. The parameter sets are in the sample description, or in the first sample.
    fn check_profile(&self) -> Result<(), VideoError> {
        let first = self.samples.first().copied().unwrap_or_default();
        let mut units = self.parameters.iter().copied().chain(self.units(first));
        match units.find_map(sps::unsupported) {
            Some(codec) => Err(VideoError::UnsupportedCodec { codec }),
            None => Ok(()),
        }
    }

    /// The NAL units of a sample, up to one that is truncated.
    fn units(&self, sample: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (mut rest, prefix) = (Cursor(sample), self.prefix);
        std::iter::from_fn(move || {
            let length = usize::try_from(rest.number(prefix).ok()?).ok()?;
            rest.take(length).ok()
        })
    }

    /// Reads the sample description: the codec, and for H.264 its parameter sets.
    fn read_codec(stbl: &'a [u8]) -> Result<Self, VideoError> {
        let mut stsd = need(stbl, b"stsd")?;
        stsd.take(8)?;
        let Atom {
            name,
            content: entry,
            ..
        } = atoms(stsd.0, false).next().ok_or(VideoError::NoFrames)??;
        if !matches!(&name, b"avc1" | b"avc3") {
            return Err(VideoError::UnsupportedCodec {
                codec: codec_name(&name),
            });
        }
        let mut config = need(entry.get(VISUAL_ENTRY_HEADER..).ok_or_else(short)?, b"avcC")?;
        config.take(4)?;
        let prefix = (config.number(1)? & 3) as usize + 1;
        let mut parameters = Vec::new();
        for mask in [0x1f, 0xff] {
            for _ in 0..config.number(1)? & mask {
                let length = config.number(2)? as usize;
                parameters.push(config.take(length)?);
            }
        }
        Ok(Self {
            samples: Vec::new(),
            keyframes: Vec::new(),
            prefix,
            parameters,
            orientation: Orientation::NoTransforms,
        })
    }

    /// The parameter sets in Annex B form (with start codes).
    pub fn parameter_sets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.parameters
            .iter()
            .for_each(|unit| push_unit(&mut out, unit));
        out
    }

    /// Sample `index` in Annex B form: start codes in place of length prefixes.
    pub fn annex_b(&self, index: usize) -> Result<Vec<u8>, VideoError> {
        let mut rest = Cursor(
            self.samples
                .get(index)
                .copied()
                .ok_or(VideoError::Truncated)?,
        );
        let mut out = Vec::with_capacity(rest.0.len() + 16);
        while !rest.0.is_empty() {
            let length = rest.number(self.prefix)? as usize;
            push_unit(
                &mut out,
                rest.take(length)
                    .map_err(|_| damaged("a coded picture is cut short"))?,
            );
        }
        Ok(out)
    }

    /// The last key frame at or before `index`.
    pub fn keyframe(&self, index: usize) -> usize {
        let after = self.keyframes.partition_point(|k| *k <= index);
        match after.checked_sub(1) {
            Some(at) => self.keyframes.get(at).copied().unwrap_or(0),
            None => 0,
        }
    }
}

/// The index of a file (`moov`) and its first video track (`trak`).
type Boxes<'a> = (&'a [u8], &'a [u8]);

/// The first video track of a file; `None` if it has none.
fn video_track(file: &[u8]) -> Result<Option<Boxes<'_>>, VideoError> {
    let mut moov = None;
    let mut segment = false;
    for atom in atoms(file, true) {
        let atom = atom?;
        segment |= atom.name == *b"moof";
        if atom.name == *b"moov" && moov.is_none() {
            moov = Some(atom.content);
        }
    }
    let Some(moov) = moov else {
        return Err(if segment {
            VideoError::UnsupportedContainer {
                container: "a segment of an MP4, without the part that comes first",
            }
        } else {
            // the index (`moov`) is usually written last
            VideoError::Truncated
        });
    };
    for atom in atoms(moov, false) {
        let Atom {
            name,
            content: trak,
            ..
        } = atom?;
        if name != *b"trak" {
            continue;
        }
        let handler = find(trak, &[b"mdia", b"hdlr"])?.and_then(|h| h.get(8..12));
        if handler != Some(b"vide") {
            continue;
        }
        return Ok(Some((moov, trak)));
    }
    Ok(None)
}

/// The time of each frame in seconds, in presentation order; `None` for a fragmented file, whose fragments state the times.
pub(super) fn frame_times(file: &[u8]) -> Result<Option<Vec<f64>>, VideoError> {
    match video_track(file)? {
        None => Err(VideoError::NoFrames),
        Some((moov, _)) if find(moov, &[b"mvex"])?.is_some() => Ok(None),
        Some((_, trak)) => times::times(trak).map(Some),
    }
}

fn push_unit(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(unit);
}

/// The track's orientation: the product of the track matrix and the movie matrix.
fn orientation(moov: &[u8], trak: &[u8]) -> Result<Orientation, VideoError> {
    let track = find(trak, &[b"tkhd"])?.and_then(|tkhd| matrix(tkhd, 40, 52));
    let movie = find(moov, &[b"mvhd"])?.and_then(|mvhd| matrix(mvhd, 36, 48));
    const IDENTITY: [i32; 4] = [1, 0, 0, 1];
    let ([a, b, c, d], [e, f, g, h]) = (track.unwrap_or(IDENTITY), movie.unwrap_or(IDENTITY));
    let product = [a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h];
    // (x, y) maps to (a x + c y, b x + d y), with y pointing down.
    Ok(match product {
        [0, 1, -1, 0] => Orientation::Rotate90,
        [-1, 0, 0, -1] => Orientation::Rotate180,
        [0, -1, 1, 0] => Orientation::Rotate270,
        [-1, 0, 0, 1] => Orientation::FlipHorizontal,
        [1, 0, 0, -1] => Orientation::FlipVertical,
        [0, 1, 1, 0] => Orientation::Rotate90FlipH,
        [0, -1, -1, 0] => Orientation::Rotate270FlipH,
        // Upright, or at an angle that players ignore.
        _ => Orientation::NoTransforms,
    })
}

/// The signs of a matrix's linear part (a, b, c, d), at its offset in version 0 or 1 of a header.
fn matrix(header: &[u8], version_0: usize, version_1: usize) -> Option<[i32; 4]> {
    /// 1/4 in 16.16 fixed point: smaller magnitudes count as zero.
    const LITTLE: i32 = 1 << 14;
    let at = if header.first() == Some(&0) {
        version_0
    } else {
        version_1
    };
    let value = |index: usize| {
        let bytes = header.get(at + 4 * index..)?.first_chunk::<4>()?;
        let value = i32::from_be_bytes(*bytes);
        Some(if value.saturating_abs() < LITTLE {
            0
        } else {
            value.signum()
        })
    };
    Some([value(0)?, value(1)?, value(3)?, value(4)?])
}

/// Common name of a codec; the four-letter code if there is none.
fn codec_name(code: &[u8; 4]) -> String {
    match code {
        b"hvc1" | b"hev1" => "H.265".to_owned(),
        b"av01" => "AV1".to_owned(),
        b"vp09" => "VP9".to_owned(),
        b"vp08" => "VP8".to_owned(),
        b"dvh1" | b"dvhe" => "H.265 (Dolby Vision)".to_owned(),
        b"vvc1" | b"vvi1" => "H.266".to_owned(),
        b"apch" | b"apcn" | b"apcs" | b"apco" | b"ap4h" => "ProRes".to_owned(),
        b"jpeg" | b"mjpa" | b"mjpb" => "Motion JPEG".to_owned(),
        b"encv" => "encrypted video".to_owned(),
        b"mp4v" => "MPEG-4 part 2".to_owned(),
        other => String::from_utf8_lossy(other).escape_debug().to_string(),
    }
}
