//! `metrics.jsonl`: one line per step, without duplicates.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Metrics of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// The step, counted from 0.
    pub step: u64,
    /// The loss, averaged over the step's micro-batches.
    #[serde(deserialize_with = "number")]
    pub loss: f32,
    /// Loss terms and other figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pairs")]
    pub terms: Vec<(String, f32)>,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "number")]
    pub grad_norm: f32,
    /// Learning rate of each part (`""` is the rest).
    #[serde(with = "pairs")]
    pub lr: Vec<(String, f64)>,
    /// Samples per second in this step.
    pub samples_per_s: f32,
    /// Seconds of training so far, over all processes of the run.
    pub seconds: f64,
    /// Number of unusable samples left out so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_samples: u64,
    /// A warning raised at this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Results of an evaluation after this step.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "pairs")]
    pub eval: Vec<(String, f32)>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Reads a number. JSON has none for what is not finite: such a figure is written as `null`, and read as NaN.
fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f32::NAN))
}

/// Serialises (name, number) pairs as a JSON object, in order. A number that is not finite becomes `null`, and NaN when
/// it is read.
mod pairs {
    use serde::de::{MapAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, T: Serialize>(
        pairs: &[(String, T)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(pairs.iter().map(|(name, value)| (name, value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de> + From<f32>>(
        from: D,
    ) -> Result<Vec<(String, T)>, D::Error> {
        struct Pairs<T>(core::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de> + From<f32>> Visitor<'de> for Pairs<T> {
            type Value = Vec<(String, T)>;

            fn expecting(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<_, Option<T>>()? {
                    pairs.push((name, value.unwrap_or_else(|| T::from(f32::NAN))));
                }
                Ok(pairs)
            }
        }
        from.deserialize_map(Pairs(core::marker::PhantomData))
    }
}

/// The open file.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    out: BufWriter<File>,
    bytes: u64,
}

impl MetricsFile {
    /// Opens `metrics.jsonl` of a run that has made `step` steps. Lines of later steps and an incomplete last line are
    /// removed. Returns the remaining lines.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open(path: &Path, step: u64) -> Result<(Self, Vec<StepMetrics>), TrainError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .append(true)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        let (mut kept, mut bytes) = (Vec::new(), 0);
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = reader
                .read_until(b'\n', &mut line)
                .map_err(TrainError::io("read", path))?;
            if n == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let Ok(metrics) = serde_json::from_slice::<StepMetrics>(&line) else {
                break;
            };
            if metrics.step >= step {
                break;
            }
            bytes += n as u64;
            kept.push(metrics);
        }
        file.set_len(bytes)
            .map_err(TrainError::io("truncate", path))?;
        Ok((
            Self {
                path: path.into(),
                out: BufWriter::new(file),
                bytes,
            },
            kept,
        ))
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`TrainError::DiskFull`], [`TrainError::Io`].
    pub fn write(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(metrics).map_err(|e| TrainError::other("json", e))?;
        line.push(b'\n');
        self.out
            .write_all(&line)
            .and_then(|()| self.out.flush())
            .map_err(TrainError::io("write", &self.path))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Flushes all lines to disk. Returns the file length in bytes.
    ///
    /// # Errors
    /// [`TrainError::DiskFull`], [`TrainError::Io`].
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        self.out
            .get_ref()
            .sync_data()
            .map_err(TrainError::io("write", &self.path))?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn metrics(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            loss: 0.5,
            terms: vec![
                ("text".into(), 0.25),
                ("image".into(), f32::from_bits(0x3e99_999a)),
            ],
            grad_norm: 1.5,
            lr: vec![(String::new(), 1e-3), ("lm".into(), 5e-4)],
            samples_per_s: 70.0,
            seconds: 3.25,
            bad_samples: step / 2,
            warning: (step == 2).then(|| "it diverges".into()),
            eval: vec![],
        }
    }

    #[test]
    fn figures_that_are_not_finite_cut_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let (mut file, _) = MetricsFile::open(&path, 0).unwrap();
        let mut odd = metrics(0);
        odd.loss = f32::INFINITY;
        odd.grad_norm = f32::NAN;
        odd.eval = vec![("held.loss".into(), f32::NAN), ("held.acc".into(), 0.5)];
        file.write(&odd).unwrap();
        file.write(&metrics(1)).unwrap();
        drop(file);

        let (_, kept) = MetricsFile::open(&path, 2).unwrap();
        let [first, second] = &*kept else {
            panic!("two lines, not {kept:?}")
        };
        assert!(first.loss.is_nan() && first.grad_norm.is_nan() && first.eval[0].1.is_nan());
        assert_eq!(first.eval[1], ("held.acc".into(), 0.5));
        assert_eq!(*second, metrics(1));
    }

    #[test]
    fn lines_come_back_and_later_steps_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let (mut file, kept) = MetricsFile::open(&path, 0).unwrap();
        assert!(kept.is_empty());
        (0..5).for_each(|step| file.write(&metrics(step)).unwrap());
        assert_eq!(
            file.sync().unwrap(),
            std::fs::metadata(&path).unwrap().len()
        );
        drop(file);
        // An incomplete line of a killed process.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"step\":5,\"lo")).unwrap();

        let (mut file, kept) = MetricsFile::open(&path, 3).unwrap();
        assert_eq!(kept, (0..3).map(metrics).collect::<Vec<_>>());
        file.write(&metrics(3)).unwrap();
        drop(file);
        let (_, kept) = MetricsFile::open(&path, 100).unwrap();
        assert_eq!(
            kept.iter().map(|m| m.step).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn an_impossible_path_is_an_error() {
        assert_eq!(
            MetricsFile::open(Path::new("/nowhere/metrics.jsonl"), 0)
                .unwrap_err()
                .code(),
            "io"
        );
    }
}
