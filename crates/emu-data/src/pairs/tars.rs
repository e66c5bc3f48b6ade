//! WebDataset tars, as img2dataset writes them.

use super::options::{Item, Pairs};
use crate::build::{Feed, Halt, Skip};
use crate::input::{Blob, TarSample, Value, each_sample, is_picture};

impl Pairs<'_> {
    pub(super) fn tars(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        each_sample(&self.options.source, feed, |feed, source, sample| {
            self.tar_sample(feed, source, &sample)
        })
    }

    fn tar_sample(
        &self,
        feed: &mut Feed<Item>,
        source: &str,
        sample: &TarSample,
    ) -> Result<(), Halt> {
        let json = sample.member("json").map(parse).transpose();
        let json = match json {
            Ok(json) => json,
            Err(skip) => return feed.skip(source, skip),
        };
        let text = sample.member("txt").or_else(|| sample.member("caption"));
        let text = match text.map(utf8).transpose() {
            Ok(text) => text,
            Err(skip) => return feed.skip(source, skip),
        };
        let picture = sample
            .find(is_picture)
            .cloned()
            .ok_or_else(|| missing_picture(sample, json.as_ref()));
        let captions = self.captions_beside(json.as_ref(), text);
        match captions {
            Ok(captions) => self.yield_pair(feed, source, json.as_ref(), captions, picture),
            Err(skip) => feed.skip(source, skip),
        }
    }

    /// The captions of a picture with a text and a JSON object beside it: the chosen field, else the text, else the
    /// object's `caption`.
    pub(super) fn captions_beside(
        &self,
        json: Option<&Value>,
        text: Option<String>,
    ) -> Result<Vec<String>, Skip> {
        match (&self.options.captions.field, json, text) {
            (Some(field), _, Some(text)) if field == "txt" => Ok(vec![text]),
            (Some(field), Some(json), _) if json.has(field) => {
                Ok(json.field(field).map(Value::texts).unwrap_or_default())
            }
            (Some(field), json, _) => Err(Skip::new(
                format!("no field {field:?}"),
                json.map_or("it has no JSON".into(), Value::names),
            )),
            (None, _, Some(text)) => Ok(vec![text]),
            (None, Some(json), None) => Ok(json
                .any_field(crate::input::CAPTION_FIELDS)
                .map(Value::texts)
                .unwrap_or_default()),
            (None, None, None) => Ok(vec![]),
        }
    }
}

fn missing_picture(sample: &TarSample, json: Option<&Value>) -> Skip {
    let status = json.and_then(|json| json.text_of("status"));
    let detail = match status {
        Some(status) => format!("status {status}"),
        None => sample.contents(),
    };
    Skip::new("no picture", detail)
}

/// The JSON object of a blob.
pub(crate) fn parse(blob: &Blob) -> Result<Value, Skip> {
    let bytes = blob.read()?;
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(object @ serde_json::Value::Object(_)) => Ok(object.into()),
        Ok(_) => Err(Skip::new("JSON beside the picture is no object", "")),
        Err(error) => Err(Skip::new("JSON beside the picture is damaged", error)),
    }
}

/// The text of a blob.
pub(crate) fn utf8(blob: &Blob) -> Result<String, Skip> {
    String::from_utf8(blob.read()?.into_owned())
        .map_err(|error| Skip::new("caption is not UTF-8", error.utf8_error()))
}
