//! A GGUF file, or one part of a split model.

use serde_json::{Map, Value};

use super::kind::Kind;
use crate::TensorInfo;
use crate::safetensors::ReadSeek;

/// The contents of one file.
pub struct Part {
    pub file: String,
    pub metadata: Map<String, Value>,
    pub tensors: Vec<(TensorInfo, Place)>,
    pub bytes: Box<dyn ReadSeek>,
}

/// Location of a tensor's values.
#[derive(Debug)]
pub struct Place {
    /// Index of the file.
    pub part: usize,
    pub kind: Kind,
    /// Offset from the start of the file.
    pub start: u64,
    pub bytes: usize,
}
