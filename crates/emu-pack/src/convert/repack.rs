//! Rewrites a pack under another policy.

use std::collections::HashMap;
use std::path::Path;

use crate::convert::{PackMeta, PackWriter, WriteOptions};
use crate::{Manifest, PackError, PackReader};

/// Writes the model of a pack to `out` with `options`. Quantized tensors are dequantized first, so a pack of higher precision
/// is the better source.
///
/// # Errors
/// The source is damaged, or the target cannot be written; nothing is left of the target then.
pub fn repack(
    from: &PackReader,
    out: impl AsRef<Path>,
    options: WriteOptions,
) -> Result<Manifest, PackError> {
    let manifest = from.manifest();
    let meta = PackMeta {
        name: manifest.name.clone(),
        license: manifest.license.clone(),
        attribution: manifest.attribution.clone(),
        config: manifest.config.clone(),
        features: manifest.requires.features.clone(),
    };
    let stored = manifest.tensors.iter();
    let components: HashMap<&str, &str> = stored
        .map(|tensor| (tensor.name.as_str(), tensor.component.as_str()))
        .collect();
    let mut writer = PackWriter::create(out, meta, options)?;
    for file in &manifest.files {
        writer.add_file(&file.file, &from.file(&file.file)?)?;
    }
    for info in manifest.logical_tensors() {
        let component = components
            .get(info.name.as_str())
            .copied()
            .unwrap_or_default();
        writer.add(component, from.read_logical(&info.name)?)?;
    }
    writer.finish()
}
