//! The file of captions.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use emu_eval::tasks::JsonLines;
use serde::{Deserialize, Serialize};

/// How every line begins. A line of anything else is not cut off: the file may be somebody's only copy.
const BEGIN: &[u8] = b"{\"path\":\"";

/// A line of the file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The picture, as it was named or found.
    pub path: String,
    /// Its caption.
    pub text: String,
    /// Number of tokens of the caption.
    pub tokens: usize,
    /// Seconds that it took, with the picture's share of its batch.
    pub seconds: f64,
    /// Name of the model, and hash of its manifest.
    pub model: String,
}

/// A file of captions, one JSON object per line.
pub struct Captions {
    file: JsonLines,
    model: String,
    done: HashSet<PathBuf>,
}

impl Captions {
    /// Opens or creates a file for the captions of a model.
    ///
    /// # Errors
    /// Where the file cannot be opened, has a line that is no caption, or captions of another model. The file is then unchanged.
    pub fn open(path: &Path, model: &str) -> Result<Self> {
        let (file, lines) = JsonLines::open(path)?;
        let mut done = HashSet::new();
        for (i, line) in lines.iter().enumerate() {
            let record: Record = serde_json::from_slice(line)
                .map_err(|error| no_caption(path, i + 1, &error.to_string()))?;
            if record.model != model {
                bail!(
                    "{} has captions of the model {:?}, not of {model:?}. Use that model, or name another file with --out.",
                    path.display(),
                    record.model
                );
            }
            done.insert(record.path.into());
        }
        let rest = file.rest();
        if !rest.starts_with(BEGIN) && !BEGIN.starts_with(rest) {
            let reason = "it does not begin as a caption does";
            return Err(no_caption(path, lines.len() + 1, reason));
        }
        Ok(Self {
            file,
            model: model.to_owned(),
            done,
        })
    }

    /// Whether a picture has a caption.
    pub fn has(&self, picture: &Path) -> bool {
        self.done.contains(picture)
    }

    /// Appends a caption.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn append(
        &mut self,
        picture: &Path,
        text: String,
        tokens: usize,
        seconds: f64,
    ) -> Result<()> {
        let record = Record {
            path: picture.to_string_lossy().into_owned(),
            text,
            tokens,
            seconds,
            model: self.model.clone(),
        };
        self.file.append(&record)?;
        self.done.insert(picture.to_owned());
        Ok(())
    }
}

fn no_caption(path: &Path, line: usize, reason: &str) -> anyhow::Error {
    anyhow!(
        "Line {line} of {} is no caption: {reason}. Name another file with --out. If this one holds captions, cut it before that line.",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_of_other_models_and_damage_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("captions.jsonl");
        let mut captions = Captions::open(&path, "one").expect("new");
        let picture = Path::new("a b.png");
        captions
            .append(picture, "a \"cat\"\nsits".into(), 4, 0.5)
            .expect("written");
        assert!(captions.has(picture));
        drop(captions);
        assert!(Captions::open(&path, "one").expect("the same").has(picture));
        let error = Captions::open(&path, "two").err().expect("another model");
        assert!(
            error.to_string().contains("\"one\", not of \"two\""),
            "{error}"
        );
        std::fs::write(&path, "{\"path\": 3}\n").expect("written");
        let error = Captions::open(&path, "one").err().expect("damage");
        assert!(error.to_string().contains("Line 1 of"), "{error}");
    }

    #[test]
    fn only_the_beginning_of_a_caption_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("captions.jsonl");
        let mut captions = Captions::open(&path, "one").expect("new");
        captions
            .append(Path::new("a.png"), "a cat".into(), 2, 0.5)
            .expect("written");
        drop(captions);
        let line = std::fs::read(&path).expect("a file");
        assert!(line.starts_with(BEGIN));
        // Cut at any byte, the line is written anew.
        for cut in 0..line.len() {
            std::fs::write(&path, &line[..cut]).expect("cut");
            let mut captions = Captions::open(&path, "one").expect("cut");
            captions
                .append(Path::new("a.png"), "a cat".into(), 2, 0.5)
                .expect("written");
            drop(captions);
            assert_eq!(std::fs::read(&path).expect("a file"), line, "cut at {cut}");
        }
        // A text of one line without a line break is no caption, and stays.
        for other in ["my only copy", "{\"image\": 1}", "{\"path\": \"a\"}"] {
            for before in [&b""[..], line.as_slice()] {
                let text = [before, other.as_bytes()].concat();
                std::fs::write(&path, &text).expect("written");
                let error = Captions::open(&path, "one").err().expect("no caption");
                assert!(error.to_string().contains("is no caption"), "{error}");
                assert_eq!(std::fs::read(&path).expect("a file"), text);
            }
        }
    }
}
