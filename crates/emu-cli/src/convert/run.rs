//! Packs of training runs.

use std::path::Path;

use anyhow::{Context, Result};
use emu_pack::convert::{PackMeta, Policy};
use emu_train::export::Export;
use emu_train::stages::MODEL_FILE;

use super::{options::options, result::Converted};
use crate::args::ConvertArgs;

/// Whether a folder is a training run.
pub fn is_run(source: &Path) -> bool {
    source.join(MODEL_FILE).is_file()
}

/// Writes the pack of a run of encoder and LM, and of a decoder run if one is named.
pub fn export(args: &ConvertArgs, policy: Policy) -> Result<Converted> {
    let tokenizer = args.tokenizer.clone().context(
        "A training run has no tokenizer of its own. Name the tokenizer.json of its data with --tokenizer",
    )?;
    let folder = args
        .source
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    let export = Export {
        emu: args.source.clone(),
        decoder: args.decoder.clone().filter(|_| !args.no_decoder),
        tokenizer,
        best: args.best,
        merge: args.merge,
        files: vec![],
        meta: PackMeta {
            name: args.name.clone().or(folder).unwrap_or_default(),
            license: args.license.clone().unwrap_or_else(|| "unknown".into()),
            attribution: args.attribution.clone().unwrap_or_default(),
            ..Default::default()
        },
        options: options(args, policy, None),
    };
    let (manifest, outcomes) = export.write(&args.out)?;
    Ok(Converted {
        manifest,
        outcomes,
        kept_shards: 0,
    })
}
