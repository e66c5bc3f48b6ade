//! The Frechet distance of two sets of pictures, by the features of whatever network computed them.
//!
//! Only with the features of the Inception network of 2015-12-05 is it a FID. Here it is never called so: its name is that of
//! the network.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::EvalError;
use super::evaluate::Evaluated;
use super::features::{FeatureIndex, Unscaled};
use super::figure::Measured;
use super::files::sha256;
use super::model::{Media, MediaKind, Model};
use super::outputs;
use super::problems::{ProblemKind, Problems};
use super::progress::Progress;
use super::result::{Counted, FORMAT, Metric, TaskResult};
use crate::score::frechet::{Collector, Statistics, distance};

/// Endings of pictures.
const PICTURES: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];
/// Pictures that the model gets at once.
const BATCH: usize = 8;
/// Stands for a preset.
const PRESET: &str = "no prompts";

/// One of the two sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureSource {
    /// A file of features, in the layout of [`FeatureIndex`].
    File(PathBuf),
    /// A folder of pictures and its subfolders; the model computes the features.
    Folder(PathBuf),
}

impl FeatureSource {
    /// A folder, or else a file of features.
    pub fn at(path: &Path) -> Self {
        match path.is_dir() {
            true => Self::Folder(path.to_owned()),
            false => Self::File(path.to_owned()),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Folder(path) => path,
        }
    }

    /// Its name in results: without the folders above it.
    fn name(&self) -> String {
        let name = self.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

/// A set of features.
struct Set {
    model: String,
    statistics: Statistics,
    names: Vec<String>,
    unreadable: Vec<String>,
    dim: usize,
}

/// Computes the Frechet distance of two sets, and writes the files of a task into `out`; features of folders are kept there, and
/// an interrupted computation continues. `model` computes the features of folders.
///
/// # Errors
/// If a file or folder cannot be read, the two sets are of different networks, or one has fewer than two pictures.
pub fn frechet(
    sources: [&FeatureSource; 2],
    model: &mut dyn Model,
    out: &Path,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Evaluated, EvalError> {
    let [a, b] = sources;
    let a_set = set(a, model, &out.join("data.features"), progress)?;
    let b_set = set(b, model, &out.join("against.features"), progress)?;
    let differ = |what: &str, one: &dyn std::fmt::Display, other: &dyn std::fmt::Display| {
        EvalError::Scores {
            task: Measured::Frechet.name(),
            reason: format!(
                "the features of {} and {} have different {what}: {one} and {other}. Compare features of one network",
                a.name(),
                b.name()
            ),
        }
    };
    if a_set.model != b_set.model {
        return Err(differ("networks", &a_set.model, &b_set.model));
    }
    if a_set.dim != b_set.dim {
        return Err(differ("lengths", &a_set.dim, &b_set.dim));
    }
    let value =
        distance(&a_set.statistics, &b_set.statistics).map_err(|error| EvalError::Scores {
            task: Measured::Frechet.name(),
            reason: error.to_string(),
        })?;
    // Rounding brings that of equal sets slightly below 0.
    let value = if value < 0.0 { 0.0 } else { value };
    let result = result(sources, &a_set, &b_set, value);
    let files = outputs::write(&result, &[], &[], &[], out, &mut |_| None)?;
    Ok(Evaluated {
        result,
        submission: None,
        files,
    })
}

fn result([a, b]: [&FeatureSource; 2], a_set: &Set, b_set: &Set, value: f64) -> TaskResult {
    let mut problems = Problems::default();
    let counts = [a_set, b_set].map(|set| set.names.len() - set.unreadable.len());
    for name in a_set.unreadable.iter().chain(&b_set.unreadable) {
        problems.note(ProblemKind::UnreadableMedia, name);
    }
    let (official, scored) = (
        a_set.names.len() + b_set.names.len(),
        counts.iter().sum::<usize>(),
    );
    let hash = |set: &Set| sha256(set.names.iter().map(String::as_str));
    let mut notes = vec![format!(
        "This is no FID: the features are those of {}. It is comparable only with distances by the same network, of the same \
             numbers of pictures ({} and {}), because the distance falls as they grow.",
        a_set.model, counts[0], counts[1]
    )];
    if counts.iter().any(|count| *count <= a_set.dim) {
        notes.push(format!(
            "A set has no more pictures than features ({}): its covariance is not of full rank.",
            a_set.dim
        ));
    }
    TaskResult {
        format: FORMAT,
        task: Measured::Frechet,
        split: format!("{} against {}", a.name(), b.name()),
        model: a_set.model.clone(),
        preset: PRESET.to_owned(),
        settings: json!({
            "data": {"name": a.name(), "pictures": counts[0], "names_sha256": hash(a_set)},
            "against": {"name": b.name(), "pictures": counts[1], "names_sha256": hash(b_set)},
            "features": a_set.dim,
        }),
        questions: Counted {
            official,
            usable: scored,
            asked: official,
            answered: scored,
            scored,
        },
        complete: scored == official,
        metrics: vec![Metric {
            name: format!("Frechet distance (features of {})", a_set.model),
            value,
            interval: None,
            questions: scored,
            note: None,
        }],
        groups: vec![],
        problems,
        published: vec![],
        paper_metric: None,
        notes,
    }
}

fn set(
    source: &FeatureSource,
    model: &mut dyn Model,
    index: &Path,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Set, EvalError> {
    let path = match source {
        FeatureSource::File(path) => path.as_path(),
        FeatureSource::Folder(folder) => {
            let media = pictures(folder)?;
            let media: Vec<&Media> = media.iter().collect();
            FeatureIndex::build(index, model, &media, BATCH, progress)?;
            index
        }
    };
    let Unscaled { model, rows } = FeatureIndex::unscaled(path)?;
    let fault = |error: crate::score::ScoreError| EvalError::Index {
        path: path.to_owned(),
        reason: error.to_string().trim_end_matches('.').to_owned(),
    };
    let dim = rows.iter().find_map(|(_, row)| Some(row.as_ref()?.len()));
    let mut collector = Collector::new(dim.unwrap_or(0));
    let (mut names, mut unreadable) = (vec![], vec![]);
    for (name, row) in rows {
        match row {
            Some(row) => collector.add(&row).map_err(fault)?,
            None => unreadable.push(name.clone()),
        }
        names.push(name);
    }
    Ok(Set {
        model,
        statistics: collector.finish().map_err(fault)?,
        names,
        unreadable,
        dim: dim.unwrap_or(0),
    })
}

/// The pictures of a folder and its subfolders, in the order of their names.
fn pictures(folder: &Path) -> Result<Vec<Media>, EvalError> {
    let mut found = vec![];
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).map_err(EvalError::io("read", &next))? {
            let path = entry.map_err(EvalError::io("read", &next))?.path();
            let ending = path
                .extension()
                .map(|ending| ending.to_string_lossy().to_lowercase());
            if path.is_dir() {
                open.push(path);
            } else if ending.is_some_and(|ending| PICTURES.contains(&ending.as_str())) {
                let name = path.strip_prefix(folder).unwrap_or(&path);
                let parts: Vec<_> = { name.components() }
                    .map(|part| part.as_os_str().to_string_lossy())
                    .collect();
                found.push(Media {
                    kind: MediaKind::Picture,
                    name: parts.join("/"),
                    path,
                });
            }
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(EvalError::NoFile {
            what: "pictures".to_owned(),
            folder: folder.to_owned(),
            names: PICTURES.map(|ending| format!("*.{ending}")).join(", "),
        }),
        false => Ok(found),
    }
}
