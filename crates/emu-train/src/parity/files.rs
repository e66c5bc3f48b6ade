//! The same weights in every supported file format.

use std::collections::HashSet;
use std::path::Path;

use emu_kernels::burn::tensor::Device;
use emu_model::parity::Row;
use emu_model::{EmuConfig, keys, weights};
use emu_pack::convert::open_weights;
use emu_pack::{Dtype, KeyMap, TensorData, TensorSource, check};

use super::folder::{Files, FolderError, Report};

/// Compares the PyTorch files with the safetensors file beside them.
pub(super) fn compare(files: &Files, report: &mut Report) {
    for (base, others) in [
        (".safetensors", &[".pt", "-module.pt", "-bf16mixed.pt"][..]),
        ("-instruct.safetensors", &["-instruct.pt"]),
    ] {
        for other in others {
            let (base, path) = (files.path(base), files.path(other));
            let name = files.name(other);
            if !path.is_file() || !base.is_file() {
                report.skipped.push(("checkpoint file", name));
                continue;
            }
            let instruct = base.ends_with(files.name("-instruct.safetensors"));
            match same(files, &base, &path, instruct) {
                Ok(error) => report.rows.push(Row::new(name, error, 0.0)),
                Err(error) => report.rows.push(Row::failed(name, error)),
            }
        }
    }
}

/// The largest difference between two files, with each value rounded to its type in the second. The names must be equal
/// and cover the model.
fn same(files: &Files, base: &Path, other: &Path, instruct: bool) -> Result<f64, FolderError> {
    let (base, other) = (open_weights(base)?, open_weights(other)?);
    let (config, map) = match instruct {
        true => (files.instructed(&*base)?, keys::emu_instruct()?),
        false => (files.pretrained()?, keys::emu()?),
    };
    fills(&*other, &config, &map)?;
    let names = |source: &dyn TensorSource| -> HashSet<String> {
        source
            .tensors()
            .iter()
            .map(|info| info.name.clone())
            .collect()
    };
    if names(&*base) != names(&*other) {
        return Ok(f64::INFINITY);
    }
    let mut error = 0f64;
    for info in base.tensors() {
        let (want, got) = (base.read(&info.name)?, other.read(&info.name)?);
        if want.info.shape != got.info.shape {
            return Ok(f64::INFINITY);
        }
        let want = rounded(&want, got.info.dtype)?;
        for (got, want) in got.to_f32()?.iter().zip(&want) {
            let difference = (f64::from(*got) - f64::from(*want)).abs();
            error = if difference.is_nan() {
                f64::INFINITY
            } else {
                error.max(difference)
            };
        }
    }
    Ok(error)
}

fn fills(source: &dyn TensorSource, config: &EmuConfig, map: &KeyMap) -> Result<(), FolderError> {
    let expected = weights::parameters(&config.init(&Device::flex())?);
    check(source.tensors(), &expected, map)?;
    Ok(())
}

fn rounded(tensor: &TensorData, dtype: Dtype) -> Result<Vec<f32>, FolderError> {
    let values = tensor.to_f32()?;
    Ok(match dtype {
        Dtype::BF16 => values
            .iter()
            .map(|&v| half::bf16::from_f32(v).to_f32())
            .collect(),
        Dtype::F16 => values
            .iter()
            .map(|&v| half::f16::from_f32(v).to_f32())
            .collect(),
        _ => values,
    })
}
