//! MP4 box parsing. All lengths and counts are checked against the available bytes.

use crate::video::VideoError;

/// An MP4 box.
#[derive(Debug, Clone, Copy)]
pub(super) struct Atom<'a> {
    /// Four-letter box type.
    pub name: [u8; 4],
    /// Content after the header.
    pub content: &'a [u8],
    /// Offset of the box in the parsed bytes.
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

/// Big-endian byte reader.
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

    /// Reads an entry count; an error if fewer than `count` entries of `bytes` each follow.
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

/// Iterates over the boxes of `bytes`. A box that extends past the end is an error: damage, or at the top level a truncated
/// file. The iteration then ends.
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

/// The content of the box at the end of a path of box types.
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

/// A required child box.
pub(super) fn need<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Result<Cursor<'a>, VideoError> {
    let content = find(bytes, &[name])?;
    content.map(Cursor).ok_or_else(|| {
        damaged(format!(
            "the box {} is missing",
            String::from_utf8_lossy(name)
        ))
    })
}
