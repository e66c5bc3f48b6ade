//! An index of feature vectors on disk, for the retrieval of similar pictures.
//!
//! Layout: the 8 bytes `EMUFEAT1`; the length of the header as a little-endian u32; the header, JSON with the fields of
//! [`Header`]; then `names.len() * dim` little-endian f32, row by row. A row of NaN means that the medium could not be
//! read. While an index is computed, `NAME.part` holds the header as one line of JSON, and the rows so far.

mod layout;
mod part;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::EvalError;
use super::files::hex;
use super::model::{Media, Model};
use super::progress::{Progress, Stage};
use layout::{Header, MAGIC, finish};
use part::Part;

/// Vectors of a file as they were computed, for statistics over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Unscaled {
    /// The model that computed them.
    pub model: String,
    /// Names and vectors, in the order of the file; of a medium that could not be read there is `None`.
    pub rows: Vec<(String, Option<Vec<f64>>)>,
}

/// Unit vectors of pictures or videos, by name.
#[derive(Clone, Debug)]
pub struct FeatureIndex {
    header: Header,
    vectors: Vec<f32>,
    rows: HashMap<String, usize>,
}

impl FeatureIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// If the file is none, is cut off, or was changed since it was written.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let (header, vectors) = rows(path)?;
        Self::new(header, vectors).map_err(|reason| EvalError::Index {
            path: path.to_owned(),
            reason,
        })
    }

    /// The vectors of a file, not scaled to unit vectors.
    ///
    /// # Errors
    /// As [`FeatureIndex::read`].
    pub fn unscaled(path: &Path) -> Result<Unscaled, EvalError> {
        let (header, vectors) = rows(path)?;
        let row = |(name, row): (&String, &[f32])| {
            let finite = row.iter().all(|x| x.is_finite());
            let row = finite.then(|| row.iter().map(|x| f64::from(*x)).collect());
            (name.clone(), row)
        };
        let rows = header
            .names
            .iter()
            .zip(vectors.chunks_exact(header.dim.max(1)));
        Ok(Unscaled {
            model: header.model.clone(),
            rows: rows.map(row).collect(),
        })
    }

    fn new(header: Header, mut vectors: Vec<f32>) -> Result<Self, String> {
        let mut rows = HashMap::new();
        for (i, name) in header.names.iter().enumerate() {
            if rows.insert(name.clone(), i).is_some() {
                return Err(format!("the name {name:?} occurs twice"));
            }
        }
        for row in vectors.chunks_exact_mut(header.dim.max(1)) {
            let square: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            // A vector without a direction is similar to nothing: as if it could not be read.
            let scale = if square.is_finite() && square > 0.0 {
                (1.0 / square.sqrt()) as f32
            } else {
                f32::NAN
            };
            row.iter_mut().for_each(|x| *x *= scale);
        }
        Ok(Self {
            header,
            vectors,
            rows,
        })
    }

    /// The model that computed the vectors.
    pub fn model(&self) -> &str {
        &self.header.model
    }

    /// Unit vector of a medium; `None` if it is not in the index or could not be read.
    pub fn vector(&self, name: &str) -> Option<&[f32]> {
        let at = *self.rows.get(name)? * self.header.dim;
        let row = self.vectors.get(at..at + self.header.dim)?;
        row.iter().all(|x| x.is_finite()).then_some(row)
    }

    /// Whether the index has a row for a medium, be it readable or not.
    pub fn has(&self, name: &str) -> bool {
        self.rows.contains_key(name)
    }

    /// Identifies the vectors in the settings of a run.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for (i, name) in self.header.names.iter().enumerate() {
            hash.update(name.as_bytes());
            hash.update([0]);
            for x in &self.vectors[i * self.header.dim..(i + 1) * self.header.dim] {
                hash.update(x.to_le_bytes());
            }
        }
        hex(hash.finalize().as_slice())
    }

    /// Writes an index of given vectors, such as those of a CLIP.
    ///
    /// # Errors
    /// If a name occurs twice, the vectors differ in length, or the file cannot be written.
    pub fn write(path: &Path, model: &str, rows: &[(String, Vec<f32>)]) -> Result<(), EvalError> {
        let fault = |reason: &str| EvalError::Index {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let dim = rows.first().map_or(0, |(_, row)| row.len());
        if dim == 0 || rows.iter().any(|(_, row)| row.len() != dim) {
            return Err(fault("the vectors are empty or differ in length"));
        }
        let body: Vec<u8> = rows
            .iter()
            .flat_map(|(_, row)| row)
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let header = Header {
            model: model.to_owned(),
            dim,
            inputs_sha256: None,
            vectors_sha256: None,
            names: rows.iter().map(|(name, _)| name.clone()).collect(),
        };
        Self::new(header.clone(), vec![]).map_err(|reason| fault(&reason))?;
        finish(path, header, &body)
    }

    /// Opens the index of these media, or has the model compute it. An interrupted computation continues.
    ///
    /// # Errors
    /// If an index at that path has other media or another model, or the model fails, or the caller stops.
    pub fn build(
        path: &Path,
        model: &mut dyn Model,
        media: &[&Media],
        batch: usize,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<Self, EvalError> {
        let header = Header {
            model: model.name(),
            dim: 0,
            inputs_sha256: Some(inputs_sha256(media)),
            vectors_sha256: None,
            names: media.iter().map(|media| media.name.clone()).collect(),
        };
        if path.is_file() {
            let index = Self::read(path)?;
            let differs = |setting: &str, before: &str, now: &str| EvalError::Changed {
                path: path.to_owned(),
                setting: setting.to_owned(),
                before: before.to_owned(),
                now: now.to_owned(),
            };
            if index.header.model != header.model {
                return Err(differs("model", &index.header.model, &header.model));
            }
            if index.header.inputs_sha256 != header.inputs_sha256 {
                let sha = |header: &Header| {
                    header
                        .inputs_sha256
                        .clone()
                        .unwrap_or_else(|| "none".to_owned())
                };
                return Err(differs("inputs_sha256", &sha(&index.header), &sha(&header)));
            }
            return Ok(index);
        }
        let batch = batch.max(1);
        let mut part = Part::open(path, &header, batch)?;
        while part.rows.len() < media.len() {
            if !progress(Progress {
                stage: Stage::Features,
                done: part.rows.len(),
                total: media.len(),
            }) {
                return Err(EvalError::Stopped);
            }
            let chunk = media.get(part.rows.len()..).unwrap_or_default();
            let chunk: Vec<Media> = chunk
                .iter()
                .take(batch)
                .map(|media| (*media).clone())
                .collect();
            let at = chunk
                .first()
                .map(|media| media.name.clone())
                .unwrap_or_default();
            let vectors = model.features(&chunk).map_err(|source| EvalError::Model {
                at: at.clone(),
                source,
            })?;
            if vectors.len() != chunk.len() {
                let (got, expected) = (
                    format!("{} vectors", vectors.len()),
                    format!("{}", chunk.len()),
                );
                return Err(EvalError::Contract { at, got, expected });
            }
            part.append(vectors, &at)?;
        }
        progress(Progress {
            stage: Stage::Features,
            done: part.rows.len(),
            total: media.len(),
        });
        part.finish(path, header)?;
        Self::read(path)
    }
}

/// Header and vectors of a file, row by row.
fn rows(path: &Path) -> Result<(Header, Vec<f32>), EvalError> {
    let fault = |reason: &str| EvalError::Index {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let bytes = fs::read(path).map_err(EvalError::io("read", path))?;
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| fault("it does not begin with EMUFEAT1"))?;
    let (length, rest) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| fault("it ends in its header"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let (header, body) = rest
        .split_at_checked(length)
        .ok_or_else(|| fault("it ends in its header"))?;
    let header: Header =
        serde_json::from_slice(header).map_err(|error| fault(&format!("its header: {error}")))?;
    let expected = header
        .names
        .len()
        .checked_mul(header.dim)
        .and_then(|n| n.checked_mul(4));
    if header.dim == 0 || expected != Some(body.len()) {
        return Err(fault(&format!(
            "it has {} bytes of vectors, not {} x {} x 4",
            body.len(),
            header.names.len(),
            header.dim
        )));
    }
    if header
        .vectors_sha256
        .as_ref()
        .is_some_and(|sha| *sha != hex(Sha256::digest(body).as_slice()))
    {
        return Err(fault("its vectors do not have the SHA-256 of the header"));
    }
    let vectors = body
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    Ok((header, vectors))
}

/// SHA-256 over the names and file sizes of media.
fn inputs_sha256(media: &[&Media]) -> String {
    let mut hash = Sha256::new();
    for media in media {
        hash.update(media.name.as_bytes());
        hash.update([0]);
        let bytes =
            fs::metadata(&media.path).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
        hash.update(bytes.to_le_bytes());
    }
    hex(hash.finalize().as_slice())
}

#[cfg(test)]
mod tests {
    use super::super::model::Outcome;
    use super::*;
    use crate::tasks::model::{MediaKind, ModelError, Request};
    use std::sync::Arc;

    /// The vector of a medium is its name's digits; fails after some calls.
    struct Eyes {
        calls: usize,
        last: usize,
    }

    impl Model for Eyes {
        fn name(&self) -> String {
            "eyes".into()
        }

        fn generate(&mut self, _: &[Request]) -> Result<Vec<Outcome<String>>, ModelError> {
            Err("not asked".into())
        }

        fn rank(&mut self, _: &Request, _: &[Arc<str>]) -> Result<Outcome<Vec<f64>>, ModelError> {
            Err("not asked".into())
        }

        fn features(&mut self, media: &[Media]) -> Result<Vec<Outcome<Vec<f32>>>, ModelError> {
            self.calls += 1;
            if self.calls > self.last {
                return Err("out of light".into());
            }
            let one = |media: &Media| match media.name.parse::<f32>() {
                Ok(x) => Ok(vec![x, 1.0]),
                Err(_) => Err("not a picture".to_owned()),
            };
            Ok(media.iter().map(one).collect())
        }
    }

    fn media(names: &[&str]) -> Vec<Media> {
        let one = |name: &&str| Media {
            kind: MediaKind::Picture,
            name: (*name).to_owned(),
            path: (*name).into(),
        };
        names.iter().map(one).collect()
    }

    fn build(path: &Path, names: &[&str], last: usize) -> Result<FeatureIndex, EvalError> {
        let media = media(names);
        let media: Vec<_> = media.iter().collect();
        FeatureIndex::build(path, &mut Eyes { calls: 0, last }, &media, 2, &mut |_| true)
    }

    const NAMES: [&str; 7] = ["torn", "0", "1", "2", "3", "broken", "5"];

    #[test]
    fn an_index_is_built_read_and_continued_at_every_byte() {
        let folder = tempfile::tempdir().expect("folder");
        let whole = folder.path().join("whole.idx");
        let index = build(&whole, &NAMES, 99).expect("index");
        assert_eq!(index.vector("0"), Some(&[0.0, 1.0][..]));
        assert!(index.vector("torn").is_none() && index.has("torn") && !index.has("4"));
        let three = index.vector("3").expect("row");
        assert!(
            (three[0] - 0.948_683_3).abs() < 1e-6 && (three[1] - 0.316_227_8).abs() < 1e-6,
            "{three:?}"
        );
        let bytes = fs::read(&whole).expect("bytes");

        let path = folder.path().join("cut.idx");
        let part = folder.path().join("cut.idx.part");
        assert!(
            build(&path, &NAMES, 3)
                .expect_err("out of light")
                .to_string()
                .contains("at 5: out of light")
        );
        assert!(!path.exists());
        let partial = fs::read(&part).expect("part");
        for length in 0..=partial.len() {
            fs::write(&part, &partial[..length]).expect("cut");
            build(&path, &NAMES, 99).expect("continued");
            assert_eq!(fs::read(&path).expect("bytes"), bytes, "cut at {length}");
            assert!(!part.exists());
            fs::remove_file(&path).expect("again");
        }
        // What is there is not computed again.
        fs::write(&part, &partial).expect("part");
        build(&path, &NAMES, 1).expect("one call is enough");
        build(&path, &NAMES, 0).expect("no call is needed");
    }

    #[test]
    fn other_media_models_and_damage_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.idx");
        build(&path, &["1", "2"], 9).expect("index");
        let error = build(&path, &["1", "3"], 9)
            .expect_err("other media")
            .to_string();
        assert!(error.contains("inputs_sha256"), "{error}");
        let bytes = fs::read(&path).expect("bytes");
        let broken = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("write");
            FeatureIndex::read(&path).expect_err("damaged").to_string()
        };
        for length in 0..bytes.len() {
            broken(&bytes[..length]);
        }
        let mut changed = bytes.clone();
        *changed.last_mut().expect("byte") ^= 1;
        assert!(broken(&changed).contains("SHA-256"));
        assert!(broken(b"EMUFEAT2rest").contains("EMUFEAT1"));
    }

    #[test]
    fn given_vectors_of_another_program() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("clip.idx");
        let row = |name: &str, row: &[f32]| (name.to_owned(), row.to_vec());
        FeatureIndex::write(
            &path,
            "clip",
            &[row("a", &[3.0, 4.0]), row("b", &[0.0, 0.0])],
        )
        .expect("write");
        let index = FeatureIndex::read(&path).expect("read");
        assert_eq!(
            (index.model(), index.vector("a")),
            ("clip", Some(&[0.6, 0.8][..]))
        );
        assert_eq!(index.vector("b"), None);
        assert!(FeatureIndex::write(&path, "clip", &[row("a", &[1.0]), row("a", &[2.0])]).is_err());
        assert!(
            FeatureIndex::write(&path, "clip", &[row("a", &[1.0]), row("b", &[2.0, 1.0])]).is_err()
        );
        assert!(FeatureIndex::write(&path, "clip", &[]).is_err());
    }
}
