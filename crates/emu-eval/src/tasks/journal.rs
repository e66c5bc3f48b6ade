//! A file of results that survives interruptions: a line with the settings, then a line for each item, in order.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::EvalError;
use super::lines::JsonLines;
use super::model::Outcome;

/// Version of the layout, in the first line.
const VERSION: u32 = 1;

/// First line.
#[derive(Serialize, Deserialize)]
struct Header {
    emu_eval: u32,
    settings: Value,
}

/// A line: the item and its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The item.
    pub id: String,
    /// Generated text, as the model wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Scores of the candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Vec<f64>>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Ids of the few-shot examples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

impl Line {
    /// The text of a line, or why it has none.
    pub fn outcome(self) -> Outcome<String> {
        match (self.text, self.error) {
            (Some(text), None) => Ok(text),
            (_, Some(reason)) => Err(reason),
            (None, None) => Err("no result".to_owned()),
        }
    }
}

/// An open file of results.
pub struct Journal {
    path: PathBuf,
    file: JsonLines,
    /// What has been written.
    pub lines: Vec<Line>,
}

impl Journal {
    /// Opens or creates a file for these items. What an interrupted run left is kept up to its last whole batch, so that
    /// the model sees the same batches, and the file ends up the same, as without the interruption.
    ///
    /// # Errors
    /// If the settings differ, a line does not belong there, or another run has the file open.
    pub fn open(
        path: &Path,
        settings: &Value,
        items: &[String],
        batch: usize,
    ) -> Result<Self, EvalError> {
        let (file, found) = JsonLines::open(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            lines: vec![],
        };
        let mut rest = found.iter();
        let Some(first) = rest.next() else {
            journal.file.append(&Header {
                emu_eval: VERSION,
                settings: settings.clone(),
            })?;
            return Ok(journal);
        };
        let fault = |line: usize, reason: String| EvalError::Journal {
            path: path.to_owned(),
            line,
            reason,
        };
        let header: Header =
            serde_json::from_slice(first).map_err(|error| fault(1, error.to_string()))?;
        if header.emu_eval != VERSION {
            return Err(fault(
                1,
                format!("it is of version {}, not {VERSION}", header.emu_eval),
            ));
        }
        if let Some((setting, before, now)) = difference("", &header.settings, settings) {
            return Err(EvalError::Changed {
                path: path.to_owned(),
                setting,
                before,
                now,
            });
        }
        for (i, line) in rest.enumerate() {
            let record: Line =
                serde_json::from_slice(line).map_err(|error| fault(i + 2, error.to_string()))?;
            match items.get(i) {
                Some(item) if *item == record.id => {}
                Some(item) => {
                    return Err(fault(
                        i + 2,
                        format!("it is about {:?}, not {item:?}", record.id),
                    ));
                }
                None => {
                    return Err(fault(
                        i + 2,
                        "there are more lines than questions".to_owned(),
                    ));
                }
            }
            journal.lines.push(record);
        }
        let batch = batch.max(1);
        let kept = match journal.lines.len() {
            all if all == items.len() => all,
            some => some / batch * batch,
        };
        journal.lines.truncate(kept);
        journal.file.keep(kept + 1)?;
        Ok(journal)
    }

    /// Appends the results of a batch.
    pub fn append(&mut self, lines: Vec<Line>) -> Result<(), EvalError> {
        for line in &lines {
            let text = self.file.append(line)?;
            // As a continued run will read it: the last bit of a number may change on its way through text.
            let read = serde_json::from_str(&text).map_err(std::io::Error::from);
            self.lines
                .push(read.map_err(EvalError::io("write", &self.path))?);
        }
        Ok(())
    }
}

/// The first setting in which two objects differ: its path, and both values as JSON.
fn difference(path: &str, before: &Value, now: &Value) -> Option<(String, String, String)> {
    if let (Value::Object(before), Value::Object(now)) = (before, now) {
        let keys = before
            .keys()
            .chain(now.keys().filter(|key| !before.contains_key(*key)));
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let absent = Value::Null;
            difference(
                &path,
                before.get(key).unwrap_or(&absent),
                now.get(key).unwrap_or(&absent),
            )
        });
    }
    (before != now).then(|| (path.to_owned(), before.to_string(), now.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: &str) -> Line {
        Line {
            id: id.to_owned(),
            text: Some(format!("answer\nto {id} ü")),
            scores: None,
            error: None,
            examples: vec![],
        }
    }

    fn items() -> Vec<String> {
        (0..7).map(|i| format!("q{i}")).collect()
    }

    /// Runs to the end from whatever the file holds; returns how many items were asked.
    fn complete(path: &Path, batch: usize) -> Result<usize, EvalError> {
        let items = items();
        let mut journal =
            Journal::open(path, &json!({"task": "x", "batch": batch}), &items, batch)?;
        let mut asked = 0;
        while journal.lines.len() < items.len() {
            let from = journal.lines.len();
            assert_eq!(
                from % batch,
                0,
                "a batch that an uninterrupted run does not have"
            );
            let lines: Vec<_> = items[from..]
                .iter()
                .take(batch)
                .map(|id| line(id))
                .collect();
            asked += lines.len();
            journal.append(lines)?;
        }
        Ok(asked)
    }

    #[test]
    fn a_run_cut_at_any_byte_ends_in_the_same_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("answers.jsonl");
        for batch in [1, 2, 3, 10] {
            let _ = std::fs::remove_file(&path);
            assert_eq!(complete(&path, batch).expect("run"), 7);
            let whole = std::fs::read(&path).expect("file");
            assert_eq!(complete(&path, batch).expect("again"), 0);
            for cut in 0..whole.len() {
                std::fs::write(&path, &whole[..cut]).expect("cut");
                complete(&path, batch).expect("continued");
                assert_eq!(
                    std::fs::read(&path).expect("file"),
                    whole,
                    "batch {batch}, cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn changed_settings_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("answers.jsonl");
        let open = |settings: Value| Journal::open(&path, &settings, &items(), 1).map(|_| ());
        open(json!({"task": "x", "decoding": {"beams": 5}})).expect("new");
        open(json!({"decoding": {"beams": 5}, "task": "x"})).expect("the same in another order");
        let error = open(json!({"task": "x", "decoding": {"beams": 1}}))
            .expect_err("changed")
            .to_string();
        assert!(error.contains("decoding.beams = 5; now it is 1"), "{error}");
        let error = open(json!({"task": "x", "decoding": {"beams": 5}, "limit": 3}))
            .expect_err("more")
            .to_string();
        assert!(error.contains("limit = null; now it is 3"), "{error}");
    }

    #[test]
    fn damage_and_foreign_lines_are_refused_by_line() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("answers.jsonl");
        complete(&path, 2).expect("run");
        let text = std::fs::read_to_string(&path).expect("file");
        for (from, to, words) in [
            ("\"q3\"", "\"q9\"", "line 5: it is about \"q9\", not \"q3\""),
            ("{\"id\":\"q2\"", "{\"id\":\"q2", "line 4"),
            (
                "\"emu_eval\":1",
                "\"emu_eval\":2",
                "line 1: it is of version 2",
            ),
        ] {
            std::fs::write(&path, text.replace(from, to)).expect("damage");
            let error = complete(&path, 2).expect_err(to).to_string();
            assert!(error.contains(words), "{error}");
        }
        std::fs::write(&path, format!("{text}{text}")).expect("damage");
        assert!(
            complete(&path, 2)
                .expect_err("more")
                .to_string()
                .contains("line 9")
        );
        std::fs::write(&path, &text).expect("mended");
        let settings = json!({"task": "x", "batch": 2});
        let _open = Journal::open(&path, &settings, &items(), 2).expect("open");
        assert!(matches!(complete(&path, 2), Err(EvalError::Locked(_))));
    }
}
