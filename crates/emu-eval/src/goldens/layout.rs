//! Layouts of files.

use serde::de::DeserializeOwned;

/// What is wrong with the layout of a file.
#[derive(Debug)]
pub struct Layout(pub String);

/// The contents of a file.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Layout> {
    serde_json::from_str(text).map_err(|error| Layout(error.to_string()))
}
