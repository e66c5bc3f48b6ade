//! Counts of what was kept and skipped, and why.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a candidate (or a picture of one) is not used: a reason to count by, and the details of this case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub reason: Cow<'static, str>,
    pub detail: String,
}

impl Skip {
    pub fn new(reason: impl Into<Cow<'static, str>>, detail: impl ToString) -> Self {
        Self {
            reason: reason.into(),
            detail: detail.to_string(),
        }
    }

    /// A reason that says everything.
    pub fn plain(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(reason, "")
    }
}

/// How often something happened, and the first cases by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of cases.
    pub count: usize,
    /// The first cases: the candidate's name, with details.
    pub examples: Vec<String>,
}

/// Number of examples kept for each reason.
const EXAMPLES: usize = 3;

impl Count {
    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples
            .extend(other.examples.iter().take(room).cloned());
    }
}

/// Counts of a shard or of a whole build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Samples written.
    pub kept: usize,
    /// Pictures written.
    pub pictures: usize,
    /// Candidates that were not used, by reason.
    pub skipped: BTreeMap<String, Count>,
    /// Pictures left out of samples that were kept, by reason.
    pub dropped: BTreeMap<String, Count>,
    /// Number of samples by the number of words of their texts.
    pub words: BTreeMap<usize, usize>,
}

impl Tally {
    pub(crate) fn skip(&mut self, source: &str, skip: &Skip) {
        note(&mut self.skipped, source, skip);
    }

    pub(crate) fn drop_picture(&mut self, source: &str, skip: &Skip) {
        note(&mut self.dropped, source, skip);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.kept += other.kept;
        self.pictures += other.pictures;
        for (mine, others) in [
            (&mut self.skipped, &other.skipped),
            (&mut self.dropped, &other.dropped),
        ] {
            for (reason, count) in others {
                mine.entry(reason.clone()).or_default().merge(count);
            }
        }
        for (words, samples) in &other.words {
            *self.words.entry(*words).or_default() += samples;
        }
    }

    /// Number of candidates that were not used.
    pub fn skipped_total(&self) -> usize {
        self.skipped.values().map(|count| count.count).sum()
    }

    /// The number of words that this share of the samples does not exceed. `None` without samples.
    pub fn words_at(&self, share: f64) -> Option<usize> {
        let total: usize = self.words.values().sum();
        let wanted = ((total as f64 * share).ceil() as usize).clamp(1, total.max(1));
        let mut below = 0;
        self.words.iter().find_map(|(words, samples)| {
            below += samples;
            (below >= wanted).then_some(*words)
        })
    }
}

fn note(map: &mut BTreeMap<String, Count>, source: &str, skip: &Skip) {
    let example = match skip.detail.as_str() {
        "" => source.to_string(),
        detail => format!("{source}: {}", detail.trim_end_matches('.')),
    };
    let one = Count {
        count: 1,
        examples: vec![example],
    };
    map.entry(skip.reason.to_string()).or_default().merge(&one);
}

/// The result of a build; its `Display` form is for a terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Kind of the samples ("pairs").
    pub kind: String,
    /// What was kept and what not.
    pub tally: Tally,
    /// Samples of each split.
    pub splits: BTreeMap<String, usize>,
    /// Number of shards.
    pub shards: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            tally,
            splits,
            shards,
            bytes,
        } = self;
        let splits: Vec<String> = splits
            .iter()
            .map(|(split, samples)| format!("{split} {samples}"))
            .collect();
        writeln!(
            f,
            "{kind}: {} kept ({}) with {}, in {} of {} in all",
            counted(tally.kept, "sample"),
            splits.join(", "),
            counted(tally.pictures, "picture"),
            counted(*shards, "shard"),
            size(*bytes)
        )?;
        if let (Some(least), Some(median), Some(most), Some(longest)) = (
            tally.words_at(0.0),
            tally.words_at(0.5),
            tally.words_at(0.95),
            tally.words_at(1.0),
        ) {
            writeln!(
                f,
                "words of a sample: {least} at least, {median} in the middle, {most} at 95%, {longest} at most"
            )?;
        }
        for (title, counts) in [
            ("skipped", &tally.skipped),
            ("pictures left out", &tally.dropped),
        ] {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(count.count));
            let total: usize = counts.iter().map(|(_, count)| count.count).sum();
            if total > 0 {
                writeln!(f, "{title}: {total}")?;
            }
            for (reason, count) in counts {
                writeln!(f, "  {:8}  {reason}", count.count)?;
                for example in &count.examples {
                    writeln!(f, "            {example}")?;
                }
            }
        }
        Ok(())
    }
}

/// "1 sample", "2 samples".
fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

/// "507 kB", "1.2 MB".
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(kept: &[usize], reasons: &[(&'static str, &str)]) -> Tally {
        let mut tally = Tally {
            kept: kept.len(),
            ..Tally::default()
        };
        for words in kept {
            *tally.words.entry(*words).or_default() += 1;
        }
        for (reason, source) in reasons {
            tally.skip(source, &Skip::new(*reason, "why."));
        }
        tally
    }

    #[test]
    fn merging_adds_and_keeps_the_first_examples() {
        let mut all = tally(&[3, 5], &[("a", "1"), ("a", "2")]);
        all.merge(&tally(&[5, 9], &[("a", "3"), ("a", "4"), ("b", "5")]));
        assert_eq!((all.kept, all.skipped_total()), (4, 5));
        assert_eq!(all.skipped["a"].count, 4);
        assert_eq!(all.skipped["a"].examples, ["1: why", "2: why", "3: why"]);
        let quantiles = [0.0, 0.5, 0.75, 1.0].map(|share| all.words_at(share));
        assert_eq!(quantiles, [3, 5, 5, 9].map(Some));
        assert_eq!(Tally::default().words_at(0.5), None);
    }
    #[test]
    fn the_first_line_counts_in_words() {
        let report = |kept: usize, shards: usize, bytes: u64| Report {
            kind: "instruct".into(),
            tally: Tally {
                kept,
                pictures: kept,
                ..Tally::default()
            },
            splits: BTreeMap::from([("train".to_string(), kept)]),
            shards,
            bytes,
        };
        assert_eq!(
            report(1, 1, 10_240).to_string(),
            "instruct: 1 sample kept (train 1) with 1 picture, in 1 shard of 11 kB in all\n"
        );
        assert_eq!(
            report(2, 2, 1_240_000).to_string(),
            "instruct: 2 samples kept (train 2) with 2 pictures, in 2 shards of 1.2 MB in all\n"
        );
    }
}
