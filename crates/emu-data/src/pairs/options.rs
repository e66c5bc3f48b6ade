//! Options of the builder of pairs, and what its readers share.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::build::{Captions, Feed, Filters, Halt, Output, Skip};
use crate::input::{Blob, Downloads, Value};

/// How the source is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the table of the module describes them")]
pub enum Layout {
    Tars,
    Files,
    Parquet,
    Table,
    Coco,
    Imagefolder,
    Classes,
}

/// Options of the builder of pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// A file or a folder.
    #[serde(skip)]
    pub source: PathBuf,
    /// Where and how to write.
    pub out: Output,
    /// Default: found out.
    pub layout: Option<Layout>,
    /// Folder of the pictures that a list names, or img2dataset's folder of pictures that it names by URL. Default: the
    /// folder of the list and those around it.
    #[serde(skip)]
    pub images: Option<PathBuf>,
    /// The column of the picture. A number names a column of a table without a header line. Default: the first of `image`,
    /// `filepath`, `file_name`, ... that exists.
    pub image_field: Option<String>,
    /// Which captions are used.
    pub captions: Captions,
    /// Conditions on the fields beside the caption.
    pub filters: Filters,
    /// Of Karpathy's list, the split to read; `train` includes `restval`. Default: all.
    pub split: Option<String>,
    /// Caption of a class: `{}` stands for its name. Default: `{}`.
    pub class_caption: String,
}

impl Options {
    /// The defaults.
    pub fn new(source: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            out: Output::new(folder, 1000),
            layout: None,
            images: None,
            image_field: None,
            captions: Captions::default(),
            filters: Filters::default(),
            split: None,
            class_caption: "{}".into(),
        }
    }
}

/// The builder.
pub(super) struct Pairs<'a> {
    pub(super) options: &'a Options,
    pub(super) layout: Layout,
    pub(super) downloads: Downloads,
}

/// A candidate.
#[derive(Serialize)]
pub(super) struct Item {
    pub(super) caption: String,
    pub(super) picture: Blob,
}

impl Pairs<'_> {
    /// Yields a picture with its captions: filters, then the choice of a caption.
    pub(super) fn yield_pair(
        &self,
        feed: &mut Feed<Item>,
        source: &str,
        fields: Option<&Value>,
        captions: Vec<String>,
        picture: Result<Blob, Skip>,
    ) -> Result<(), Halt> {
        let picture = match picture {
            Ok(picture) => picture,
            Err(skip) => return feed.skip(source, skip),
        };
        let nothing = Value::Null;
        let options = self.options;
        if !options.filters.is_empty()
            && let Err(skip) = options.filters.check(fields.unwrap_or(&nothing))
        {
            return feed.skip(source, skip);
        }
        match options.captions.choose(source, captions, options.out.seed) {
            Ok(chosen) => chosen.into_iter().try_for_each(|(name, caption)| {
                let picture = picture.clone();
                feed.item(name, Item { caption, picture })
            }),
            Err(skip) => feed.skip(source, skip),
        }
    }
}
