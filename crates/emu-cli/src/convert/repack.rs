//! Converts a pack to another precision, with the adapters of a training run, or with its adapters merged.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use emu_model::pack::{LM, ModelConfig};
use emu_pack::convert::{PackMeta, PackWriter, Policy};
use emu_pack::{MANIFEST_FILE, Manifest, PackReader, TensorInfo};
use emu_train::adapter::Adapters;
use emu_train::parts::belongs;
use serde_json::Value;

use super::{ahead, key::key, options::options, result::Converted};
use crate::args::ConvertArgs;
use crate::output::bar;

/// Whether a folder is a pack.
pub fn is_pack(source: &Path) -> bool {
    source.join(MANIFEST_FILE).is_file()
}

/// Metadata of the pack.
pub fn meta_of(manifest: &Manifest) -> PackMeta {
    PackMeta {
        name: manifest.name.clone(),
        license: manifest.license.clone(),
        attribution: manifest.attribution.clone(),
        config: manifest.config.clone(),
        features: manifest.requires.features.clone(),
    }
}

/// Component, name, type and shape of every tensor, unpacked, in the order in which they are written.
pub fn tensors_of(manifest: &Manifest, no_decoder: bool) -> Vec<(&str, TensorInfo)> {
    let components = manifest.tensors.iter();
    let components: HashMap<&str, &str> = components
        .map(|tensor| (tensor.name.as_str(), tensor.component.as_str()))
        .collect();
    let component = |tensor: &TensorInfo| components.get(tensor.name.as_str()).copied();
    let tensors = manifest.logical_tensors().into_iter();
    let mut tensors: Vec<(&str, TensorInfo)> = tensors
        .map(|tensor| (component(&tensor).unwrap_or_default(), tensor))
        .filter(|(part, _)| {
            let drawing = matches!(*part, emu_model::pack::DECODER | emu_model::pack::SAFETY);
            !(no_decoder && drawing)
        })
        .collect();
    // Component by component. The sort is stable, so tensors keep their order.
    tensors.sort_by_key(|(part, _)| *part);
    tensors
}

/// Rewrites the tensors of a pack, with its components, files and configuration.
pub fn run(args: &ConvertArgs, policy: Policy) -> Result<Converted> {
    let reader = PackReader::open(&args.source)?;
    let manifest = reader.manifest();
    let mut config = manifest.config.clone();
    let adapters = adapters(args, &reader, &mut config)?;
    let own = meta_of(manifest);
    let meta = PackMeta {
        name: args.name.clone().unwrap_or(own.name),
        license: args.license.clone().unwrap_or(own.license),
        attribution: args.attribution.clone().unwrap_or(own.attribution),
        config,
        ..own
    };
    let sources = [Some(args.source.as_path()), args.adapter.as_deref()];
    let key = key(
        &meta,
        &policy,
        args.max_shard,
        sources.into_iter().flatten(),
    );
    let mut writer = PackWriter::create(&args.out, meta, options(args, policy, Some(key)))?;
    let mut tensors: Vec<(&str, String)> = { tensors_of(manifest, args.no_decoder).into_iter() }
        .map(|(part, tensor)| (part, tensor.name))
        .filter(|(_, name)| !(args.merge && belongs(name, "*.lora")))
        .collect();
    if let Some(adapters) = adapters.as_ref().filter(|_| !args.merge) {
        tensors.extend(adapters.names().map(|name| (LM, name.to_string())));
        // Component by component. The sort is stable, so tensors keep their order.
        tensors.sort_by_key(|(part, _)| *part);
    }
    tensors.retain(|(_, name)| !writer.has(name));
    let bar = bar(tensors.len() as u64, "tensors");
    let (parts, names): (Vec<&str>, Vec<String>) = tensors.into_iter().unzip();
    let mut parts = parts.into_iter();
    ahead::each(
        names,
        |name| match &adapters {
            None => reader.read_logical(name),
            Some(adapters) => match adapters.get(name) {
                Some(tensor) => Ok(tensor.clone()),
                None if args.merge => adapters.merge(reader.read_logical(name)?),
                None => reader.read_logical(name),
            },
        },
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

/// The adapters to add or to merge, if there are any. `config` becomes that of the new pack.
fn adapters(
    args: &ConvertArgs,
    reader: &PackReader,
    config: &mut Value,
) -> Result<Option<Adapters>> {
    if args.adapter.is_none() && !args.merge {
        return Ok(None);
    }
    let source = args.source.display();
    let mut model = ModelConfig::from_value(config)?;
    let tensors = reader.manifest().logical_tensors();
    let adapters = match (&args.adapter, model.emu.adapter) {
        (Some(_), Some(_)) => {
            bail!("{source} has adapters already. Merge them first with --merge, then add others.")
        }
        (None, None) => {
            bail!("{source} has no adapters to merge. Name the run that has them with --adapter.")
        }
        (Some(run), None) => Adapters::of_run_alone(run, args.best)?,
        (None, Some(own)) => {
            let names = tensors.iter().map(|tensor| tensor.name.as_str());
            Adapters::read(&args.source, own, names, |name| reader.read_logical(name))?
        }
    };
    adapters.check(|name| {
        let found = tensors.iter().find(|tensor| tensor.name == name);
        found.map(|tensor| tensor.shape.clone())
    })?;
    model.emu.adapter = (!args.merge).then_some(adapters.config);
    *config = serde_json::to_value(&model)?;
    Ok(Some(adapters))
}
