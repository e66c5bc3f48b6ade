//! Recorded results of the original programs, compared with this crate's scorers.
//!
//! A folder of goldens has the files of [`FILES`], any of which may be missing. Each holds inputs, and what the original
//! program made of them. [`run`] compares every number and text in them.

mod captions;
mod compare;
mod layout;
mod numbers;
mod vqa;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use compare::Case;

use compare::Comparison;
use layout::Layout;

/// Compares what one file holds.
type Run = fn(&str, &mut Comparison) -> Result<(), Layout>;

/// The files that are known, and what compares them.
const RUNS: [(&str, Run); 7] = [
    ("captions.json", captions::texts),
    ("captions_pretokenized.json", captions::tokens),
    ("ptb_tokens.json", captions::ptb),
    ("vqa.json", vqa::accuracies),
    ("vqa_contractions.json", vqa::contractions),
    ("visdial.json", numbers::visdial),
    ("frechet.json", numbers::frechet),
];

/// Names of the files that are known.
pub const FILES: [&str; 7] = {
    let mut names = [""; 7];
    let mut at = 0;
    while at < 7 {
        names[at] = RUNS[at].0;
        at += 1;
    }
    names
};

/// Why goldens could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoldenError {
    /// The folder or a file in it cannot be read.
    #[error("{} cannot be read: {error}. Give a folder of recorded scores.", .path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// No known file.
    #[error("There are no recorded scores: none of the files {} was found. Give the folder that contains them.", FILES.join(", "))]
    Nothing,
    /// A file has another layout.
    #[error(
        "{file} has an unknown layout: {reason}. Use recorded scores of the layout in tests/fixtures/scorers."
    )]
    Layout {
        /// The file.
        file: String,
        /// What is missing or wrong in it.
        reason: String,
    },
}

/// A file that was not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// All comparisons of a folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// In the order of [`FILES`].
    pub cases: Vec<Case>,
    /// Files that are missing or unknown.
    pub skipped: Vec<Skipped>,
}

impl Report {
    /// Number of comparisons.
    pub fn compared(&self) -> usize {
        self.cases.len()
    }

    /// Number of comparisons that failed.
    pub fn failed(&self) -> usize {
        self.cases.iter().filter(|case| !case.passed).count()
    }
}

/// The report for a terminal. Its last line is `N compared, M failed`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in FILES {
            let cases: Vec<&Case> = self.cases.iter().filter(|case| case.file == file).collect();
            if cases.is_empty() {
                continue;
            }
            let failed = cases.iter().filter(|case| !case.passed).count();
            let worst = cases
                .iter()
                .filter(|case| case.passed && case.detail.is_none());
            let worst = worst.map(|case| case.error).fold(0.0, f64::max);
            writeln!(
                f,
                "{file}: {} compared, {failed} failed, greatest error within bounds {worst:.1e}",
                cases.len()
            )?;
            for case in cases.iter().filter(|case| case.detail.is_some()) {
                let word = if case.passed { "allowed" } else { "FAILED" };
                let detail = case.detail.as_deref().unwrap_or_default();
                writeln!(
                    f,
                    "  {word} {}: error {:.3e}, bound {:.0e}; {detail}",
                    case.name, case.error, case.bound
                )?;
            }
        }
        for skipped in &self.skipped {
            writeln!(f, "{}: skipped, {}", skipped.file, skipped.reason)?;
        }
        write!(f, "{} compared, {} failed", self.compared(), self.failed())
    }
}

/// Compares all goldens in a folder.
///
/// # Errors
/// The folder or a file cannot be read, no known file is there, or a known file has another layout.
pub fn run(folder: &Path) -> Result<Report, GoldenError> {
    let read_error = |path: &Path, error| GoldenError::Read {
        path: path.to_path_buf(),
        error,
    };
    let mut texts = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|error| read_error(folder, error))? {
        let path = entry.map_err(|error| read_error(folder, error))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|name| name.ends_with(".json") && path.is_file()) {
            let text = std::fs::read_to_string(&path).map_err(|error| read_error(&path, error))?;
            texts.insert(name, text);
        }
    }
    compare(&texts)
}

/// Compares goldens by the names of their files. For callers without a file system.
///
/// # Errors
/// No known file, or one with another layout.
pub fn compare(texts: &BTreeMap<String, String>) -> Result<Report, GoldenError> {
    let mut report = Report {
        cases: Vec::new(),
        skipped: Vec::new(),
    };
    for (file, run) in RUNS {
        let Some(text) = texts.get(file) else {
            report.skipped.push(Skipped {
                file: file.into(),
                reason: "the file is missing".into(),
            });
            continue;
        };
        let mut comparison = Comparison::new(file);
        run(text, &mut comparison).map_err(|Layout(reason)| GoldenError::Layout {
            file: file.into(),
            reason,
        })?;
        if comparison.cases.is_empty() {
            return Err(GoldenError::Layout {
                file: file.into(),
                reason: "it contains no case".into(),
            });
        }
        report.cases.append(&mut comparison.cases);
    }
    if report.cases.is_empty() {
        return Err(GoldenError::Nothing);
    }
    let unknown = texts.keys().filter(|name| !FILES.contains(&name.as_str()));
    report.skipped.extend(unknown.map(|name| Skipped {
        file: name.clone(),
        reason: "no scorer knows it".into(),
    }));
    Ok(report)
}
