//! Samples of a fragmented MP4: the main index is empty, and each fragment (`moof`) has an index of its own. Browser
//! recorders and streams write this form.

use super::boxes::{Atom, Cursor, atoms, damaged, find, need};
use super::track::{Track, check_count};
use crate::video::VideoError;

/// Flags of `tfhd`, the header of a track fragment: which fields are present, and the base of offsets.
const BASE_OFFSET: u32 = 1;
const DESCRIPTION: u32 = 2;
const DEFAULT_DURATION: u32 = 8;
const DEFAULT_SIZE: u32 = 0x10;
const DEFAULT_FLAGS: u32 = 0x20;
const BASE_IS_MOOF: u32 = 0x2_0000;
/// Flags of `trun`, a run of samples: which fields are present for the run, and for each sample.
const DATA_OFFSET: u32 = 1;
const FIRST_FLAGS: u32 = 4;
const DURATION: u32 = 0x100;
const SIZE: u32 = 0x200;
const FLAGS: u32 = 0x400;
const COMPOSITION: u32 = 0x800;
/// Sample flag: not a sync sample, decoding cannot start there.
const NO_KEYFRAME: u32 = 0x1_0000;
/// NAL unit type of an IDR picture, which depends on no earlier picture.
const IDR: u8 = 5;

/// Defaults for samples without fields of their own.
#[derive(Clone, Copy, Default)]
struct Defaults {
    size: u32,
    flags: u32,
}

/// Appends the samples of all fragments to `track`, which is described by `trak`.
pub(super) fn append<'a>(
    file: &'a [u8],
    moov: &[u8],
    trak: &[u8],
    track: &mut Track<'a>,
) -> Result<(), VideoError> {
    let id = track_id(trak)?;
    let defaults = defaults(moov, id)?;
    for atom in atoms(file, true) {
        let Atom {
            name,
            content,
            start,
        } = atom?;
        if name == *b"moof" {
            append_piece(file, (start, content), (id, defaults), track)?;
        }
    }
    Ok(())
}

fn track_id(trak: &[u8]) -> Result<u32, VideoError> {
    let mut tkhd = need(trak, b"tkhd")?;
    let version = tkhd.number(4)? >> 24;
    // creation and modification time come first
    tkhd.take(if version == 0 { 8 } else { 16 })?;
    tkhd.u32()
}

/// The default sample size and flags of a track, from `trex`.
fn defaults(moov: &[u8], id: u32) -> Result<Defaults, VideoError> {
    let mvex = find(moov, &[b"mvex"])?.unwrap_or_default();
    for atom in atoms(mvex, false) {
        let atom = atom?;
        let mut trex = Cursor(atom.content);
        if atom.name != *b"trex" {
            continue;
        }
        trex.take(4)?;
        if trex.u32()? == id {
            // description index and duration come first
            trex.take(8)?;
            return Ok(Defaults {
                size: trex.u32()?,
                flags: trex.u32()?,
            });
        }
    }
    Ok(Defaults::default())
}

/// Appends the samples of one fragment, which begins at `start`.
fn append_piece<'a>(
    file: &'a [u8],
    (start, moof): (usize, &[u8]),
    (id, of_track): (u32, Defaults),
    track: &mut Track<'a>,
) -> Result<(), VideoError> {
    // By default, a track's data follow those of the previous track.
    let mut next = start as u64;
    for atom in atoms(moof, false) {
        let Atom {
            name,
            content: traf,
            ..
        } = atom?;
        if name != *b"traf" {
            continue;
        }
        let mut tfhd = need(traf, b"tfhd")?;
        let flags = tfhd.u32()?;
        let is_ours = tfhd.u32()? == id;
        let mut field =
            |flag: u32, bytes: usize| (flags & flag != 0).then(|| tfhd.number(bytes)).transpose();
        let base = field(BASE_OFFSET, 8)?;
        field(DESCRIPTION, 4)?;
        field(DEFAULT_DURATION, 4)?;
        let size = field(DEFAULT_SIZE, 4)?;
        let sample_flags = field(DEFAULT_FLAGS, 4)?;
        let base = match base {
            Some(base) => base,
            None if flags & BASE_IS_MOOF != 0 => start as u64,
            None => next,
        };
        let mut defaults = if is_ours {
            of_track
        } else {
            Defaults::default()
        };
        defaults.size = size.map_or(defaults.size, |size| size as u32);
        defaults.flags = sample_flags.map_or(defaults.flags, |flags| flags as u32);
        next = base;
        for atom in atoms(traf, false) {
            let atom = atom?;
            if atom.name == *b"trun" {
                let run = Run {
                    file,
                    base,
                    defaults,
                };
                next = run.read(atom.content, next, is_ours.then_some(&mut *track))?;
            }
        }
    }
    Ok(())
}

/// Context for reading a run of samples.
struct Run<'a> {
    file: &'a [u8],
    base: u64,
    defaults: Defaults,
}

impl<'a> Run<'a> {
    /// Appends the samples of a run to `track`, if given; returns the end of their data. `next` is the start of the data if the
    /// run has no offset.
    fn read(
        &self,
        trun: &[u8],
        next: u64,
        mut track: Option<&mut Track<'a>>,
    ) -> Result<u64, VideoError> {
        let mut trun = Cursor(trun);
        let flags = trun.u32()?;
        let fields = [DURATION, SIZE, FLAGS, COMPOSITION];
        let entry: usize = fields
            .iter()
            .map(|f| if flags & f != 0 { 4 } else { 0 })
            .sum();
        let count = trun.u32()? as usize;
        check_count(count)?;
        let mut at = next;
        if flags & DATA_OFFSET != 0 {
            let offset = i64::from(trun.u32()? as i32);
            at = self
                .base
                .checked_add_signed(offset)
                .ok_or_else(|| damaged("a run begins before the file"))?;
        }
        let mut first_flags = (flags & FIRST_FLAGS != 0).then(|| trun.u32()).transpose()?;
        for _ in 0..count {
            let mut values = Cursor(trun.take(entry)?);
            let mut field = |flag: u32| (flags & flag != 0).then(|| values.u32()).transpose();
            field(DURATION)?;
            let size = field(SIZE)?.unwrap_or(self.defaults.size);
            let sample_flags = field(FLAGS)?.unwrap_or(self.defaults.flags);
            let sample_flags = first_flags.take().unwrap_or(sample_flags);
            if let Some(track) = track.as_deref_mut() {
                self.push(at, size, sample_flags, track)?;
            }
            at = at
                .checked_add(u64::from(size))
                .ok_or_else(|| damaged("a run ends behind the file"))?;
        }
        Ok(at)
    }

    fn push(
        &self,
        at: u64,
        size: u32,
        flags: u32,
        track: &mut Track<'a>,
    ) -> Result<(), VideoError> {
        check_count(track.samples.len() + 1)?;
        let sample = usize::try_from(at)
            .ok()
            .and_then(|at| self.file.get(at..)?.get(..size as usize))
            .ok_or(VideoError::Truncated)?;
        // Some recorders omit the flags, so that every sample would count as a key frame; check for an IDR unit too.
        if flags & NO_KEYFRAME == 0
            && track
                .units(sample)
                .any(|unit| unit.first().is_some_and(|head| head & 31 == IDR))
        {
            track.keyframes.push(track.samples.len());
        }
        track.samples.push(sample);
        Ok(())
    }
}
