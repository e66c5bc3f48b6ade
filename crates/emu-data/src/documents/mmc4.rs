//! MMC4: sentences, pictures, and the similarity of each pair.

use std::path::{Path, PathBuf};

use super::assign::assign;
use super::{Decoded, Documents, Found, Item, Matched, Pick};
use crate::build::{Feed, Halt, Skip, tidy};
use crate::input::{Blob, Value, each_sample, json_rows, kind_of, name_in, stem, walk, without_gz};
use crate::rng::Rng;

impl Documents<'_> {
    pub(super) fn mmc4(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        for path in walk(root)? {
            if !matches!(
                kind_of(&without_gz(&path)).as_str(),
                "jsonl" | "ndjson" | "json"
            ) {
                continue;
            }
            let name = name_in(root, &path);
            let images = match &self.options.images {
                Some(folder) => folder.clone(),
                None => path.parent().unwrap_or(Path::new("")).join("images"),
            };
            let folders = folders(&images, &path);
            json_rows(&path, &mut |row| {
                let source = format!("{name} {}", row.place);
                let item = row
                    .value
                    .and_then(|document| item(&document, |picture| named(picture, &folders)));
                feed.result(source, item)
            })?;
        }
        Ok(())
    }

    pub(super) fn mmc4_tars(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        each_sample(&self.options.source, feed, |feed, source, sample| {
            let document = match sample.member("json") {
                Some(json) => json.read().and_then(|json| {
                    serde_json::from_slice::<serde_json::Value>(&json)
                        .map(Value::from)
                        .map_err(|error| Skip::new("JSON is damaged or cut short", error))
                }),
                None => Err(Skip::plain("no JSON of a document")),
            };
            feed.result(
                source,
                document.and_then(|document| item(&document, embedded)),
            )
        })
    }

    /// Assigns the pictures that exist, leaves out those that do not fit, and puts each before its sentence.
    pub(super) fn matched(
        &self,
        sentences: &[String],
        pictures: &[Matched],
        random: &mut Rng,
        dropped: &mut Vec<Skip>,
    ) -> Vec<Decoded> {
        let options = self.options;
        // 1. the pictures that can be used
        let mut usable = vec![];
        for picture in pictures {
            match self.open(&picture.found) {
                Ok(pixels) => usable.push((pixels, picture)),
                Err(skip) => dropped.push(skip),
            }
        }
        // 2. their sentences
        let similarity: Vec<Vec<f64>> = usable.iter().map(|(_, p)| p.similarity.clone()).collect();
        let mut placed = vec![];
        for ((pixels, picture), sentence) in usable.into_iter().zip(assign(&similarity)) {
            let value = sentence.and_then(|sentence| picture.similarity.get(sentence));
            match (sentence, value) {
                (Some(sentence), Some(value)) if *value >= options.min_similarity => {
                    placed.push((sentence, pixels));
                }
                (_, value) => {
                    let detail = value.map_or("unknown".into(), |value| format!("{value:.3}"));
                    dropped.push(Skip::new(
                        "picture and sentence are not similar enough",
                        detail,
                    ));
                }
            }
        }
        placed.sort_by_key(|(sentence, _)| *sentence);
        // 3. not too many
        let sampled = options.pick == Pick::Sampled;
        while placed.len() > options.max_pictures {
            match sampled {
                true => drop(placed.remove(random.below(placed.len()))),
                false => placed.truncate(options.max_pictures),
            }
        }
        // 4. the document
        let mut parts = vec![];
        let mut placed = placed.into_iter().peekable();
        for (i, sentence) in sentences.iter().enumerate() {
            let mut shown = false;
            while let Some((_, pixels)) = placed.next_if(|(at, _)| *at == i) {
                parts.push(Decoded::Picture(pixels));
                shown = true;
            }
            let text = tidy(sentence);
            if !text.is_empty() && (shown || !sampled) {
                parts.push(Decoded::Text(text));
            }
        }
        parts
    }
}

/// Where the pictures of a list may lie: in the folder of its number, or in the folder itself.
fn folders(images: &Path, list: &Path) -> Vec<PathBuf> {
    let name = stem(&without_gz(list));
    let number = name
        .split('_')
        .skip_while(|part| *part != "shard")
        .nth(1)
        .map(|number| images.join(number));
    number.into_iter().chain([images.to_path_buf()]).collect()
}

fn named(picture: &Value, folders: &[PathBuf]) -> Found {
    let Some(name) = picture.text_of("image_name") else {
        return Found::missing(Skip::plain("picture has no name"));
    };
    let mut files = folders.iter().map(|folder| folder.join(&name));
    match files.find_map(|file| Blob::file(&file)) {
        Some(blob) => Found::Here(blob),
        None => Found::missing(Skip::new("picture file not found", name)),
    }
}

fn embedded(picture: &Value) -> Found {
    match picture.field("image_base64") {
        Some(Value::Text(text)) => Found::Here(Blob::Base64(text.as_str().into())),
        _ => {
            let name = picture.text_of("image_name").unwrap_or_default();
            Found::missing(Skip::new("picture is not in the document", name))
        }
    }
}

/// The candidate of a document.
fn item(document: &Value, find: impl Fn(&Value) -> Found) -> Result<Item, Skip> {
    let Some(Value::List(texts)) = document.field("text_list") else {
        return Err(Skip::new("no text_list", document.names()));
    };
    // A text that is null keeps its place: sentences are counted.
    let sentences: Vec<String> = texts
        .iter()
        .map(|text| text.text().unwrap_or_default())
        .collect();
    let matrix = document.field("similarity_matrix").map(Value::list);
    let infos = document
        .field("image_info")
        .map(Value::list)
        .unwrap_or_default();
    let pictures = infos.iter().enumerate().map(|(i, info)| {
        let row = matrix.and_then(|matrix| matrix.get(i)).map(Value::list);
        let similarity = match row {
            Some(row) => row
                .iter()
                .map(|value| value.number().unwrap_or(f64::NAN))
                .collect(),
            None => vec![],
        };
        let mut found = find(info);
        let similarity = if similarity.is_empty() {
            let index = info.field("matched_text_index").and_then(Value::number);
            match index.filter(|index| *index >= 0.0 && (*index as usize) < sentences.len()) {
                Some(index) => {
                    let value = info.field("matched_sim").and_then(Value::number);
                    let mut row = vec![f64::NAN; sentences.len()];
                    row[index as usize] = value.unwrap_or(f64::NAN);
                    row
                }
                None => {
                    let index = index.map_or("null".into(), |index| index.to_string());
                    let detail = format!("{index} of {} sentences", sentences.len());
                    found = Found::missing(Skip::new("matched_text_index is out of range", detail));
                    vec![]
                }
            }
        } else {
            similarity
        };
        Matched { found, similarity }
    });
    Ok(Item::Matched {
        pictures: pictures.collect(),
        sentences,
    })
}
