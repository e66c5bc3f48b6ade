//! COCO's captions, and Karpathy's splits of COCO and Flickr30K.

use std::collections::HashMap;

use serde::Deserialize;

use super::options::{Item, Pairs};
use crate::DataError;
use crate::build::{Feed, Halt, Skip};
use crate::input::{Bases, open_text};

/// Whether the object of a JSON file is one of these lists, by the names of its fields.
pub(super) fn is_one(names: &Option<Vec<String>>) -> bool {
    let has = |wanted: &str| names.iter().flatten().any(|name| name == wanted);
    has("images") && (has("annotations") || has("dataset"))
}

#[derive(Deserialize)]
struct List {
    images: Vec<Picture>,
    annotations: Option<Vec<Annotation>>,
}

/// A picture of either list.
#[derive(Deserialize)]
struct Picture {
    id: Option<u64>,
    file_name: Option<String>,
    filepath: Option<String>,
    filename: Option<String>,
    split: Option<String>,
    #[serde(default)]
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: Option<String>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    caption: Option<String>,
}

impl Pairs<'_> {
    pub(super) fn coco(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let options = self.options;
        let path = &options.source;
        let malformed = |message: String| DataError::malformed(path, message);
        let list: List = serde_json::from_reader(open_text(path)?)
            .map_err(|error| malformed(error.to_string()))?;
        let mut captions: HashMap<u64, Vec<String>> = HashMap::new();
        let known: std::collections::HashSet<u64> = list
            .images
            .iter()
            .filter_map(|picture| picture.id)
            .collect();
        for annotation in list.annotations.into_iter().flatten() {
            if !known.contains(&annotation.image_id) {
                let source = format!("annotation of picture {}", annotation.image_id);
                feed.skip(
                    source,
                    Skip::plain("caption of a picture that is not listed"),
                )?;
                continue;
            }
            let texts = captions.entry(annotation.image_id).or_default();
            texts.extend(annotation.caption);
        }
        let bases = Bases::new(options.images.as_deref(), path);
        for (i, picture) in list.images.into_iter().enumerate() {
            let file = match (&picture.file_name, &picture.filepath, &picture.filename) {
                (Some(name), _, _) => name.clone(),
                (None, Some(folder), Some(name)) => format!("{folder}/{name}"),
                (None, None, Some(name)) => name.clone(),
                _ => {
                    feed.skip(
                        format!("picture {i}"),
                        Skip::plain("picture has no file name"),
                    )?;
                    continue;
                }
            };
            if let (Some(wanted), Some(split)) = (&options.split, &picture.split)
                && wanted != split
                && !(wanted == "train" && split == "restval")
            {
                continue;
            }
            let mut texts: Vec<String> = picture
                .sentences
                .into_iter()
                .filter_map(|sentence| sentence.raw)
                .collect();
            texts.extend(
                picture
                    .id
                    .and_then(|id| captions.remove(&id))
                    .into_iter()
                    .flatten(),
            );
            // Karpathy's list names COCO's folders, which other copies of the pictures lack.
            let found = bases
                .blob(&file)
                .or_else(|| bases.blob(picture.filename.as_deref()?));
            let found = found.ok_or_else(|| {
                Skip::new("picture file not found", format!("in {}", bases.names()))
            });
            self.yield_pair(feed, &file, None, texts, found)?;
        }
        Ok(())
    }
}
