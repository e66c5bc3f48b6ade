//! A row of a table, whatever the format of its file.

use super::Value;
use crate::build::Skip;

/// A row of a table, with its place in the file for messages.
pub(crate) struct Row {
    pub place: String,
    pub value: Result<Value, Skip>,
}
