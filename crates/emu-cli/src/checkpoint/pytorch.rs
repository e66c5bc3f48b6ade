//! Writes a file in the format of `torch.save(model.state_dict())`: a zip archive with a pickle and one entry per storage.

use std::io::{Seek, Write};

use anyhow::Result;
use emu_pack::Dtype;
use indicatif::ProgressBar;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::keys::Tensor;
use super::random::Weights;

/// Writes the archive, tensor by tensor.
///
/// # Errors
/// Of `out`.
pub fn write(
    out: impl Write + Seek,
    tensors: &[Tensor],
    weights: &Weights,
    bar: &ProgressBar,
) -> Result<()> {
    let mut zip = ZipWriter::new(out);
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored)?;
    zip.write_all(&pickle(tensors))?;
    zip.start_file("archive/byteorder", stored)?;
    zip.write_all(b"little")?;
    for (i, tensor) in tensors.iter().enumerate() {
        let large = tensor.bytes() > u64::from(u32::MAX);
        zip.start_file(format!("archive/data/{i}"), stored.large_file(large))?;
        weights.write(tensor, &mut zip, bar)?;
    }
    zip.start_file("archive/version", stored)?;
    zip.write_all(b"3\n")?;
    zip.finish()?.flush()?;
    Ok(())
}

/// The pickle, protocol 2: an OrderedDict of tensors, each with its own storage.
fn pickle(tensors: &[Tensor]) -> Vec<u8> {
    let mut out = Pickle(vec![0x80, 2]);
    out.ordered_dict().op(b"(");
    for (i, tensor) in tensors.iter().enumerate() {
        out.text(&tensor.name);
        out.global("torch._utils", "_rebuild_tensor_v2").op(b"((");
        out.text("storage");
        out.global("torch", storage(tensor.dtype));
        out.text(&i.to_string()).text("cpu");
        out.int(tensor.elements()).op(b"tQ").int(0);
        let sizes = tensor.shape.iter();
        let strides = (1..=tensor.shape.len()).map(|d| tensor.shape.get(d..).unwrap_or_default());
        out.op(b"(");
        sizes.for_each(|&size| {
            out.int(size);
        });
        out.op(b"t(");
        strides.for_each(|inner| {
            out.int(inner.iter().product());
        });
        // requires_grad, backward hooks
        out.op(b"t\x89").ordered_dict().op(b"tR");
    }
    out.op(b"u}").text("_metadata").ordered_dict().op(b"sb.");
    out.0
}

fn storage(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "BFloat16Storage",
        Dtype::F16 => "HalfStorage",
        _ => "FloatStorage",
    }
}

struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes());
        self.op(text.as_bytes())
    }

    fn int(&mut self, value: usize) -> &mut Self {
        // LONG1 with eight bytes: sizes are below 2^63.
        self.op(&[0x8a, 8]).op(&(value as u64).to_le_bytes())
    }

    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    fn ordered_dict(&mut self) -> &mut Self {
        self.global("collections", "OrderedDict").op(b")R")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use emu_pack::TensorSource;
    use emu_pack::convert::PyTorchFile;

    use super::*;

    #[test]
    fn the_reader_finds_what_was_written() {
        let tensor = |name: &str, dtype, shape: &[usize]| Tensor {
            name: name.into(),
            dtype,
            shape: shape.into(),
        };
        let tensors = [
            tensor("a.weight", Dtype::BF16, &[3, 5]),
            tensor("a.bias", Dtype::F32, &[3]),
            tensor("conv", Dtype::F32, &[2, 3, 4, 5]),
        ];
        let mut file = Cursor::new(vec![]);
        write(
            &mut file,
            &tensors,
            &Weights::new(1),
            &ProgressBar::hidden(),
        )
        .expect("memory");
        let file = PyTorchFile::from_reader("test", file).expect("an archive");
        let found: Vec<Tensor> = { file.tensors().iter() }
            .map(|info| tensor(&info.name, info.dtype, &info.shape))
            .collect();
        assert_eq!(found, tensors);
        for tensor in &tensors {
            let values = file.read(&tensor.name).and_then(|t| t.to_f32());
            assert!(values.expect("floats").iter().all(|v| v.is_finite()));
        }
    }
}
