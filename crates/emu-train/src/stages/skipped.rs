//! Samples that a run leaves out: counted, listed in a file of the run's folder, and an error where they are too many.
//!
//! Which samples are left out follows from the data alone. Each is told once, at the micro-batch that first met it, so
//! that a resumed run, which drops the lines of later micro-batches, counts what the original had counted.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::data::BadSample;

/// Name of the list in the folder of a run.
pub const LIST: &str = "bad-samples.jsonl";

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    /// Number of the data set in the configuration, from 0.
    set: usize,
    /// Index of the sample among those of the data set; absent of samples that were found when the shards were opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// Micro-batch that met it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<u64>,
    #[serde(flatten)]
    sample: BadSample,
}

/// A data set's samples and how many of them are left out.
#[derive(Clone, Debug)]
struct Count {
    path: PathBuf,
    samples: usize,
    /// Found when the shards were opened.
    opened: Vec<BadSample>,
    bad: usize,
    first: Option<BadSample>,
}

/// The samples that a run leaves out.
#[derive(Debug)]
pub(super) struct Skipped {
    list: PathBuf,
    /// Largest share of a data set.
    limit: f64,
    sets: Vec<Count>,
    known: BTreeSet<(usize, usize)>,
    /// The micro-batch that follows the last one; none before the first.
    next: Option<u64>,
}

impl Skipped {
    /// For the run in `out`.
    pub fn new(out: &Path, limit: f64) -> Self {
        Self {
            list: out.join(LIST),
            limit,
            sets: vec![],
            known: BTreeSet::new(),
            next: None,
        }
    }

    /// Adds a data set of `samples` usable samples, `bad` ones not among them.
    pub fn add_set(&mut self, path: &Path, samples: usize, bad: &[BadSample]) {
        self.sets.push(Count {
            path: path.into(),
            samples: samples + bad.len(),
            opened: bad.to_vec(),
            bad: bad.len(),
            first: bad.first().cloned(),
        });
    }

    /// Ends the run before it begins where what was found at opening is too much already.
    ///
    /// # Errors
    /// [`TrainError::BadSamples`], with the list written unless another process trains into the folder.
    pub fn check_opened(&self) -> Result<(), TrainError> {
        let Err(error) = (0..self.sets.len()).try_for_each(|set| self.check(set)) else {
            return Ok(());
        };
        let out = self.list.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(out).map_err(TrainError::io("create", out))?;
        if let Ok(_lock) = crate::trainer::lock(out) {
            self.write(&self.opened())?;
        }
        Err(error)
    }

    /// Begins a micro-batch. Where it does not follow the last one, the list is read again up to it; the samples found at
    /// opening are returned then.
    ///
    /// # Errors
    /// Where the list cannot be read or written.
    pub fn begin(&mut self, batch: u64) -> Result<Vec<BadSample>, TrainError> {
        let follows = self.next == Some(batch);
        self.next = Some(batch + 1);
        if follows {
            return Ok(vec![]);
        }
        self.known.clear();
        for set in &mut self.sets {
            set.bad = set.opened.len();
            set.first = set.opened.first().cloned();
        }
        let mut lines = self.opened();
        for line in self.read()? {
            let (Some(index), Some(met)) = (line.index, line.batch) else {
                continue;
            };
            if met < batch
                && line.set < self.sets.len()
                && self.count(line.set, index, &line.sample)
            {
                lines.push(line);
            }
        }
        self.write(&lines)?;
        Ok(self
            .sets
            .iter()
            .flat_map(|set| set.opened.clone())
            .collect())
    }

    /// Counts and lists a sample that a micro-batch met; whether it is the first time.
    ///
    /// # Errors
    /// [`TrainError::BadSamples`] where there are too many now; where the list cannot be written.
    pub fn add(
        &mut self,
        batch: u64,
        set: usize,
        index: usize,
        sample: &BadSample,
    ) -> Result<bool, TrainError> {
        if !self.count(set, index, sample) {
            return Ok(false);
        }
        let line = Line {
            set,
            index: Some(index),
            batch: Some(batch),
            sample: sample.clone(),
        };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.list)
            .map_err(TrainError::io("open", &self.list))?;
        append(&mut file, &line, &self.list)?;
        self.check(set)?;
        Ok(true)
    }

    /// How many samples are left out so far, those found at opening among them.
    pub fn total(&self) -> u64 {
        self.sets.iter().map(|set| set.bad as u64).sum()
    }

    fn count(&mut self, set: usize, index: usize, sample: &BadSample) -> bool {
        let new = self.known.insert((set, index));
        if let (true, Some(set)) = (new, self.sets.get_mut(set)) {
            set.bad += 1;
            set.first.get_or_insert_with(|| sample.clone());
        }
        new
    }

    fn check(&self, set: usize) -> Result<(), TrainError> {
        match self.sets.get(set) {
            Some(Count {
                path,
                samples,
                bad,
                first: Some(first),
                ..
            }) if *bad as f64 > self.limit * *samples as f64 => Err(TrainError::BadSamples {
                data: path.clone(),
                bad: *bad,
                samples: *samples,
                limit: self.limit,
                list: self.list.clone(),
                first: first.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn opened(&self) -> Vec<Line> {
        let lines = |(set, count): (usize, &Count)| -> Vec<Line> {
            let line = |sample: &BadSample| Line {
                set,
                index: None,
                batch: None,
                sample: sample.clone(),
            };
            count.opened.iter().map(line).collect()
        };
        self.sets.iter().enumerate().flat_map(lines).collect()
    }

    /// The lines of the list, up to one that a killed process did not finish.
    fn read(&self) -> Result<Vec<Line>, TrainError> {
        match fs::read_to_string(&self.list) {
            Ok(text) => Ok(text
                .lines()
                .map_while(|line| serde_json::from_str(line).ok())
                .collect()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
            Err(error) => Err(TrainError::io("read", &self.list)(error)),
        }
    }

    /// Replaces the list; no lines, no file.
    fn write(&self, lines: &[Line]) -> Result<(), TrainError> {
        if lines.is_empty() {
            return match fs::remove_file(&self.list) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(TrainError::io("remove", &self.list)(error))
                }
                _ => Ok(()),
            };
        }
        let mut text = vec![];
        for line in lines {
            append(&mut text, line, &self.list)?;
        }
        crate::checkpoint::replace_file(&self.list, &text, &crate::checkpoint::create_file)
    }
}

fn append(out: &mut impl Write, line: &Line, path: &Path) -> Result<(), TrainError> {
    let mut text = serde_json::to_vec(line).map_err(|e| TrainError::other("json", e))?;
    text.push(b'\n');
    out.write_all(&text).map_err(TrainError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(key: &str) -> BadSample {
        BadSample::new("s.tar", key, "it is broken.")
    }

    fn skipped(out: &Path, limit: f64) -> Skipped {
        let mut skipped = Skipped::new(out, limit);
        skipped.add_set(Path::new("data/a"), 100, &[]);
        skipped.add_set(Path::new("data/b"), 99, &[bad("opened")]);
        skipped
    }

    fn keys(out: &Path) -> Vec<String> {
        let text = fs::read_to_string(out.join(LIST)).unwrap_or_default();
        let key = |line: &str| serde_json::from_str::<Line>(line).unwrap().sample.key;
        text.lines().map(key).collect()
    }

    #[test]
    fn each_is_told_once_and_too_many_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut skipped = skipped(folder.path(), 0.02);
        skipped.check_opened().unwrap();
        assert_eq!(skipped.begin(0).unwrap(), [bad("opened")]);
        assert!(skipped.add(0, 0, 7, &bad("seven")).unwrap());
        assert!(skipped.begin(1).unwrap().is_empty());
        assert!(!skipped.add(1, 0, 7, &bad("seven")).unwrap());
        assert!(skipped.add(1, 0, 8, &bad("eight")).unwrap());
        assert_eq!(skipped.total(), 3);
        let error = skipped.add(1, 0, 9, &bad("nine")).unwrap_err();
        assert_eq!(error.code(), "bad-samples");
        let text = error.to_string();
        for word in [
            "3 of the 100",
            "data/a",
            "\"seven\"",
            "2%",
            LIST,
            "max_bad_share",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(keys(folder.path()), ["opened", "seven", "eight", "nine"]);
    }

    #[test]
    fn a_resumed_run_counts_what_the_original_had_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = skipped(folder.path(), 0.5);
        first.begin(0).unwrap();
        first.add(0, 0, 1, &bad("one")).unwrap();
        first.begin(1).unwrap();
        first.add(1, 1, 2, &bad("two")).unwrap();
        first.begin(2).unwrap();
        first.add(2, 0, 3, &bad("three")).unwrap();
        // Killed while it wrote.
        let list = folder.path().join(LIST);
        let text = fs::read_to_string(&list).unwrap();
        fs::write(&list, format!("{text}{{\"set\":0,\"ind")).unwrap();

        let mut second = skipped(folder.path(), 0.5);
        assert_eq!(second.begin(2).unwrap(), [bad("opened")]);
        assert_eq!(keys(folder.path()), ["opened", "one", "two"]);
        assert_eq!(second.total(), 3);
        assert!(!second.add(2, 0, 1, &bad("one")).unwrap());
        assert!(second.add(2, 0, 3, &bad("three")).unwrap());
        // From the beginning, nothing is known.
        assert_eq!(skipped(folder.path(), 0.5).begin(0).unwrap().len(), 1);
        assert_eq!(keys(folder.path()), ["opened"]);
    }

    #[test]
    fn what_is_found_at_opening_may_be_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let error = skipped(&out, 0.005).check_opened().unwrap_err();
        assert!(error.to_string().contains("data/b"), "{error}");
        assert_eq!(keys(&out), ["opened"]);
        assert!(skipped(&out, 0.01).check_opened().is_ok(), "1 of 100 is 1%");
    }

    #[test]
    fn clean_data_leave_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let mut skipped = Skipped::new(folder.path(), 0.0);
        skipped.add_set(Path::new("data"), 3, &[]);
        skipped.begin(5).unwrap();
        assert!(!folder.path().join(LIST).exists());
    }
}
