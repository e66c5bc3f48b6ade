//! Interleaved documents: MMC4 and OBELICS.
//!
//! | layout | what it is |
//! | --- | --- |
//! | `mmc4` | JSON lines of documents, and a folder of pictures: `IMAGES/SHARD/NAME` or `IMAGES/NAME` |
//! | `mmc4_tars` | the same as WebDataset, with the pictures in the JSON as `image_base64` |
//! | `obelics` | parquet of texts and URLs, and img2dataset's folder of the pictures |
//!
//! A document of MMC4 has sentences, pictures, and the CLIP similarity of each pair. Pictures that are missing, small or
//! damaged are left out first; then pictures are assigned to sentences again, by the largest sum of similarities; then
//! those below [`Options::min_similarity`] are left out. A picture stands before its sentence.

mod assign;
mod mmc4;
mod obelics;

use std::path::{Path, PathBuf};

use emu_media::image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::DataError;
use crate::build::{
    Build, Feed, Halt, Made, Output, Progress, Report, Skip, decode, encode, random, run,
};
use crate::input::{Blob, Lookup, first_object, kind_of, walk};
use crate::record::{Document, Part, Record};

/// How the source is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the table of the module describes them")]
pub enum Layout {
    Mmc4,
    Mmc4Tars,
    Obelics,
}

/// Which pictures of a document with too many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// The first ones, with all the text.
    First,
    /// Random ones, with the text that belongs to each and nothing else.
    Sampled,
}

/// Options of the builder of documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// A file or a folder.
    #[serde(skip)]
    pub source: PathBuf,
    /// Where and how to write.
    pub out: Output,
    /// Default: found out.
    pub layout: Option<Layout>,
    /// MMC4: the folder of the pictures; default: `images` beside the lists. OBELICS: img2dataset's folder; needed.
    #[serde(skip)]
    pub images: Option<PathBuf>,
    /// Smallest CLIP similarity of a picture and its sentence. Default: 0.32, as in the paper.
    pub min_similarity: f64,
    /// Smallest picture file in bytes. Default: 10,241 for MMC4 (OpenFlamingo's rule), 1 for OBELICS.
    pub min_bytes: Option<u64>,
    /// Fewest pictures of a document. Default: 1.
    pub min_pictures: usize,
    /// Most pictures of a document. Default: 5, as in the paper.
    pub max_pictures: usize,
    /// Which ones. Default: the first. The paper uses both, as two data sets.
    pub pick: Pick,
    /// Share of the documents with one picture that are kept; OpenFlamingo keeps 0.5. Default: 1.
    pub single_share: f64,
    /// Most words. What follows is cut, between two sentences of MMC4 or two entries of OBELICS. Default: 600, which with
    /// five pictures of 34 tokens is about the paper's 1,024 tokens.
    pub max_words: usize,
}

impl Options {
    /// The defaults.
    pub fn new(source: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            out: Output::new(folder, 250),
            layout: None,
            images: None,
            min_similarity: 0.32,
            min_bytes: None,
            min_pictures: 1,
            max_pictures: 5,
            pick: Pick::First,
            single_share: 1.0,
            max_words: 600,
        }
    }
}

/// Builds shards of documents, as [`Document`]s of the task `story`: texts and pictures are targets.
///
/// # Errors
/// As [`pairs::build`](crate::pairs::build).
pub fn build(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, DataError> {
    let wrong = |what: &str| Err(DataError::Options(what.into()));
    if options.max_pictures == 0 || options.min_pictures > options.max_pictures {
        return wrong(
            "the most pictures of a document have to be at least the fewest, and at least 1",
        );
    }
    if !(0.0..=1.0).contains(&options.single_share) {
        return wrong("the share of documents with one picture has to be 0 to 1");
    }
    if options.max_words == 0 {
        return wrong("a document has to have at least one word");
    }
    let layout = match options.layout {
        Some(layout) => layout,
        None => detect(&options.source)?,
    };
    let lookup = match (layout, &options.images) {
        (Layout::Obelics, Some(folder)) => Lookup::open(folder)?,
        (Layout::Obelics, None) => {
            return Err(unread(
                &options.source,
                "it is OBELICS, which names its pictures by URL. Download them with img2dataset, and name that folder with --images",
            ));
        }
        _ => Lookup::default(),
    };
    let documents = Documents {
        options,
        layout,
        lookup,
    };
    run(&documents, &options.out, options, progress)
}

fn unread(source: &Path, message: &str) -> DataError {
    DataError::Source {
        kind: "documents",
        path: source.to_path_buf(),
        message: message.into(),
    }
}

fn detect(source: &Path) -> Result<Layout, DataError> {
    let unknown = |message: &str| unread(source, message);
    let files = walk(source)?;
    for path in &files {
        match kind_of(&crate::input::without_gz(path)).as_str() {
            "jsonl" | "ndjson" => return Ok(Layout::Mmc4),
            "json" => {
                let names = first_object(path)?.unwrap_or_default();
                if names.iter().any(|name| name == "text_list") {
                    return Ok(Layout::Mmc4);
                }
            }
            "tar" => return Ok(Layout::Mmc4Tars),
            "parquet" => return Ok(Layout::Obelics),
            _ => {}
        }
    }
    match files.iter().any(|path| kind_of(path) == "zip") {
        true => Err(unknown("its lists are packed as zip. Unpack them first")),
        false => Err(unknown(
            "it holds no JSON lines and no tar of MMC4, and no parquet file of OBELICS. Name another folder",
        )),
    }
}

struct Documents<'a> {
    options: &'a Options,
    layout: Layout,
    lookup: Lookup,
}

/// A picture of a candidate: where it lies, or why it is not there.
#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Here(Blob),
    Missing {
        #[serde(skip)]
        skip: Skip,
        missing: String,
    },
}

impl Found {
    fn missing(skip: Skip) -> Self {
        let missing = skip.detail.clone();
        Self::Missing { skip, missing }
    }

    fn held(&self) -> usize {
        match self {
            Self::Here(blob) => blob.held(),
            Self::Missing { .. } => 0,
        }
    }
}

/// A candidate.
#[derive(Serialize)]
enum Item {
    /// Sentences, and pictures with their similarities to each.
    Matched {
        sentences: Vec<String>,
        pictures: Vec<Matched>,
    },
    /// Texts and pictures in their order.
    Ordered(Vec<Entry>),
}

#[derive(Serialize)]
struct Matched {
    found: Found,
    /// Similarity to each sentence; or of one only, where the list has no matrix.
    similarity: Vec<f64>,
}

#[derive(Serialize)]
enum Entry {
    Text(String),
    Picture(Found),
}

/// A part of a document whose pictures are decoded.
enum Decoded {
    Text(String),
    Picture(RgbImage),
}

impl Build for Documents<'_> {
    type Item = Item;
    const KIND: &'static str = "documents";

    fn source(&self) -> &Path {
        &self.options.source
    }

    fn read(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        match self.layout {
            Layout::Mmc4 => self.mmc4(feed),
            Layout::Mmc4Tars => self.mmc4_tars(feed),
            Layout::Obelics => self.obelics(feed),
        }
    }

    fn make(&self, source: &str, item: &Item) -> Result<Vec<Made>, Skip> {
        let options = self.options;
        let mut dropped = vec![];
        let mut random = random(options.out.seed, "documents", source);
        let parts = match item {
            Item::Matched {
                sentences,
                pictures,
            } => self.matched(sentences, pictures, &mut random, &mut dropped),
            Item::Ordered(entries) => self.ordered(entries, &mut random, &mut dropped),
        };
        let parts = shortened(parts, options.max_words);
        let pictures = count(&parts);
        if pictures < options.min_pictures {
            let why: Vec<String> = dropped
                .iter()
                .take(2)
                .map(|skip| format!("{} {}", skip.reason, skip.detail))
                .collect();
            return Err(Skip::new("too few usable pictures", why.join("; ")));
        }
        if !parts.iter().any(|part| matches!(part, Decoded::Text(_))) {
            return Err(Skip::plain("document has no text"));
        }
        if pictures == 1 && !random.chance(options.single_share) {
            return Err(Skip::plain(
                "document with one picture, by the chosen share",
            ));
        }
        let mut encoded = vec![];
        let mut words = 0;
        let mut record = vec![];
        for part in parts {
            record.push(match part {
                Decoded::Text(text) => {
                    words += text.split_whitespace().count();
                    Part::Text(text)
                }
                Decoded::Picture(picture) => {
                    encoded.push(encode(&picture, &options.out)?);
                    Part::Image((encoded.len() - 1).to_string())
                }
            });
        }
        Ok(vec![Made {
            record: Record::Document(story(record)),
            pictures: encoded,
            words,
            dropped,
        }])
    }

    fn held(item: &Item) -> usize {
        match item {
            Item::Matched {
                sentences,
                pictures,
            } => {
                let texts: usize = sentences.iter().map(String::len).sum();
                texts + pictures.iter().map(|p| p.found.held()).sum::<usize>()
            }
            Item::Ordered(entries) => entries
                .iter()
                .map(|entry| match entry {
                    Entry::Text(text) => text.len(),
                    Entry::Picture(found) => found.held(),
                })
                .sum(),
        }
    }
}

/// A document whose texts and pictures are targets of training.
pub(crate) fn story(parts: Vec<Part>) -> Document {
    Document {
        split: "train".into(),
        task: "story".into(),
        parts,
        answer: None,
        pattern: None,
        background: None,
        layout: None,
        objects: vec![],
        unseen: vec![],
    }
}

fn count(parts: &[Decoded]) -> usize {
    let pictures = parts
        .iter()
        .filter(|part| matches!(part, Decoded::Picture(_)));
    pictures.count()
}

/// The parts before the text that would be too much, and no picture without a text after it that was cut.
fn shortened(parts: Vec<Decoded>, max_words: usize) -> Vec<Decoded> {
    let mut words = 0;
    let mut kept: Vec<Decoded> = vec![];
    for part in parts {
        if let Decoded::Text(text) = &part {
            let more = text.split_whitespace().count();
            if words + more > max_words {
                if words == 0 {
                    // one long text: cut within
                    let cut: Vec<&str> = text.split_whitespace().take(max_words).collect();
                    kept.push(Decoded::Text(cut.join(" ")));
                } else {
                    while matches!(kept.last(), Some(Decoded::Picture(_))) {
                        kept.pop();
                    }
                }
                return kept;
            }
            words += more;
        }
        kept.push(part);
    }
    kept
}

impl Documents<'_> {
    fn open(&self, found: &Found) -> Result<RgbImage, Skip> {
        let blob = match found {
            Found::Here(blob) => blob,
            Found::Missing { skip, .. } => return Err(skip.clone()),
        };
        let least = self.options.min_bytes.unwrap_or(match self.layout {
            Layout::Obelics => 1,
            Layout::Mmc4 | Layout::Mmc4Tars => 10_241,
        });
        if blob.len() < least {
            let detail = format!("{} bytes", blob.len());
            return Err(Skip::new("picture file is too small", detail));
        }
        decode(&blob.read()?, &self.options.out)
    }
}

#[cfg(test)]
mod tests;
