//! Converts a pack to another precision.

use std::path::Path;

use anyhow::Result;
use emu_pack::convert::{PackMeta, PackWriter, Policy};
use emu_pack::{MANIFEST_FILE, PackReader, TensorInfo};

use super::{Converted, ahead, key::key, options};
use crate::args::ConvertArgs;
use crate::output::bar;

/// Whether a folder is a pack.
pub fn is_pack(source: &Path) -> bool {
    source.join(MANIFEST_FILE).is_file()
}

/// Rewrites the tensors of a pack, with its components, files and configuration.
pub fn run(args: &ConvertArgs, policy: Policy) -> Result<Converted> {
    let reader = PackReader::open(&args.source)?;
    let manifest = reader.manifest();
    let meta = PackMeta {
        name: args.name.clone().unwrap_or_else(|| manifest.name.clone()),
        license: { args.license.clone() }.unwrap_or_else(|| manifest.license.clone()),
        attribution: { args.attribution.clone() }.unwrap_or_else(|| manifest.attribution.clone()),
        config: manifest.config.clone(),
        features: manifest.requires.features.clone(),
    };
    let key = key(&meta, &policy, args.max_shard, [args.source.as_path()]);
    let mut writer = PackWriter::create(&args.out, meta, options(args, policy, Some(key)))?;
    let component = |tensor: &TensorInfo| {
        let entry = manifest.tensors.iter().find(|t| t.name == tensor.name);
        entry.map_or("", |entry| entry.component.as_str())
    };
    let mut tensors: Vec<(String, &str)> = manifest
        .logical_tensors()
        .iter()
        .map(|tensor| (tensor.name.clone(), component(tensor)))
        .filter(|(name, part)| {
            let drawing = matches!(*part, emu_model::pack::DECODER | emu_model::pack::SAFETY);
            !(writer.has(name) || args.no_decoder && drawing)
        })
        .collect();
    // Component by component. The sort is stable, so tensors keep their order.
    tensors.sort_by_key(|(_, part)| *part);
    let bar = bar(tensors.len() as u64, "tensors");
    let parts: Vec<&str> = tensors.iter().map(|(_, part)| *part).collect();
    let mut parts = parts.into_iter();
    let names = tensors.into_iter().map(|(name, _)| name);
    ahead::each(
        names,
        |name| reader.read_logical(name),
        |_, tensor| {
            bar.inc(1);
            Ok(writer.add(parts.next().unwrap_or_default(), tensor)?)
        },
    )?;
    for file in &manifest.files {
        writer.add_file(&file.file, &reader.file(&file.file)?)?;
    }
    bar.finish_and_clear();
    Converted::finish(writer)
}
