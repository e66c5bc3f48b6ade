//! OBELICS: texts and the URLs of pictures, in the order of the page.

use super::{Decoded, Documents, Entry, Found, Item, Pick};
use crate::build::{Feed, Halt, Skip};
use crate::input::{Value, kind_of, name_in, rows, walk};
use crate::rng::Rng;

impl Documents<'_> {
    pub(super) fn obelics(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        for path in walk(root)?.iter().filter(|path| kind_of(path) == "parquet") {
            let name = name_in(root, path);
            rows(path, false, &mut |row| {
                let source = format!("{name} {}", row.place);
                feed.result(source, row.value.and_then(|page| self.page(&page)))
            })?;
        }
        Ok(())
    }

    /// The candidate of a page. Where both a picture and a text stand at one place, the picture comes first; a place with
    /// neither is passed over.
    pub(super) fn page(&self, page: &Value) -> Result<Item, Skip> {
        let (Some(Value::List(images)), Some(Value::List(texts))) =
            (page.field("images"), page.field("texts"))
        else {
            return Err(Skip::new("no lists of images and texts", page.names()));
        };
        let mut entries = vec![];
        for i in 0..images.len().max(texts.len()) {
            if let Some(url) = images.get(i).and_then(Value::text) {
                entries.push(Entry::Picture(match self.lookup.get(&url) {
                    Some(blob) => Found::Here(blob),
                    None => Found::missing(Skip::new("picture is not downloaded", url)),
                }));
            }
            let text = texts.get(i).and_then(Value::text).unwrap_or_default();
            // Line breaks separate paragraphs and stay.
            let text = text.trim();
            if !text.is_empty() {
                entries.push(Entry::Text(text.to_string()));
            }
        }
        match entries.is_empty() {
            true => Err(Skip::plain("document is empty")),
            false => Ok(Item::Ordered(entries)),
        }
    }

    /// The parts of a page whose pictures are usable, with the chosen pictures only.
    pub(super) fn ordered(
        &self,
        entries: &[Entry],
        random: &mut Rng,
        dropped: &mut Vec<Skip>,
    ) -> Vec<Decoded> {
        let options = self.options;
        let mut parts = vec![];
        let mut places = vec![];
        for entry in entries {
            match entry {
                Entry::Text(text) => parts.push(Decoded::Text(text.clone())),
                Entry::Picture(found) => match self.open(found) {
                    Ok(pixels) => {
                        places.push(parts.len());
                        parts.push(Decoded::Picture(pixels));
                    }
                    Err(skip) => dropped.push(skip),
                },
            }
        }
        let sampled = options.pick == Pick::Sampled;
        while places.len() > options.max_pictures {
            match sampled {
                true => drop(places.remove(random.below(places.len()))),
                false => places.truncate(options.max_pictures),
            }
        }
        // With sampled pictures only the texts right after them stay.
        let mut shown = false;
        let mut kept = vec![];
        for (i, part) in parts.into_iter().enumerate() {
            match part {
                Decoded::Picture(_) => {
                    shown = places.contains(&i);
                    if shown {
                        kept.push(part);
                    }
                }
                Decoded::Text(_) if shown || !sampled => {
                    kept.push(part);
                    shown = false;
                }
                Decoded::Text(_) => {}
            }
        }
        kept
    }
}
