//! A file, or one of the parts that a model was split into.

use serde_json::{Map, Value};

use super::kind::Kind;
use crate::TensorInfo;
use crate::safetensors::ReadSeek;

/// What one file holds.
pub struct Part {
    pub file: String,
    pub metadata: Map<String, Value>,
    pub tensors: Vec<(TensorInfo, Place)>,
    pub bytes: Box<dyn ReadSeek>,
}

/// Where a tensor's values are.
#[derive(Debug)]
pub struct Place {
    /// Among the files.
    pub part: usize,
    pub kind: Kind,
    /// From the start of the file.
    pub start: u64,
    pub bytes: usize,
}
