//! Models split by llama.cpp: `name-00001-of-00003.gguf` and so on; the first part has the metadata.

use std::path::{Path, PathBuf};

use super::part::Part;
use crate::PackError;

/// Maximum number of missing parts named in an error message.
const NAMED: usize = 3;

/// Position of a part in a split model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// Counted from 0.
    number: u64,
    count: u64,
}

/// The position of a part in a split model; `None` if the file is a whole model.
pub(super) fn of(part: &Part) -> Result<Option<Split>, PackError> {
    let entry = |key: &str| part.metadata.get(key).and_then(serde_json::Value::as_u64);
    let (number, count) = (entry("split.no"), entry("split.count"));
    match (number.unwrap_or(0), count.unwrap_or(0)) {
        (0, 0 | 1) => Ok(None),
        // The count has 16 bits.
        (number, count) if number < count && count <= u64::from(u16::MAX) => {
            Ok(Some(Split { number, count }))
        }
        (number, count) => Err(PackError::BadGguf {
            file: part.file.clone(),
            reason: format!(
                "it says that it is part {} of {count}",
                number.saturating_add(1)
            ),
        }),
    }
}

impl Split {
    /// The error for missing parts.
    pub fn alone(self, file: &str, missing: &str) -> PackError {
        PackError::PartOfModel {
            file: file.into(),
            part: self.number + 1,
            count: self.count,
            missing: missing.into(),
        }
    }

    /// Opens the other parts and returns all of them in order.
    pub fn with_others(self, path: &Path, part: Part) -> Result<Vec<Part>, PackError> {
        let Some(paths) = self.paths(path) else {
            let missing = format!(
                "its name does not say where the others are, as `name-{:05}-of-{:05}.gguf` would",
                self.number + 1,
                self.count
            );
            return Err(self.alone(&part.file, &missing));
        };
        let absent: Vec<_> = paths.iter().filter(|path| !path.is_file()).collect();
        if !absent.is_empty() {
            let names = absent.iter().take(NAMED).map(|path| {
                let name = path.file_name().unwrap_or_default();
                format!("`{}`", name.to_string_lossy())
            });
            let more = if absent.len() > NAMED { ", ..." } else { "" };
            let missing = format!(
                "{} of the others {} not beside it ({}{more})",
                absent.len(),
                if absent.len() == 1 { "is" } else { "are" },
                names.collect::<Vec<_>>().join(", ")
            );
            return Err(self.alone(&part.file, &missing));
        }
        let own = part.file.clone();
        let mut opened = Some(part);
        let mut parts = Vec::with_capacity(paths.len());
        for (number, path) in (0..).zip(paths) {
            let part = match opened.take_if(|_| number == self.number) {
                Some(part) => part,
                None => Part::open(&path)?,
            };
            let wanted = Self { number, ..self };
            if of(&part)? != Some(wanted) {
                return Err(PackError::BadGguf {
                    file: part.file,
                    reason: format!(
                        "it is not part {} of {}, as its name beside {own} says",
                        number + 1,
                        self.count
                    ),
                });
            }
            parts.push(part);
        }
        let found: usize = parts.iter().map(|part| part.tensors.len()).sum();
        let declared = parts
            .first()
            .and_then(|first| first.metadata.get("split.tensors.count"));
        if let Some(declared) = declared.and_then(serde_json::Value::as_u64)
            && declared != found as u64
        {
            return Err(PackError::BadGguf {
                file: own,
                reason: format!("its parts hold {found} tensors where {declared} are declared"),
            });
        }
        Ok(parts)
    }

    /// The paths of all parts, derived from the name of one.
    fn paths(self, path: &Path) -> Option<Vec<PathBuf>> {
        let digits = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse::<u64>().ok()).flatten()
        };
        let name = path.file_name()?.to_str()?;
        let (stem, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = stem.rsplit_once('-')?;
        if digits(count)? != self.count || digits(number)? != self.number + 1 {
            return None;
        }
        let width = number.len();
        let name = |number: u64| format!("{stem}-{number:0width$}-of-{count}.gguf");
        Some(
            (1..=self.count)
                .map(|n| path.with_file_name(name(n)))
                .collect(),
        )
    }
}
