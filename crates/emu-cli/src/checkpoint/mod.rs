//! `emu data checkpoint`: a checkpoint of random weights in the published layout of the released model.
//!
//! It replaces the real 34 GB in tests of whether a conversion of that size works, how long it takes and how much memory it
//! needs. These depend only on keys, shapes and element types, which are known.

mod keys;
mod pytorch;
mod random;
mod tokenizer;

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::args::CheckpointArgs;
use crate::convert::read_json;
use crate::output::{bar, bytes, json_line, print_now};
use keys::{Part, Tensor};
use random::Weights;

/// Disk space that must stay free after writing the checkpoint.
const SPARE: u64 = 256 << 20;

/// Writes the whole checkpoint, or nothing on error.
pub fn run(args: &CheckpointArgs) -> Result<()> {
    let folder = &args.out;
    if folder.exists() {
        bail!(
            "{} exists already. Name a folder that does not.",
            folder.display()
        );
    }
    let name = folder.file_name().with_context(|| {
        format!(
            "{} is no name for a folder. Name another one",
            folder.display()
        )
    })?;
    let emu = keys::emu(&args.keys, args.layers)?;
    let decoder = match args.no_decoder {
        true => None,
        false => Some(keys::decoder(&args.keys)?),
    };
    let parts = || std::iter::once(&emu.part).chain(decoder.iter().flat_map(|d| d.parts()));
    let size: u64 = parts().map(Part::bytes).sum();
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if let Some(free) = free_space(parent)?
        && free < size + SPARE
    {
        bail!(
            "The checkpoint takes {}, and {} are free at {}. Free some space, or take fewer layers with --layers.",
            bytes(size),
            bytes(free),
            parent.display()
        );
    }

    let scratch = Scratch(folder.with_file_name(format!(".{}.part", name.to_string_lossy())));
    let bar = bar(size, "bytes");
    let weights = Weights::new(args.seed);
    scratch.json("Emu-14B.json", &emu.config)?;
    scratch.json("llama/config.json", &emu.llama)?;
    scratch.write("llama/tokenizer.model", &tokenizer::model(emu.pieces))?;
    let file = scratch.create("Emu-pretrain.pt")?;
    pytorch::write(file, &emu.part.tensors, &weights, &bar)
        .with_context(|| scratch.failed("Emu-pretrain.pt"))?;
    if let Some(decoder) = &decoder {
        scratch.json("scheduler/scheduler_config.json", &scheduler())?;
        for part in decoder.parts() {
            scratch.json(&format!("{}/config.json", part.folder), &part.config)?;
            let path = format!("{}/{}", part.folder, part.file);
            safetensors(scratch.create(&path)?, &part.tensors, &weights, &bar)
                .with_context(|| scratch.failed(&path))?;
        }
    }
    fs::rename(&scratch.0, folder).with_context(|| scratch.failed(&folder.to_string_lossy()))?;
    bar.finish_and_clear();
    let tensors: usize = parts().map(|part| part.tensors.len()).sum();
    if args.json {
        return json_line(&json!({"out": folder, "tensors": tensors, "bytes": size}));
    }
    print_now(&format!(
        "{}: {tensors} tensors, {}\n",
        folder.display(),
        bytes(size)
    ))
}

/// A temporary folder that is removed unless it is renamed.
struct Scratch(PathBuf);

impl Scratch {
    fn create(&self, name: &str) -> Result<BufWriter<fs::File>> {
        let path = self.0.join(name);
        let parent = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(parent).with_context(|| self.failed(name))?;
        let file = fs::File::create(&path).with_context(|| self.failed(name))?;
        Ok(BufWriter::new(file))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.create(name)?;
        file.write_all(bytes)
            .and_then(|()| file.flush())
            .with_context(|| self.failed(name))
    }

    fn json(&self, name: &str, value: &Value) -> Result<()> {
        self.write(name, format!("{value:#}\n").as_bytes())
    }

    fn failed(&self, name: &str) -> String {
        format!(
            "{} cannot be written; check the space left and the permissions",
            self.0.join(name).display()
        )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a safetensors file tensor by tensor.
fn safetensors(
    mut out: impl Write,
    tensors: &[Tensor],
    weights: &Weights,
    bar: &ProgressBar,
) -> Result<()> {
    let mut header = serde_json::Map::new();
    let mut at = 0;
    for tensor in tensors {
        let end = at + tensor.bytes();
        let dtype = tensor.dtype.name();
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end]});
        header.insert(tensor.name.clone(), entry);
        at = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for tensor in tensors {
        weights.write(tensor, &mut out, bar)?;
    }
    Ok(out.flush()?)
}

/// Scheduler configuration of Stable Diffusion 1.5.
fn scheduler() -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
    })
}

/// Free bytes on the file system of a folder, where the system reports them.
#[cfg(unix)]
fn free_space(folder: &Path) -> Result<Option<u64>> {
    let disk = rustix::fs::statvfs(folder)
        .with_context(|| format!("{} cannot be written to; check the path", folder.display()))?;
    Ok(disk.f_bavail.checked_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Result<Option<u64>> {
    Ok(None)
}

/// Reads a key list.
fn keys_file(folder: &Path, name: &str) -> Result<Value> {
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there. Name the folder of the lists of keys with --keys.",
            path.display()
        );
    }
    read_json(&path)
}
