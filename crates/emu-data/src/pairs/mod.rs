//! Pictures with captions.
//!
//! | layout | what it is |
//! | --- | --- |
//! | `tars` | WebDataset, as img2dataset writes it: `KEY.jpg` with `KEY.txt` or `KEY.json` |
//! | `files` | a folder of pictures with `.txt` or `.json` files of the same names |
//! | `parquet` | Hugging Face or img2dataset: pictures as bytes, or as `bytes` and `path` |
//! | `table` | CSV, TSV, JSON lines or a JSON list (LAVIS) of paths and captions, also packed as `.gz` |
//! | `coco` | COCO's captions, or Karpathy's splits of it |
//! | `imagefolder` | Hugging Face: `metadata.jsonl`, `.csv` or `.parquet` beside the pictures |
//! | `classes` | a folder for each class; its name becomes the caption |

mod coco;
mod folders;
mod options;
mod tables;
mod tars;

use std::path::{Path, PathBuf};

pub use options::{Layout, Options};
pub(crate) use tables::picture_of;
pub(crate) use tars::{parse, utf8};

use crate::DataError;
use crate::build::{Build, Feed, Halt, Made, Progress, Report, Skip, prepare, run};
use crate::input::{Downloads, first_object, is_any_picture, is_table, kind_of, stem, walk};
use crate::record::{Pair, Record};
use options::{Item, Pairs};

/// Builds shards of pairs.
///
/// # Errors
/// If the source is of no known layout, an option is unusable, the folder is in use or holds something else, no sample is
/// usable, or a file cannot be read or written.
pub fn build(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Report, DataError> {
    options.captions.validate()?;
    let layout = match options.layout {
        Some(layout) => layout,
        None => detect(&options.source)?,
    };
    let pairs = Pairs {
        options,
        layout,
        downloads: Downloads::new(options.images.clone()),
    };
    run(&pairs, &options.out, options, progress)
}

/// The layout of a source.
fn detect(source: &Path) -> Result<Layout, DataError> {
    let unknown = |message: String| DataError::Source {
        kind: "pairs",
        path: source.to_path_buf(),
        message,
    };
    if source.is_file() {
        let kind = kind_of(&crate::input::without_gz(source));
        return match kind.as_str() {
            "tar" => Ok(Layout::Tars),
            "parquet" => Ok(Layout::Parquet),
            "json" if coco::is_one(&first_object(source)?) => Ok(Layout::Coco),
            "txt" => Ok(Layout::Table),
            _ if is_table(source) => Ok(Layout::Table),
            _ => Err(unknown(format!(
                "the extension {kind:?} is none of tar, parquet, csv, tsv, jsonl, json and txt. Name a list, an archive or a folder"
            ))),
        };
    }
    let files = walk(source)?;
    let has = |wanted: &dyn Fn(&Path) -> bool| files.iter().any(|file| wanted(file));
    if has(&|file| kind_of(file) == "tar") {
        return Ok(Layout::Tars);
    }
    if has(&folders::is_metadata) {
        return Ok(Layout::Imagefolder);
    }
    let pictures: Vec<&PathBuf> = files
        .iter()
        .filter(|file| is_any_picture(&kind_of(file)))
        .collect();
    // A few are enough: captions may be missing here and there.
    let captioned = |file: &&PathBuf| {
        ["txt", "json"]
            .iter()
            .any(|kind| file.with_extension(kind).is_file())
    };
    if pictures.iter().take(100).any(captioned) {
        return Ok(Layout::Files);
    }
    if has(&|file| kind_of(file) == "parquet") {
        return Ok(Layout::Parquet);
    }
    let lists: Vec<String> = files
        .iter()
        .filter(|file| is_table(file) && kind_of(file) != "parquet")
        .take(5)
        .map(|file| file.display().to_string())
        .collect();
    if !lists.is_empty() {
        return Err(unknown(format!(
            "it is a folder with lists ({}). Name the list itself, and the folder of its pictures with --images",
            lists.join(", ")
        )));
    }
    let in_classes = |file: &&PathBuf| file.parent() != Some(source);
    if !pictures.is_empty() && pictures.iter().all(in_classes) {
        return Ok(Layout::Classes);
    }
    Err(unknown(match pictures.first() {
        Some(picture) => format!(
            "its pictures have no captions: beside {}, {}.txt is missing. Write captions, or name a list of them",
            picture.display(),
            stem(picture)
        ),
        None => {
            "it holds no tar, no parquet file, no list and no picture. Name another folder".into()
        }
    }))
}

impl Build for Pairs<'_> {
    type Item = Item;
    const KIND: &'static str = "pairs";

    fn source(&self) -> &Path {
        &self.options.source
    }

    fn read(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        match self.layout {
            Layout::Tars => self.tars(feed),
            Layout::Files => self.files(feed),
            Layout::Parquet => self.parquet(feed),
            Layout::Table => self.table(&self.options.source, feed),
            Layout::Coco => self.coco(feed),
            Layout::Imagefolder => self.imagefolder(feed),
            Layout::Classes => self.classes(feed),
        }
    }

    fn make(&self, _: &str, item: &Item) -> Result<Vec<Made>, Skip> {
        let picture = prepare(item.picture.read()?.into_owned(), &self.options.out)?;
        Ok(vec![Made {
            words: item.caption.split_whitespace().count(),
            record: Record::Pair(Pair {
                caption: item.caption.clone(),
            }),
            pictures: vec![picture],
            dropped: vec![],
        }])
    }

    fn held(item: &Item) -> usize {
        item.picture.held() + item.caption.len()
    }
}

#[cfg(test)]
mod tests;
