//! Reads the folder of a run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Maximum bytes of a line of `metrics.jsonl`. A longer one is counted as unreadable.
const MAX_LINE: u64 = 1 << 20;
/// Maximum number of steps whose samples are shown: evenly spaced ones, the last among them.
const MAX_SAMPLED: usize = 12;
/// Maximum bytes of one sample, and of all samples of a run.
const MAX_SAMPLE: u64 = 4 << 20;
const MAX_SAMPLES: u64 = 24 << 20;

/// Why a run cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The folder is not that of a run.
    #[error(
        "{} has no metrics.jsonl. Name the folder of a training run: `out` of its configuration.",
        .0.display()
    )]
    NotARun(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read ({source}). Check its permissions.", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A figure over the steps of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Its finite values by step, in order.
    pub points: Vec<(u64, f64)>,
    /// Number of steps at which it was no finite number.
    pub not_finite: usize,
}

/// A sample that the run wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// File name.
    pub name: String,
    /// Its content.
    pub shown: Shown,
}

/// The content of a sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// A picture: its MIME type and bytes.
    Picture(&'static str, Vec<u8>),
    /// A text.
    Text(String),
    /// Left out, and why.
    Nothing(&'static str),
}

/// A run as far as it went.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Its folder.
    pub name: String,
    /// Its stage; empty before the first checkpoint.
    pub stage: String,
    /// Number of steps with metrics.
    pub steps: u64,
    /// Seconds of training, over all processes of the run.
    pub seconds: f64,
    /// Number of samples that were left out as unusable.
    pub bad_samples: u64,
    /// Figures in the order in which they first occur: losses, rates, speed, evaluations.
    pub curves: Vec<(String, Curve)>,
    /// Settings of the latest checkpoint, by key.
    pub settings: BTreeMap<String, String>,
    /// Warnings, and settings that a resumed run changed, by step.
    pub notes: Vec<(u64, String)>,
    /// Steps of the checkpoints.
    pub checkpoints: Vec<u64>,
    /// Name of the best checkpoint, if the run keeps one.
    pub best: Option<String>,
    /// Samples by step.
    pub samples: Vec<(u64, Vec<Sample>)>,
    /// Number of sampled steps that are not shown.
    pub unshown: usize,
    /// Number of lines of metrics that are not readable.
    pub unreadable: usize,
}

impl Run {
    /// Reads a run. It may be in progress: an incomplete last line is left out.
    ///
    /// # Errors
    /// [`ReportError`]. Files that a run may lack are not missed.
    pub fn open(folder: &Path) -> Result<Self, ReportError> {
        let path = folder.join("metrics.jsonl");
        if !path.is_file() {
            return Err(ReportError::NotARun(folder.into()));
        }
        let mut run = Self {
            name: folder.display().to_string(),
            ..Self::default()
        };
        let file = File::open(&path).map_err(io(&path))?;
        run.read_metrics(BufReader::new(file)).map_err(io(&path))?;
        run.read_state(folder);
        let mut notes = read_notes(&folder.join("changes.jsonl"));
        run.notes.append(&mut notes);
        run.notes.sort();
        run.read_samples(&folder.join("samples"))?;
        Ok(run)
    }

    /// The figure of this name.
    pub fn curve(&self, name: &str) -> Option<&Curve> {
        self.curves
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, curve)| curve)
    }

    fn read_metrics(&mut self, mut lines: impl BufRead) -> std::io::Result<()> {
        let mut line = vec![];
        loop {
            line.clear();
            let n = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            if n == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                if n as u64 == MAX_LINE {
                    self.unreadable += 1;
                    skip_line(&mut lines)?;
                }
                // Otherwise the line is still being written.
                continue;
            }
            match serde_json::from_slice::<Value>(&line) {
                Ok(step) if step["step"].is_u64() => self.push(&step),
                _ => self.unreadable += 1,
            }
        }
    }

    /// Adds the figures of a step. A step that is repeated, after a resume, replaces what followed it.
    fn push(&mut self, metrics: &Value) {
        let Some(step) = metrics["step"].as_u64() else {
            return;
        };
        if step < self.steps {
            for (_, curve) in &mut self.curves {
                curve.points.retain(|(at, _)| *at < step);
            }
            self.notes.retain(|(at, _)| *at < step);
        }
        self.steps = step + 1;
        self.seconds = metrics["seconds"].as_f64().unwrap_or(self.seconds);
        self.bad_samples = metrics["bad_samples"].as_u64().unwrap_or(self.bad_samples);
        if let Some(warning) = metrics["warning"].as_str() {
            self.notes.push((step, warning.into()));
        }
        let single = [
            ("loss", "loss"),
            ("gradient norm", "grad_norm"),
            ("samples/s", "samples_per_s"),
        ];
        for (name, key) in single {
            if let Some(value) = metrics.get(key) {
                self.add(name.into(), step, value);
            }
        }
        let groups = [("loss: ", "terms"), ("rate: ", "lr"), ("", "eval")];
        for (prefix, key) in groups {
            for (part, value) in metrics[key].as_object().into_iter().flatten() {
                let part = if part.is_empty() { "rest" } else { part };
                self.add(format!("{prefix}{part}"), step, value);
            }
        }
    }

    fn add(&mut self, name: String, step: u64, value: &Value) {
        let at = self.curves.iter().position(|(other, _)| *other == name);
        let at = at.unwrap_or_else(|| {
            self.curves.push((name, Curve::default()));
            self.curves.len() - 1
        });
        let Some((_, curve)) = self.curves.get_mut(at) else {
            return;
        };
        // JSON has no NaN: it is written as `null`.
        match value.as_f64() {
            Some(value) => curve.points.push((step, value)),
            None => curve.not_finite += 1,
        }
    }

    /// Reads settings and checkpoints, if there are any.
    fn read_state(&mut self, folder: &Path) {
        let name = |file: &str| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            Some(text.trim().to_owned()).filter(|name| !name.contains(['/', '\\']))
        };
        self.best = name("best");
        self.checkpoints = folders(folder)
            .iter()
            .filter_map(|name| name.strip_prefix("step-")?.parse().ok())
            .collect();
        self.checkpoints.sort_unstable();
        let Some(latest) = name("latest") else {
            return;
        };
        let state = fs::read(folder.join(latest).join("state.json"));
        let state: Value = { state.ok() }
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        self.stage = state["stage"].as_str().unwrap_or_default().to_owned();
        for (key, value) in state["config"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), Into::into);
            self.settings.insert(key.clone(), value);
        }
    }

    fn read_samples(&mut self, folder: &Path) -> Result<(), ReportError> {
        let steps = folders(folder).into_iter();
        let steps = steps.filter_map(|name| Some((name.parse::<u64>().ok()?, name)));
        let steps: BTreeMap<u64, String> = steps.collect();
        let wanted = evenly(steps.len(), MAX_SAMPLED);
        self.unshown = steps.len() - wanted.len();
        let mut left = MAX_SAMPLES;
        for (i, (step, name)) in steps.into_iter().enumerate() {
            if wanted.contains(&i) {
                let samples = read_folder(&folder.join(name), &mut left)?;
                self.samples.push((step, samples));
            }
        }
        Ok(())
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ReportError {
    |source| ReportError::Io {
        path: path.into(),
        source,
    }
}

/// Reads to the end of a line, without keeping it.
fn skip_line(lines: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let n = end.map_or(buffer.len(), |at| at + 1);
        lines.consume(n);
        if end.is_some() || n == 0 {
            return Ok(());
        }
    }
}

/// Names of the folders in a folder; none if it does not exist.
fn folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Settings that resumed runs changed.
fn read_notes(path: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = { text.lines() }.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter_map(|line| {
            let changes = line["changes"].as_str()?;
            Some((line["step"].as_u64()?, format!("resumed with {changes}")))
        })
        .collect()
}

/// At most `most` of `count` indices, evenly spaced, the first and the last among them.
fn evenly(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| i * (count - 1) / (most - 1)).collect()
}

fn read_folder(folder: &Path, left: &mut u64) -> Result<Vec<Sample>, ReportError> {
    let entries = fs::read_dir(folder).map_err(io(folder))?.flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let bytes = fs::metadata(&path).map_err(io(&path))?.len();
        let kind = path.extension().and_then(|kind| kind.to_str());
        let mime = match kind {
            Some("png") => Some("image/png"),
            Some("jpg" | "jpeg") => Some("image/jpeg"),
            Some("gif") => Some("image/gif"),
            Some("webp") => Some("image/webp"),
            _ => None,
        };
        let shown = match (mime, kind) {
            _ if bytes > MAX_SAMPLE || bytes > *left => Shown::Nothing("it is too large"),
            (Some(mime), _) => Shown::Picture(mime, fs::read(&path).map_err(io(&path))?),
            (None, Some("txt" | "md" | "json" | "jsonl" | "csv")) => {
                let text = fs::read(&path).map_err(io(&path))?;
                Shown::Text(String::from_utf8_lossy(&text).into_owned())
            }
            _ => Shown::Nothing("it is neither a picture nor a text"),
        };
        if !matches!(shown, Shown::Nothing(_)) {
            *left -= bytes;
        }
        Ok(Sample { name, shown })
    };
    paths.into_iter().map(read).collect()
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
