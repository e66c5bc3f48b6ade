//! Pictures by their URLs, in a folder that img2dataset has written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Blob, Value, find, tars};
use crate::DataError;

/// The downloaded pictures by their URLs.
#[derive(Debug, Default)]
pub(crate) struct Lookup(HashMap<String, Blob>);

impl Lookup {
    /// Reads the JSON files beside the pictures, in tars or in folders.
    ///
    /// # Errors
    /// If the folder cannot be listed, or no picture in it has a URL.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let mut found = HashMap::new();
        let mut parquet = false;
        for path in find::walk(folder)? {
            match find::kind_of(&path).as_str() {
                "tar" => {
                    let (samples, damage) = tars::samples(&path)?;
                    if let Some(damage) = damage {
                        tracing::warn!(
                            "{} is damaged: {damage}; the pictures before are used",
                            path.display()
                        );
                    }
                    for sample in samples {
                        let picture = sample.find(find::is_picture);
                        let json = sample.member("json").and_then(|json| json.read().ok());
                        let url = json.and_then(|json| url(&json));
                        if let (Some(url), Some(picture)) = (url, picture) {
                            found.insert(url, picture.clone());
                        }
                    }
                }
                "parquet" => parquet = true,
                kind if find::is_picture(kind) => {
                    let json = std::fs::read(path.with_extension("json")).ok();
                    let url = json.and_then(|json| url(&json));
                    if let (Some(url), Some(picture)) = (url, Blob::file(&path)) {
                        found.insert(url, picture);
                    }
                }
                _ => {}
            }
        }
        if found.is_empty() {
            let message = match parquet {
                true => {
                    "pictures are found by URL in img2dataset's webdataset and files formats, not in its parquet format; download with --output_format webdataset"
                }
                false => "it holds no picture of img2dataset with its JSON, which names the URL",
            };
            return Err(DataError::malformed(folder, message));
        }
        Ok(Self(found))
    }

    /// The picture of a URL.
    pub fn get(&self, url: &str) -> Option<Blob> {
        self.0.get(url).cloned()
    }
}

/// The pictures of a folder by their URLs, read when the first URL is asked for. Without a folder, or where it is none of
/// img2dataset's, there are none.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    folder: Option<PathBuf>,
    found: OnceLock<Lookup>,
}

impl Downloads {
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            found: OnceLock::new(),
        }
    }

    /// The picture of a URL; `None` for anything else.
    pub fn get(&self, url: &str) -> Option<Blob> {
        let folder = self.folder.as_ref().filter(|_| url.contains("://"))?;
        let found = self
            .found
            .get_or_init(|| Lookup::open(folder).unwrap_or_default());
        found.get(url)
    }
}

fn url(json: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(json).ok()?;
    Value::from(json).text_of("url")
}
