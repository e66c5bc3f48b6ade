//! Folders of pictures: with texts beside them, with a metadata file, or named after classes.

use std::path::{Path, PathBuf};

use super::options::{Item, Pairs};
use super::tars::{parse, utf8};
use crate::build::{Feed, Halt, Skip};
use crate::input::{Blob, is_any_picture, kind_of, name_in, stem, walk};

/// Whether a file is the metadata of a Hugging Face imagefolder.
pub(super) fn is_metadata(path: &Path) -> bool {
    stem(path) == "metadata" && matches!(kind_of(path).as_str(), "jsonl" | "csv" | "parquet")
}

impl Pairs<'_> {
    fn pictures(&self) -> Result<Vec<PathBuf>, Halt> {
        let mut files = walk(&self.options.source)?;
        files.retain(|file| is_any_picture(&kind_of(file)));
        Ok(files)
    }

    /// Pictures with a `.txt` or `.json` of the same name.
    pub(super) fn files(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        for path in self.pictures()? {
            let source = name_in(&self.options.source, &path);
            let beside = |kind: &str| Blob::file(&path.with_extension(kind));
            let text = beside("txt").or_else(|| beside("caption"));
            let read = beside("json")
                .map(|json| parse(&json))
                .transpose()
                .and_then(|json| Ok((json, text.map(|text| utf8(&text)).transpose()?)));
            let (json, text) = match read {
                Ok(read) => read,
                Err(skip) => {
                    feed.skip(&source, skip)?;
                    continue;
                }
            };
            let picture = Blob::file(&path).ok_or_else(|| Skip::plain("picture file not found"));
            match self.captions_beside(json.as_ref(), text) {
                Ok(captions) => {
                    self.yield_pair(feed, &source, json.as_ref(), captions, picture)?;
                }
                Err(skip) => feed.skip(&source, skip)?,
            }
        }
        Ok(())
    }

    /// Every metadata file lists pictures of its own folder.
    pub(super) fn imagefolder(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        for path in walk(&self.options.source)? {
            if is_metadata(&path) {
                self.table(&path, feed)?;
            }
        }
        Ok(())
    }

    /// Pictures whose captions are the names of their folders.
    pub(super) fn classes(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        for path in self.pictures()? {
            let source = name_in(&self.options.source, &path);
            let folder = path
                .parent()
                .filter(|folder| *folder != self.options.source);
            let Some(class) = folder.and_then(Path::file_name) else {
                feed.skip(&source, Skip::plain("picture is in no class folder"))?;
                continue;
            };
            let class = class.to_string_lossy().replace(['_', '-'], " ");
            let caption = self.options.class_caption.replace("{}", &class);
            let picture = Blob::file(&path).ok_or_else(|| Skip::plain("picture file not found"));
            self.yield_pair(feed, &source, None, vec![caption], picture)?;
        }
        Ok(())
    }
}
