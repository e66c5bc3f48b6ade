//! Counts the samples that a run leaves out and lists them in a file of the run's folder. Too many are an error.
//!
//! The data alone determines which samples are left out. Each is reported once, by the micro-batch that first meets it.
//! A resumed run drops the lines of later micro-batches and restores the count of the original. A background thread
//! prepares micro-batches ahead and counts ([`Skipped`]); the samples are listed when their micro-batch is trained on
//! ([`BadList`]).

use crate::bad::{Found, TooManyBad};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::checkpoint::{create_file, replace_file};
use crate::data::BadSample;

/// Name of the list in the run's folder.
pub const LIST: &str = "bad-samples.jsonl";

/// The list in the run's folder.
#[derive(Debug)]
pub(crate) struct BadList(PathBuf);

impl BadList {
    /// Opens the list for a run that continues with this micro-batch. Lines of this and later micro-batches and an
    /// incomplete last line are removed.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn open(out: &Path, first: u64) -> Result<Self, TrainError> {
        let list = Self(out.join(LIST));
        let mut lines = read(&list.0)?;
        lines.retain(|line| line.batch.map_or(first > 0, |batch| batch < first));
        list.replace(&lines)?;
        Ok(list)
    }

    /// Appends lines.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn append(&self, found: &[Found]) -> Result<(), TrainError> {
        if found.is_empty() {
            return Ok(());
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(&lines_of(found)))
            .map_err(TrainError::io("write", &self.0))
    }

    /// Replaces all lines. Without lines, the file is removed.
    fn replace(&self, found: &[Found]) -> Result<(), TrainError> {
        if !found.is_empty() {
            return replace_file(&self.0, &lines_of(found), &create_file);
        }
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TrainError::io("remove", &self.0)(error))
            }
            _ => Ok(()),
        }
    }
}

fn lines_of(found: &[Found]) -> Vec<u8> {
    let line = |found: &Found| serde_json::json!(found).to_string() + "\n";
    found.iter().map(line).collect::<String>().into_bytes()
}

/// Reads the lines of a list, up to an incomplete one of a killed process.
fn read(path: &Path) -> Result<Vec<Found>, TrainError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text
            .lines()
            .map_while(|line| serde_json::from_str(line).ok())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(TrainError::io("read", path)(error)),
    }
}

/// The number of samples of a data set, and how many of them are left out.
#[derive(Clone, Debug)]
struct Count {
    path: PathBuf,
    samples: usize,
    /// Unusable samples found when the shards were opened.
    opened: Vec<BadSample>,
    bad: usize,
    first: Option<BadSample>,
}

/// Counts the samples that a run leaves out, while micro-batches are prepared.
#[derive(Debug)]
pub(crate) struct Skipped {
    list: PathBuf,
    /// Largest share of a data set that may be left out.
    limit: f64,
    sets: Vec<Count>,
    known: BTreeSet<(usize, usize)>,
    /// The micro-batch in preparation; `None` before the first.
    batch: Option<u64>,
    /// The samples that it found.
    found: Vec<Found>,
}

impl Skipped {
    /// The counter of the run in `out`.
    pub fn new(out: &Path, limit: f64) -> Self {
        Self {
            list: out.join(LIST),
            limit,
            sets: vec![],
            known: BTreeSet::new(),
            batch: None,
            found: vec![],
        }
    }

    /// Adds a data set with `samples` usable and `bad` unusable samples.
    pub fn add_set(&mut self, path: &Path, samples: usize, bad: &[BadSample]) {
        self.sets.push(Count {
            path: path.into(),
            samples: samples + bad.len(),
            opened: bad.to_vec(),
            bad: bad.len(),
            first: bad.first().cloned(),
        });
    }

    /// Fails before training starts if opening already found too many unusable samples.
    ///
    /// # Errors
    /// [`TrainError::BadSamples`]. The list is written unless another process is training into the folder.
    pub fn check_opened(&self) -> Result<(), TrainError> {
        let Err(error) = (0..self.sets.len()).try_for_each(|set| self.check(set)) else {
            return Ok(());
        };
        let out = self.list.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(out).map_err(TrainError::io("create", out))?;
        if let Ok(_lock) = crate::lock::lock(out) {
            BadList(self.list.clone()).replace(&self.opened())?;
        }
        Err(error)
    }

    /// Begins a micro-batch. If it does not follow the previous one, the count is restored from the list.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub fn begin(&mut self, batch: u64) -> Result<(), TrainError> {
        let follows = batch
            .checked_sub(1)
            .is_some_and(|last| self.batch == Some(last));
        self.batch = Some(batch);
        self.found.clear();
        if follows {
            return Ok(());
        }
        self.known.clear();
        for set in &mut self.sets {
            set.bad = set.opened.len();
            set.first = set.opened.first().cloned();
        }
        if batch == 0 {
            self.found = self.opened();
            return Ok(());
        }
        for line in read(&self.list)? {
            if let (Some(index), Some(met)) = (line.index, line.batch)
                && met < batch
            {
                self.count(line.set, index, &line.sample);
            }
        }
        Ok(())
    }

    /// Counts an unusable sample met by the micro-batch.
    ///
    /// # Errors
    /// [`TrainError::BadSamples`] if there are too many now.
    pub fn add(&mut self, set: usize, index: usize, sample: BadSample) -> Result<(), TrainError> {
        if !self.count(set, index, &sample) {
            return Ok(());
        }
        self.found.push(Found {
            set,
            index: Some(index),
            batch: self.batch,
            sample,
        });
        self.check(set)
    }

    /// Takes the samples found by this micro-batch. Micro-batch 0 also reports those found at opening.
    pub fn found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.found)
    }

    /// Number of samples left out so far, including those found at opening.
    pub fn total(&self) -> u64 {
        self.sets.iter().map(|set| set.bad as u64).sum()
    }

    /// Counts the sample once. Returns whether it is new.
    fn count(&mut self, set: usize, index: usize, sample: &BadSample) -> bool {
        let Some(count) = self.sets.get_mut(set) else {
            return false;
        };
        let new = self.known.insert((set, index));
        if new {
            count.bad += 1;
            count.first.get_or_insert_with(|| sample.clone());
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
            }) if *bad as f64 > self.limit * *samples as f64 => Err(TooManyBad {
                data: path.clone(),
                bad: *bad,
                samples: *samples,
                limit: self.limit,
                list: self.list.clone(),
                first: first.clone(),
                found: self.found.clone(),
            }
            .into()),
            _ => Ok(()),
        }
    }

    fn opened(&self) -> Vec<Found> {
        let found = |(set, count): (usize, &Count)| -> Vec<Found> {
            let line = |sample: &BadSample| Found {
                set,
                index: None,
                batch: None,
                sample: sample.clone(),
            };
            count.opened.iter().map(line).collect()
        };
        self.sets.iter().enumerate().flat_map(found).collect()
    }
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

    fn keys(found: &[Found]) -> Vec<&str> {
        found.iter().map(|line| line.sample.key.as_str()).collect()
    }

    fn listed(out: &Path) -> Vec<Found> {
        read(&out.join(LIST)).unwrap()
    }

    #[test]
    fn each_is_told_once_and_too_many_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut skipped = skipped(folder.path(), 0.02);
        skipped.check_opened().unwrap();
        skipped.begin(0).unwrap();
        skipped.add(0, 7, bad("seven")).unwrap();
        assert_eq!(keys(&skipped.found()), ["opened", "seven"]);
        skipped.begin(1).unwrap();
        skipped.add(0, 7, bad("seven")).unwrap();
        skipped.add(0, 8, bad("eight")).unwrap();
        assert_eq!(skipped.total(), 3);
        let error = skipped.add(0, 9, bad("nine")).unwrap_err();
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
        let TrainError::BadSamples(error) = error else {
            panic!("{error}");
        };
        assert_eq!(keys(&error.found), ["eight", "nine"]);
    }

    #[test]
    fn a_resumed_run_counts_what_the_original_had_counted() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let mut first = skipped(out, 0.5);
        let list = BadList::open(out, 0).unwrap();
        for (batch, set, index, key) in [(0, 0, 1, "one"), (1, 1, 2, "two"), (2, 0, 3, "three")] {
            first.begin(batch).unwrap();
            first.add(set, index, bad(key)).unwrap();
            list.append(&first.found()).unwrap();
        }
        let all = ["opened", "one", "two", "three"];
        assert_eq!(keys(&listed(out)), all);
        // Killed while writing.
        let text = fs::read_to_string(out.join(LIST)).unwrap();
        fs::write(out.join(LIST), format!("{text}{{\"set\":0,\"ind")).unwrap();

        let list = BadList::open(out, 2).unwrap();
        assert_eq!(keys(&listed(out)), all[..3]);
        let mut second = skipped(out, 0.5);
        second.begin(2).unwrap();
        assert_eq!(second.total(), 3);
        second.add(0, 1, bad("one")).unwrap();
        second.add(0, 3, bad("three")).unwrap();
        list.append(&second.found()).unwrap();
        assert_eq!((keys(&listed(out)), second.total()), (all.to_vec(), 4));
        // A run from the beginning drops all lines.
        BadList::open(out, 0).unwrap();
        assert!(!out.join(LIST).exists());
    }

    #[test]
    fn what_is_found_at_opening_may_be_too_much() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let error = skipped(&out, 0.005).check_opened().unwrap_err();
        assert!(error.to_string().contains("data/b"), "{error}");
        assert_eq!(keys(&listed(&out)), ["opened"]);
        assert!(skipped(&out, 0.01).check_opened().is_ok(), "1 of 100 is 1%");
    }

    #[test]
    fn clean_data_leave_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let mut skipped = Skipped::new(folder.path(), 0.0);
        skipped.add_set(Path::new("data"), 3, &[]);
        let list = BadList::open(folder.path(), 5).unwrap();
        skipped.begin(5).unwrap();
        list.append(&skipped.found()).unwrap();
        assert!(!folder.path().join(LIST).exists());
    }
}
