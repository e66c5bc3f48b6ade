//! The video track of an MP4 (or QuickTime) file: where each coded picture lies. All lengths and counts are checked
//! against the bytes there are. Edit lists are not applied: every coded picture counts as a frame.

use super::VideoError;

/// A box's four-letter name and its content.
type Atom<'a> = ([u8; 4], &'a [u8]);

/// Bytes of a sample entry before its own boxes.
const VISUAL_ENTRY_HEADER: usize = 78;

fn damaged(reason: impl Into<String>) -> VideoError {
    VideoError::Damaged {
        reason: reason.into(),
    }
}

fn short() -> VideoError {
    damaged("a table is cut short")
}

/// Whether the file starts like an MP4.
pub(super) fn is_mp4(bytes: &[u8]) -> bool {
    matches!(
        bytes.get(4..8),
        Some(b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free")
    )
}

/// Reads big-endian numbers.
#[derive(Clone, Copy)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], VideoError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, VideoError> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn u32(&mut self) -> Result<u32, VideoError> {
        Ok(self.number(4)? as u32)
    }

    /// A count of entries of `bytes` each, all of which must be there.
    fn count(&mut self, bytes: usize) -> Result<usize, VideoError> {
        let count = self.u32()? as usize;
        if count
            .checked_mul(bytes)
            .is_none_or(|needed| needed > self.0.len())
        {
            return Err(short());
        }
        Ok(count)
    }
}

/// The boxes of `bytes`. A box that runs over the end is an error, or at the top level a file that is cut short.
fn atoms(bytes: &[u8], top_level: bool) -> Result<Vec<Atom<'_>>, VideoError> {
    let early = || {
        if top_level {
            VideoError::Truncated
        } else {
            damaged("a box runs over the end of the one around it")
        }
    };
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 8 {
        let mut header = Cursor(rest);
        let size = header.u32()?;
        let name = header.take(4)?.first_chunk().copied().unwrap_or_default();
        let (size, header_size) = match size {
            0 => (rest.len() as u64, 8),
            1 => (header.number(8).map_err(|_| early())?, 16),
            size => (u64::from(size), 8),
        };
        let size = usize::try_from(size).map_err(|_| early())?;
        let content = rest.get(header_size..size);
        match content {
            Some(content) => found.push((name, content)),
            None if size < header_size => return Err(damaged("a box is shorter than its header")),
            None => return Err(early()),
        }
        rest = rest.get(size..).unwrap_or_default();
    }
    Ok(found)
}

/// The content of the box at the end of a path.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Result<Option<&'a [u8]>, VideoError> {
    let mut content = bytes;
    for name in path {
        match atoms(content, false)?.into_iter().find(|(n, _)| n == *name) {
            Some((_, inner)) => content = inner,
            None => return Ok(None),
        }
    }
    Ok(Some(content))
}

/// A box that must be there.
fn need<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Result<Cursor<'a>, VideoError> {
    let content = find(bytes, &[name])?;
    content.map(Cursor).ok_or_else(|| {
        damaged(format!(
            "the box {} is missing",
            String::from_utf8_lossy(name)
        ))
    })
}

/// The coded pictures of the first video track.
pub(super) struct Track<'a> {
    /// The pictures in decoding order; each a list of length-prefixed units.
    pub samples: Vec<&'a [u8]>,
    /// Samples from which decoding can start, in order; empty if all can.
    keyframes: Vec<usize>,
    /// Bytes of the length prefixes.
    prefix: usize,
    /// Sequence and picture parameter sets.
    parameters: Vec<&'a [u8]>,
}

impl<'a> Track<'a> {
    /// Finds the first video track and lists its samples.
    pub fn read(file: &'a [u8]) -> Result<Self, VideoError> {
        let top = atoms(file, true);
        let moov = match &top {
            Ok(boxes) => boxes
                .iter()
                .find(|(name, _)| name == b"moov")
                .map(|(_, content)| *content),
            Err(_) => None,
        };
        let Some(moov) = moov else {
            top?;
            if matches!(
                file.get(8..12),
                Some(b"avif" | b"avis" | b"heic" | b"heix" | b"mif1")
            ) {
                return Err(VideoError::UnsupportedContainer {
                    container: "an AVIF or HEIC picture",
                });
            }
            // the index is usually written last
            return Err(VideoError::Truncated);
        };
        for (name, trak) in atoms(moov, false)? {
            if name != *b"trak" {
                continue;
            }
            let handler = find(trak, &[b"mdia", b"hdlr"])?.and_then(|h| h.get(8..12));
            if handler != Some(b"vide") {
                continue;
            }
            let Some(stbl) = find(trak, &[b"mdia", b"minf", b"stbl"])? else {
                return Err(VideoError::NoFrames);
            };
            let mut track = Self::read_codec(stbl)?;
            track.samples = samples(file, stbl)?;
            if track.samples.is_empty() {
                let fragmented = find(moov, &[b"mvex"])?.is_some();
                return Err(if fragmented {
                    VideoError::UnsupportedContainer {
                        container: "fragmented MP4",
                    }
                } else {
                    VideoError::NoFrames
                });
            }
            track.keyframes = keyframes(stbl, track.samples.len())?;
            return Ok(track);
        }
        Err(VideoError::NoFrames)
    }

    /// The sample description: which codec, and for H.264 its parameter sets.
    fn read_codec(stbl: &'a [u8]) -> Result<Self, VideoError> {
        let mut stsd = need(stbl, b"stsd")?;
        stsd.take(8)?;
        let entries = atoms(stsd.0, false)?;
        let (name, entry) = entries.first().copied().ok_or(VideoError::NoFrames)?;
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
        })
    }

    /// The parameter sets with start codes.
    pub fn parameter_sets(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.parameters
            .iter()
            .for_each(|unit| push_unit(&mut out, unit));
        out
    }

    /// Sample `index` with start codes in place of lengths.
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

    /// The last sample at or before `index` from which decoding can start.
    pub fn keyframe(&self, index: usize) -> usize {
        let after = self.keyframes.partition_point(|k| *k <= index);
        match after.checked_sub(1) {
            Some(at) => self.keyframes.get(at).copied().unwrap_or(0),
            None => 0,
        }
    }
}

fn push_unit(out: &mut Vec<u8>, unit: &[u8]) {
    out.extend_from_slice(&[0, 0, 0, 1]);
    out.extend_from_slice(unit);
}

/// Samples from which decoding can start. Without a list, only the first is taken to be one.
fn keyframes(stbl: &[u8], samples: usize) -> Result<Vec<usize>, VideoError> {
    let Some(stss) = find(stbl, &[b"stss"])? else {
        return Ok(Vec::new());
    };
    let mut table = Cursor(stss);
    table.take(4)?;
    let count = table.count(4)?;
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let index = table.u32()? as usize;
        if index == 0 || index > samples || found.last().is_some_and(|last| index <= *last + 1) {
            return Err(damaged("the list of key frames is out of order"));
        }
        found.push(index - 1);
    }
    Ok(found)
}

/// The bytes of every sample, from the tables of sizes, of chunks, and of samples per chunk.
fn samples<'a>(file: &'a [u8], stbl: &[u8]) -> Result<Vec<&'a [u8]>, VideoError> {
    let mut stsz = need(stbl, b"stsz")?;
    stsz.take(4)?;
    let same = stsz.u32()? as usize;
    let count = if same == 0 {
        stsz.count(4)?
    } else {
        stsz.u32()? as usize
    };
    if count > file.len() {
        // each sample has at least a byte
        return Err(short());
    }
    let (mut chunks, width) = match find(stbl, &[b"co64"])? {
        Some(table) => (Cursor(table), 8),
        None => (need(stbl, b"stco")?, 4),
    };
    chunks.take(4)?;
    let chunk_count = chunks.count(width)?;
    let mut stsc = need(stbl, b"stsc")?;
    stsc.take(4)?;
    let run_count = stsc.count(12)?;
    let mut runs = Vec::with_capacity(run_count);
    for _ in 0..run_count {
        let (first, per_chunk, _) = (stsc.u32()? as usize, stsc.u32()? as usize, stsc.u32()?);
        runs.push((first, per_chunk));
    }

    let mut found = Vec::with_capacity(count);
    let (mut run, mut per_chunk) = (0, 0);
    for chunk in 1..=chunk_count {
        while let Some((_, samples)) = runs.get(run).filter(|(first, _)| *first <= chunk) {
            (per_chunk, run) = (*samples, run + 1);
        }
        let mut at = usize::try_from(chunks.number(width)?).map_err(|_| VideoError::Truncated)?;
        for _ in 0..per_chunk.min(count - found.len()) {
            let size = if same == 0 {
                stsz.u32()? as usize
            } else {
                same
            };
            let sample = file
                .get(at..)
                .and_then(|rest| rest.get(..size))
                .ok_or(VideoError::Truncated)?;
            found.push(sample);
            at += size;
        }
    }
    if found.len() < count {
        return Err(damaged("some frames are in no chunk"));
    }
    Ok(found)
}

/// A name that people know, where there is one.
fn codec_name(code: &[u8; 4]) -> String {
    match code {
        b"hvc1" | b"hev1" => "H.265".to_owned(),
        b"av01" => "AV1".to_owned(),
        b"vp09" => "VP9".to_owned(),
        b"mp4v" => "MPEG-4 part 2".to_owned(),
        other => String::from_utf8_lossy(other).escape_debug().to_string(),
    }
}
