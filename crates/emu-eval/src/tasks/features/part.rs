//! An index under construction.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::{Header, finish};
use crate::tasks::error::EvalError;
use crate::tasks::files::lock;
use crate::tasks::model::Outcome;

/// An index under construction: a line of JSON, then for each row its length as a little-endian u32 and its values.
/// An unreadable medium has length 0.
pub(super) struct Part {
    path: PathBuf,
    file: fs::File,
    pub(super) rows: Vec<Vec<f32>>,
}

/// First line of a part file.
#[derive(Serialize, Deserialize, PartialEq)]
struct PartLine {
    model: String,
    inputs_sha256: Option<String>,
}

impl Part {
    /// Opens a part file; one of other media or of another model is started again. Only whole batches are kept, so that the
    /// model sees the batches of an uninterrupted run.
    pub(super) fn open(path: &Path, header: &Header, batch: usize) -> Result<Self, EvalError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = path.with_file_name(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(EvalError::io("create", folder))?;
        }
        let open = fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path);
        let mut file = open.map_err(EvalError::io("open", &path))?;
        lock(&file, &path)?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)
            .map_err(EvalError::io("read", &path))?;
        let line = PartLine {
            model: header.model.clone(),
            inputs_sha256: header.inputs_sha256.clone(),
        };
        let written = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let mut rows = vec![];
        if serde_json::from_slice::<PartLine>(written).ok().as_ref() == Some(&line)
            && written.ends_with(b"\n")
        {
            let mut rest = bytes.get(written.len()..).unwrap_or_default();
            let mut ends = vec![written.len()];
            while let Some((row, after)) = next_row(rest) {
                rows.push(row);
                rest = after;
                ends.push(bytes.len() - rest.len());
            }
            let kept = if rows.len() >= header.names.len() {
                header.names.len()
            } else {
                rows.len() / batch * batch
            };
            rows.truncate(kept);
            let end = ends.get(kept).copied().unwrap_or(written.len());
            file.set_len(end as u64)
                .map_err(EvalError::io("cut", &path))?;
        } else {
            file.set_len(0).map_err(EvalError::io("cut", &path))?;
            let text = serde_json::to_string(&line).map(|text| text + "\n");
            let text = text
                .map_err(std::io::Error::from)
                .map_err(EvalError::io("write", &path))?;
            file.write_all(text.as_bytes())
                .map_err(EvalError::io("write", &path))?;
        }
        Ok(Self { path, file, rows })
    }

    pub(super) fn append(
        &mut self,
        vectors: Vec<Outcome<Vec<f32>>>,
        at: &str,
    ) -> Result<(), EvalError> {
        let mut bytes = vec![];
        for vector in vectors {
            let row = vector.unwrap_or_default();
            let known = self.rows.iter().map(Vec::len).find(|length| *length > 0);
            if let Some(length) = known.filter(|length| !row.is_empty() && *length != row.len()) {
                let got = format!("a vector of {} numbers", row.len());
                return Err(EvalError::Contract {
                    at: at.to_owned(),
                    got,
                    expected: length.to_string(),
                });
            }
            bytes.extend((row.len() as u32).to_le_bytes());
            bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
            self.rows.push(row);
        }
        self.file
            .write_all(&bytes)
            .map_err(EvalError::io("write", &self.path))
    }

    /// Writes the index and removes the part file.
    pub(super) fn finish(self, path: &Path, mut header: Header) -> Result<(), EvalError> {
        header.dim = self
            .rows
            .iter()
            .map(Vec::len)
            .find(|length| *length > 0)
            .ok_or_else(|| EvalError::Index {
                path: path.to_owned(),
                reason: "none of its pictures or videos could be read".to_owned(),
            })?;
        let unreadable = vec![f32::NAN; header.dim];
        let rows = self
            .rows
            .iter()
            .map(|row| if row.is_empty() { &unreadable } else { row });
        let body: Vec<u8> = rows.flatten().flat_map(|x| x.to_le_bytes()).collect();
        finish(path, header, &body)?;
        fs::remove_file(&self.path).map_err(EvalError::io("remove", &self.path))
    }
}

/// A row of a part file, and what follows it; `None` at the end or where the row is cut off.
fn next_row(bytes: &[u8]) -> Option<(Vec<f32>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (row, rest) =
        rest.split_at_checked((u32::from_le_bytes(*length) as usize).checked_mul(4)?)?;
    Some((
        row.as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
        rest,
    ))
}
