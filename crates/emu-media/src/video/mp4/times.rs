//! Times of the frames of an MP4 file with one index for all coded pictures. Edit lists are not applied.

use super::boxes::{Cursor, damaged, find, need};
use super::track::check_count;
use crate::video::VideoError;

/// The time of each frame in seconds, in presentation order, from the durations (`stts`) and the composition offsets
/// (`ctts`) of the samples. The first frame is at zero: its offset is what edit lists usually take back.
pub(super) fn times(trak: &[u8]) -> Result<Vec<f64>, VideoError> {
    let mut mdhd = need(need(trak, b"mdia")?.0, b"mdhd")?;
    let version = mdhd.number(4)? >> 24;
    // creation and modification time come first
    mdhd.take(if version == 0 { 8 } else { 16 })?;
    let scale = f64::from(mdhd.u32()?);
    if scale == 0.0 {
        return Err(damaged("its time scale is zero"));
    }
    let stbl = find(trak, &[b"mdia", b"minf", b"stbl"])?.ok_or(VideoError::NoFrames)?;
    let mut ticks: Vec<i64> = vec![];
    let mut now = 0_i64;
    for (count, duration) in runs(need(stbl, b"stts")?)? {
        check_count(ticks.len().saturating_add(count as usize))?;
        for _ in 0..count {
            ticks.push(now);
            now += i64::from(duration);
        }
    }
    if let Some(ctts) = find(stbl, &[b"ctts"])? {
        let mut at = 0;
        for (count, offset) in runs(Cursor(ctts))? {
            // version 0 has unsigned offsets; those that are negative in version 1 cannot be meant otherwise
            let offset = i64::from(offset as i32);
            let end = (at + count as usize).min(ticks.len());
            ticks[at..end].iter_mut().for_each(|tick| *tick += offset);
            at = end;
        }
        ticks.sort_unstable();
    }
    let first = ticks.first().copied().unwrap_or(0);
    let times = ticks.into_iter().map(|tick| (tick - first) as f64 / scale);
    Ok(times.collect())
}

/// The pairs (count, value) of a table.
fn runs(mut table: Cursor<'_>) -> Result<Vec<(u32, u32)>, VideoError> {
    table.take(4)?;
    let count = table.count(8)?;
    (0..count)
        .map(|_| Ok((table.u32()?, table.u32()?)))
        .collect()
}
