//! Compares every golden in a folder laid out like the reference implementation. This module reads the files;
//! [`emu_model::parity`] compares the numbers, and this module those that need a loss or an optimiser.

mod decoder;
mod files;
mod folder;
mod losses;
mod pictures;

use std::collections::HashSet;
use std::path::Path;

use emu_kernels::burn::tensor::{Device, read_sync};
use emu_model::keys;
use emu_model::parity::core::{self, Subject};
use emu_model::parity::generate::{self, Generator, roles};
use emu_model::parity::{Bound, Goldens, ParityError, Row, tokenizer};
use emu_pack::TensorSource;
use emu_pack::convert::open_weights;
use emu_tokenizer::EmuTokenizer;
use serde_json::Value;

pub use folder::{FolderError, Report};

use folder::{Files, open, read, read_json};

/// Compares everything in `folder`. `progress` receives the name of each part before it runs.
///
/// # Errors
/// If the folder is not laid out like the reference. Anything inside it that cannot be compared is a failed row.
pub fn run(
    folder: &Path,
    device: &Device,
    mut progress: impl FnMut(&str),
) -> Result<Report, FolderError> {
    let mut report = Report::default();
    let files = Files::find(folder)?;

    progress("encoder, causal former, language model");
    report.take("emu", pretrained(&files, device));
    progress("losses, gradients, AdamW");
    report.take("losses", losses::pretrained(&files, device));
    if files.path("-instruct.safetensors").is_file() {
        progress("instruction-tuned variant");
        report.take("instruct", instructed(&files, device));
        report.take("instruct.loss", losses::instructed(&files, device));
    } else {
        report
            .skipped
            .push(("instruct", files.name("-instruct.safetensors")));
    }
    progress("checkpoint files");
    files::compare(&files, &mut report);
    progress("tokenizer and preprocessing");
    llama_tokenizer(folder, &mut report);
    pictures::compare(folder, &mut report);
    progress("picture decoder");
    decoder::compare(&files, device, &mut report);
    let left = uncompared(&files, &report)?;
    report.uncompared.extend(left);
    Ok(report)
}

/// Goldens that are inputs of the comparisons.
const INPUTS: [&str; 5] = [
    "images",
    ".input_ids",
    ".attention_mask",
    ".generate_position_ids",
    ".causal_tokens",
];

fn uncompared(files: &Files, report: &Report) -> Result<Vec<String>, FolderError> {
    let goldens = files.goldens()?;
    let compared: HashSet<&str> = report.rows.iter().map(|row| row.tensor.as_str()).collect();
    let names = goldens.tensors().iter().map(|info| info.name.as_str());
    Ok(names
        .filter(|name| {
            !compared.contains(name) && !INPUTS.iter().any(|input| name.ends_with(input))
        })
        .map(str::to_owned)
        .collect())
}

fn pretrained(files: &Files, device: &Device) -> Result<Vec<Row>, FolderError> {
    let source = files.goldens()?;
    let goldens = Goldens {
        tensors: &source,
        json: &files.json,
    };
    let config = files.pretrained()?;
    let emu = open(&files.path(".safetensors"), &config, &keys::emu()?, device)?;
    let subject = Subject {
        emu: &emu,
        config: &config,
        device,
    };
    let mut rows = core::forward(subject, &goldens)?;

    let text = files.tokenizer(false)?;
    let visual = core::embeddings(subject, &goldens)?;
    let generator = Generator {
        subject,
        tokenizer: &text,
        visual: &visual,
    };
    rows.extend(read_sync(generate::all(generator, &goldens))?);
    if let Some(cases) = files.json.get("tokenizer").and_then(Value::as_array) {
        rows.extend(tokenizer::cases("tokenizer", &text, cases)?);
    }
    let special = files.json.get("special_ids");
    rows.extend(tokenizer::specials_and_padding(
        "tokenizer",
        &text,
        special,
        None,
    )?);
    Ok(rows)
}

fn instructed(files: &Files, device: &Device) -> Result<Vec<Row>, FolderError> {
    let source = files.goldens()?;
    let goldens = Goldens {
        tensors: &source,
        json: &files.json,
    };
    let path = files.path("-instruct.safetensors");
    let config = files.instructed(&*open_weights(&path)?)?;
    let emu = open(&path, &config, &keys::emu_instruct()?, device)?;
    let subject = Subject {
        emu: &emu,
        config: &config,
        device,
    };

    let mut rows = vec![];
    let visual = core::embeddings(subject, &goldens)?;
    if goldens.has("instruct.image_embeds") {
        rows.push(goldens.compare("instruct.image_embeds", &visual, Bound::Forward));
    }
    core::batch(subject, &goldens, "instruct", &visual, &mut rows)?;
    rows.extend(core::merged(subject, &goldens));
    let text = files.tokenizer(true)?;
    let generator = Generator {
        subject,
        tokenizer: &text,
        visual: &visual,
    };
    rows.extend(read_sync(generate::instruct(generator, &goldens))?);
    Ok(rows)
}

/// The original LLaMA tokenizer, from both of its files, if the folder holds them.
fn llama_tokenizer(folder: &Path, report: &mut Report) {
    let (golden, tokenizer) = (
        folder.join("tokenizer-golden.json"),
        folder.join("llama-tokenizer"),
    );
    if !golden.is_file() || !tokenizer.is_dir() {
        let absent = if golden.is_file() {
            "llama-tokenizer"
        } else {
            "tokenizer-golden.json"
        };
        report.skipped.push(("LLaMA tokenizer", absent.into()));
        return;
    }
    for file in ["tokenizer.model", "tokenizer.json"] {
        let path = tokenizer.join(file);
        if !path.is_file() {
            report
                .skipped
                .push(("LLaMA tokenizer", format!("llama-tokenizer/{file}")));
            continue;
        }
        report.take(file, llama_cases(file, &path, &golden));
    }
}

fn llama_cases(file: &str, path: &Path, golden: &Path) -> Result<Vec<Row>, FolderError> {
    let (bytes, json) = (read(path)?, read_json(golden)?);
    let mut rows = vec![];
    for (variant, instruct) in [("pretrain", false), ("instruct", true)] {
        let Some(part) = json.get(variant) else {
            continue;
        };
        let text = match file.ends_with(".model") {
            true => EmuTokenizer::from_sentencepiece_bytes(&bytes, roles(instruct)),
            false => EmuTokenizer::from_base_json_bytes(&bytes, roles(instruct)),
        };
        let text = text.map_err(ParityError::from)?;
        let name = format!("{file} {variant}");
        let cases = part.get("cases").and_then(Value::as_array);
        rows.extend(tokenizer::cases(
            &name,
            &text,
            cases.map_or(&[][..], |c| c),
        )?);
        let padding = json.get("padding").filter(|_| !instruct);
        let special = part.get("special_ids");
        rows.extend(tokenizer::specials_and_padding(
            &name, &text, special, padding,
        )?);
    }
    Ok(rows)
}
