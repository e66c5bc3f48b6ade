//! Builds and writes the whole data set.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::attribution::attribution;
use super::catalogue::Catalogue;
use super::compose::Composer;
use super::corpus::Corpus;
use super::describe::{catalogue_counts, concept_table};
use super::language::number;
use super::options::BuildOptions;
use super::scenes::{Made, Split};
use super::sources::packages;
use super::vocabulary::{self, SPECIAL_TOKENS};
use crate::record::{Part, Record};
use crate::writer::{sha256_hex, write_atomically};
use crate::{DataError, SampleFiles, ShardInfo, write_shard};

/// Progress of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The current shard or step ("tokenizer").
    pub what: String,
    /// Samples finished.
    pub done: usize,
    /// Number of samples of the whole build.
    pub total: usize,
}

/// The contents of `index.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Version of the format: 1.
    pub format: u32,
    /// The build options.
    pub options: BuildOptions,
    /// SHA-256 of the concept list in JSON.
    pub concepts_sha256: String,
    /// Source packages with their versions.
    pub packages: BTreeMap<String, String>,
    /// Number of samples by "split/kind".
    pub counts: BTreeMap<String, usize>,
    /// Numbers of concepts and drawings.
    pub catalogue: BTreeMap<String, usize>,
    /// Vocabulary size of the tokenizer, with and without special tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<[usize; 2]>,
    /// SHA-256 of `tokenizer.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_sha256: Option<String>,
    /// Every shard.
    pub shards: Vec<ShardInfo>,
}

type Maker<'a> = Box<dyn Fn(u64) -> Result<Made, DataError> + Sync + 'a>;

struct Job<'a> {
    folder: &'static str,
    kind: &'static str,
    count: usize,
    make: Maker<'a>,
}

/// Builds the data set in `out`. The same catalogue and options give the same bytes.
///
/// # Errors
/// If `out` holds a finished data set and `overwrite` is false, the options or the catalogue are invalid, or a file
/// cannot be written.
pub fn build(
    catalogue: &Catalogue,
    options: &BuildOptions,
    out: &Path,
    overwrite: bool,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Index, DataError> {
    options.validate()?;
    let index_path = out.join("index.json");
    if index_path.exists() {
        if !overwrite {
            return Err(DataError::Exists(out.to_path_buf()));
        }
        // A folder without an index counts as unfinished.
        std::fs::remove_file(&index_path).map_err(DataError::io("remove", &index_path))?;
    }
    catalogue.list.suits(options)?;
    let composer = Composer::new(catalogue, options.seed, options.size)?;

    // 1. shards
    let jobs = jobs(&composer, options);
    let mut report = Progress {
        what: String::new(),
        done: 0,
        total: jobs.iter().map(|job| job.count).sum(),
    };
    let mut shards = Vec::new();
    let mut corpus = Corpus::default();
    for job in &jobs {
        remove_stale_shards(&out.join(job.folder), job.kind)?;
        for (number, start) in (0..job.count).step_by(options.shard).enumerate() {
            let file = format!("{}/{}-{number:05}.tar", job.folder, job.kind);
            report.what.clone_from(&file);
            progress(&report);
            let end = (start + options.shard).min(job.count);
            let made: Vec<(SampleFiles, Vec<String>)> = (start..end)
                .into_par_iter()
                .map(|i| files(i, (job.make)(i as u64)?))
                .collect::<Result<_, DataError>>()?;
            let (samples, texts): (Vec<_>, Vec<_>) = made.into_iter().unzip();
            if job.folder == "train" {
                texts
                    .into_iter()
                    .flatten()
                    .for_each(|text| corpus.add(text));
            }
            let (bytes, sha256) = write_shard(&out.join(&file), &samples)?;
            shards.push(ShardInfo {
                file,
                split: job.folder.into(),
                kind: job.kind.into(),
                samples: samples.len(),
                bytes,
                sha256,
            });
            report.done = report.done + end - start;
        }
    }

    // 2. text
    report.what = "tokenizer".into();
    progress(&report);
    corpus.refuse_words(&composer)?;
    let lines = corpus.weighted();
    write_atomically(
        &out.join("corpus.txt"),
        (lines.join("\n") + "\n").as_bytes(),
    )?;
    let mut vocabulary = None;
    if options.tokenizer {
        let words = vocabulary_words(&composer);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let trained = vocabulary::train(&lines, &words)?;
        write_atomically(&out.join("tokenizer.json"), trained.json.as_bytes())?;
        vocabulary = Some(trained);
    }

    // 3. descriptions, the index last
    let concepts = pretty(&concept_table(&composer))?;
    write_atomically(&out.join("concepts.json"), concepts.as_bytes())?;
    write_atomically(&out.join("ATTRIBUTION.md"), attribution().as_bytes())?;
    let index = Index {
        format: 1,
        options: options.clone(),
        concepts_sha256: sha256_hex(concepts.as_bytes()),
        packages: packages()
            .into_iter()
            .map(|(name, version)| (name.to_string(), version.to_string()))
            .collect(),
        counts: jobs
            .iter()
            .map(|job| (format!("{}/{}", job.folder, job.kind), job.count))
            .collect(),
        catalogue: catalogue_counts(&composer),
        vocabulary: { vocabulary.as_ref() }.map(|v| [v.base + SPECIAL_TOKENS.len(), v.base]),
        tokenizer_sha256: { vocabulary.as_ref() }.map(|v| sha256_hex(v.json.as_bytes())),
        shards,
    };
    write_atomically(&index_path, pretty(&index)?.as_bytes())?;
    Ok(index)
}

fn jobs<'a>(composer: &'a Composer<'a>, o: &BuildOptions) -> Vec<Job<'a>> {
    let job = |folder, kind, count, make: Maker<'a>| Job {
        folder,
        kind,
        count,
        make,
    };
    let scenes = |split: Split, count| {
        job(
            split.name(),
            "scenes",
            count,
            Box::new(move |i| composer.scene(split, i)),
        )
    };
    let drawings = |split: Split, count| {
        job(
            split.name(),
            "drawings",
            count,
            Box::new(move |i| composer.drawing(split, i)),
        )
    };
    vec![
        scenes(Split::Train, o.train_scenes),
        job(
            "train",
            "draw",
            o.train_draw,
            Box::new(|i| composer.draw(false, i)),
        ),
        job(
            "train",
            "fewshot",
            o.train_fewshot,
            Box::new(|i| composer.few_shot(false, i)),
        ),
        job(
            "train",
            "blend",
            o.train_blend,
            Box::new(|i| composer.blend(i)),
        ),
        job(
            "train",
            "story",
            o.train_story,
            Box::new(|i| composer.story(i)),
        ),
        drawings(Split::Train, o.train_drawings),
        scenes(Split::Val, o.val_scenes),
        drawings(Split::Val, o.val_drawings),
        drawings(Split::T1, o.t1_drawings),
        scenes(Split::T1, o.t1_scenes),
        scenes(Split::T2, o.t2_scenes),
        scenes(Split::T3, o.t3_scenes),
        job(
            "fewshot-test",
            "fewshot",
            o.test_fewshot,
            Box::new(|i| composer.few_shot(true, i)),
        ),
        job(
            "draw-test",
            "draw",
            o.test_draw,
            Box::new(|i| composer.draw(true, i)),
        ),
    ]
}

/// The files of a sample, and its texts.
fn files(index: usize, made: Made) -> Result<(SampleFiles, Vec<String>), DataError> {
    let texts = match &made.record {
        Record::Scene(scene) => std::iter::once(&scene.caption)
            .chain(scene.qa.iter().flat_map(|qa| [&qa.question, &qa.answer]))
            .cloned()
            .collect(),
        Record::Document(document) => document
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Text(text) => Some(text.clone()),
                Part::Image(_) => None,
            })
            .collect(),
        Record::Drawing(_) | Record::Pair(_) | Record::Video(_) | Record::Conversation(_) => {
            Vec::new()
        }
    };
    let json = serde_json::to_vec(&made.record)
        .map_err(|error| DataError::malformed("a record", error))?;
    let numbered = matches!(made.record, Record::Document(_));
    let mut members = vec![("json".to_string(), json)];
    for (i, picture) in made.pictures.iter().enumerate() {
        let extension = if numbered {
            format!("{i}.png")
        } else {
            "png".into()
        };
        members.push((extension, picture.to_png()?));
    }
    let key = format!("{index:06}");
    Ok((SampleFiles { key, members }, texts))
}

/// Words that must be single tokens: names, colours and numbers of the training splits.
fn vocabulary_words(composer: &Composer<'_>) -> Vec<String> {
    let names = composer
        .known
        .iter()
        .map(|&i| composer.concept(i).name.clone());
    let colours = composer
        .catalogue
        .list
        .colours
        .iter()
        .map(|colour| colour.name.clone());
    names
        .chain(colours)
        .chain((1..=3).map(|n| number(n).to_string()))
        .collect()
}

fn pretty(value: &impl Serialize) -> Result<String, DataError> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| DataError::malformed("a description", error))
}

/// Removes shards of an earlier, larger build, which would otherwise be read together with the new ones.
fn remove_stale_shards(folder: &Path, kind: &str) -> Result<(), DataError> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.map_err(DataError::io("list", folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        if name.starts_with(&format!("{kind}-")) && name.ends_with(".tar") {
            std::fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
        }
    }
    Ok(())
}
