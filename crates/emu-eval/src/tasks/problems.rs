//! Faults of single records: named and counted, so that none becomes a wrong score.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How many records of a kind are named; further ones are only counted.
const NAMED: usize = 20;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The picture or video is not there.
    MissingMedia,
    /// The model could not read the picture or video.
    UnreadableMedia,
    /// A sample of a shard could not be read.
    Unreadable,
    /// The same record twice.
    Duplicate,
    /// Two different records with one id.
    Conflict,
    /// A reference or annotation for an id that the questions do not have.
    UnknownId,
    /// A question without the references that it needs for a score.
    NoReference,
    /// A field is null or missing.
    Null,
    /// A field holds only white space.
    Blank,
    /// An index points outside of its list, or a list has the wrong length.
    BadIndex,
}

impl ProblemKind {
    /// What happened, and what was done about it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::MissingMedia => "picture or video not found: question left out",
            Self::UnreadableMedia => "picture or video not readable: question not scored",
            Self::Unreadable => "sample not readable: left out",
            Self::Duplicate => "record repeated: used once",
            Self::Conflict => "different records with the same id: left out",
            Self::UnknownId => "reference for an id that no question has: ignored",
            Self::NoReference => "question without a usable reference: left out",
            Self::Null => "field null or missing: record left out",
            Self::Blank => "text blank: record left out",
            Self::BadIndex => "index or length out of range: record left out",
        }
    }
}

/// The records of one kind of problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub named: Vec<String>,
}

/// All problems of a data set or run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems(BTreeMap<ProblemKind, Records>);

impl Problems {
    /// Counts a record, and names it if it is among the first.
    pub fn note(&mut self, kind: ProblemKind, record: impl Into<String>) {
        let records = self.0.entry(kind).or_default();
        records.count += 1;
        if records.named.len() < NAMED {
            records.named.push(record.into());
        }
    }

    /// Adds the problems of another list.
    pub fn absorb(&mut self, other: &Self) {
        for (kind, records) in &other.0 {
            let mine = self.0.entry(*kind).or_default();
            mine.count += records.count;
            let room = NAMED.saturating_sub(mine.named.len());
            mine.named.extend(records.named.iter().take(room).cloned());
        }
    }

    /// The number of records of a kind.
    pub fn count(&self, kind: ProblemKind) -> usize {
        self.0.get(&kind).map_or(0, |records| records.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Kinds and records, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (ProblemKind, &Records)> {
        self.0.iter().map(|(kind, records)| (*kind, records))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no problem was found in the files");
        }
        for (i, (kind, records)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "; " };
            let first = records.named.first().map_or("", String::as_str);
            write!(
                f,
                "{comma}{} x {} (first: {first})",
                records.count,
                kind.meaning()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_are_named() {
        let mut problems = Problems::default();
        assert!(problems.is_empty());
        for i in 0..NAMED + 5 {
            problems.note(ProblemKind::Null, format!("q{i}"));
        }
        let mut more = Problems::default();
        more.note(ProblemKind::Null, "other");
        more.note(ProblemKind::Conflict, "q1");
        problems.absorb(&more);
        assert_eq!(problems.count(ProblemKind::Null), NAMED + 6);
        assert_eq!(problems.count(ProblemKind::Conflict), 1);
        assert_eq!(problems.count(ProblemKind::Blank), 0);
        let (_, nulls) = problems
            .iter()
            .find(|(kind, _)| *kind == ProblemKind::Null)
            .expect("nulls");
        assert_eq!((nulls.named.len(), nulls.named[0].as_str()), (NAMED, "q0"));
        let words = problems.to_string();
        assert!(
            words.contains("26 x field null or missing") || words.contains("25 x"),
            "{words}"
        );
        assert!(words.contains("first: q0"), "{words}");
    }
}
