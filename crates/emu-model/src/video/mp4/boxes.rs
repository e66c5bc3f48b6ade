//! The boxes that an MP4 file is made of. All lengths and counts are checked against the bytes there are.

use crate::video::VideoError;

/// A box.
#[derive(Debug, Clone, Copy)]
pub(super) struct Atom<'a> {
    /// Its four-letter name.
    pub name: [u8; 4],
    /// What is in it.
    pub content: &'a [u8],
    /// Where it begins in what was read.
    pub start: usize,
}

pub(super) fn damaged(reason: impl Into<String>) -> VideoError {
    VideoError::Damaged {
        reason: reason.into(),
    }
}

pub(super) fn short() -> VideoError {
    damaged("a table is cut short")
}

/// Reads big-endian numbers.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], VideoError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn number(&mut self, bytes: usize) -> Result<u64, VideoError> {
        Ok(self
            .take(bytes)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    pub fn u32(&mut self) -> Result<u32, VideoError> {
        Ok(self.number(4)? as u32)
    }

    /// A count of entries of `bytes` each, all of which must be there.
    pub fn count(&mut self, bytes: usize) -> Result<usize, VideoError> {
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

/// The boxes of `bytes`, one after the other. A box that runs over the end is an error, or at the top level a file that
/// is cut short; it ends the walk.
pub(super) fn atoms(
    bytes: &[u8],
    top_level: bool,
) -> impl Iterator<Item = Result<Atom<'_>, VideoError>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(start..).filter(|rest| rest.len() >= 8)?;
        let atom = atom(rest, start, top_level);
        start = match &atom {
            Ok((_, size)) => start + size,
            Err(_) => bytes.len(),
        };
        Some(atom.map(|(atom, _)| atom))
    })
}

/// The first box of `rest`, and its size.
fn atom(rest: &[u8], start: usize, top_level: bool) -> Result<(Atom<'_>, usize), VideoError> {
    let early = || {
        if top_level {
            VideoError::Truncated
        } else {
            damaged("a box runs over the end of the one around it")
        }
    };
    let mut header = Cursor(rest);
    let size = header.u32()?;
    let name = header.take(4)?.first_chunk().copied().unwrap_or_default();
    let (size, header_size) = match size {
        0 => (rest.len() as u64, 8),
        1 => (header.number(8).map_err(|_| early())?, 16),
        size => (u64::from(size), 8),
    };
    let size = usize::try_from(size).map_err(|_| early())?;
    match rest.get(header_size..size) {
        Some(content) => {
            let atom = Atom {
                name,
                content,
                start,
            };
            Ok((atom, size))
        }
        None if size < header_size => Err(damaged("a box is shorter than its header")),
        None => Err(early()),
    }
}

/// The content of the box at the end of a path.
pub(super) fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Result<Option<&'a [u8]>, VideoError> {
    let mut content = bytes;
    'path: for name in path {
        for atom in atoms(content, false) {
            let atom = atom?;
            if atom.name == **name {
                content = atom.content;
                continue 'path;
            }
        }
        return Ok(None);
    }
    Ok(Some(content))
}

/// A box that must be there.
pub(super) fn need<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Result<Cursor<'a>, VideoError> {
    let content = find(bytes, &[name])?;
    content.map(Cursor).ok_or_else(|| {
        damaged(format!(
            "the box {} is missing",
            String::from_utf8_lossy(name)
        ))
    })
}
