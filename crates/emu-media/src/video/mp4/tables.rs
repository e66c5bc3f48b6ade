//! Sample tables of an MP4 file with one index for all coded pictures.

use super::boxes::{Cursor, damaged, find, need};
use super::track::check_count;
use crate::video::VideoError;

/// Key frames (`stss`). Without the table, only the first sample counts as one.
pub(super) fn keyframes(stbl: &[u8], samples: usize) -> Result<Vec<usize>, VideoError> {
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

/// The bytes of every sample, from the tables of sizes, chunk offsets, and samples per chunk.
pub(super) fn samples<'a>(file: &'a [u8], stbl: &[u8]) -> Result<Vec<&'a [u8]>, VideoError> {
    let mut stsz = need(stbl, b"stsz")?;
    stsz.take(4)?;
    let same = stsz.u32()? as usize;
    let count = if same == 0 {
        stsz.count(4)?
    } else {
        stsz.u32()? as usize
    };
    check_count(count)?;
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
