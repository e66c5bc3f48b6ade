//! A file of JSON lines that survives interruptions: it is only appended to, line by line.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::EvalError;
use super::files::lock;

/// An open file of JSON lines. No other run can open it meanwhile.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    /// Ends of the lines that were there, in bytes.
    ends: Vec<usize>,
    /// Length of the file in bytes, with what is to be cut off.
    found: usize,
    /// What is to be cut off: a last line without a line break.
    rest: Vec<u8>,
}

impl JsonLines {
    /// Opens or creates a file. Returns its lines too, with their line breaks. A last line without one was being written when a run
    /// ended; it is left out, and cut off before anything is appended.
    ///
    /// # Errors
    /// If the file cannot be opened or read, or another run has it open.
    pub fn open(path: &Path) -> Result<(Self, Vec<Vec<u8>>), EvalError> {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(EvalError::io("create", folder))?;
        }
        let open = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let mut file = open.map_err(EvalError::io("open", path))?;
        lock(&file, path)?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)
            .map_err(EvalError::io("read", path))?;
        let lines: Vec<Vec<u8>> = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
            .map(<[u8]>::to_vec)
            .collect();
        let mut end = 0;
        let ends = lines.iter().map(|line| {
            end += line.len();
            end
        });
        let ends: Vec<usize> = ends.collect();
        let rest = bytes.get(end..).unwrap_or_default().to_vec();
        let opened = Self {
            path: path.to_owned(),
            file,
            ends,
            found: bytes.len(),
            rest,
        };
        Ok((opened, lines))
    }

    /// The last line that was there, if it had no line break. It is cut off before anything is appended.
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Keeps only the first `lines` of those that were there. Call it before anything is appended.
    ///
    /// # Errors
    /// If the file cannot be cut.
    pub fn keep(&mut self, lines: usize) -> Result<(), EvalError> {
        self.ends.truncate(lines);
        let end = self.ends.last().copied().unwrap_or_default();
        if end < self.found {
            self.file
                .set_len(end as u64)
                .map_err(EvalError::io("cut", &self.path))?;
            self.found = end;
        }
        Ok(())
    }

    /// Appends a value as a line, in one write. Returns the line.
    ///
    /// # Errors
    /// If the value cannot be serialized, or the file cannot be written.
    pub fn append(&mut self, value: &impl Serialize) -> Result<String, EvalError> {
        let text = serde_json::to_string(value)
            .map(|text| text + "\n")
            .map_err(std::io::Error::from);
        let text = text.map_err(EvalError::io("write", &self.path))?;
        if self.ends.last().copied().unwrap_or_default() < self.found {
            self.keep(self.ends.len())?;
        }
        self.file
            .write_all(text.as_bytes())
            .map_err(EvalError::io("write", &self.path))?;
        self.found += text.len();
        self.ends.push(self.found);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_at_any_byte_goes_on_behind_its_last_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("new/lines.jsonl");
        let (mut lines, found) = JsonLines::open(&path).expect("new");
        assert!(found.is_empty());
        for text in ["a\nb", "\u{fc}", ""] {
            assert!(lines.append(&text).expect("line").ends_with("\"\n"));
        }
        drop(lines);
        let whole = std::fs::read(&path).expect("file");
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("cut");
            let (mut lines, found) = JsonLines::open(&path).expect("open");
            let count = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(found.len(), count, "cut at {cut}");
            let kept = found.concat();
            assert_eq!([&kept[..], lines.rest()].concat(), &whole[..cut]);
            lines.append(&7).expect("line");
            let expected = [kept, b"7\n".to_vec()].concat();
            assert_eq!(std::fs::read(&path).expect("file"), expected);
        }
    }

    #[test]
    fn lines_can_be_dropped_before_others_follow() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("lines.jsonl");
        std::fs::write(&path, "1\n2\n3\n4").expect("file");
        let (mut lines, found) = JsonLines::open(&path).expect("open");
        assert_eq!(found, [b"1\n", b"2\n", b"3\n"]);
        assert!(matches!(JsonLines::open(&path), Err(EvalError::Locked(_))));
        lines.keep(1).expect("cut");
        lines.append(&5).expect("line");
        lines.append(&6).expect("line");
        assert_eq!(std::fs::read_to_string(&path).expect("file"), "1\n5\n6\n");
    }
}
