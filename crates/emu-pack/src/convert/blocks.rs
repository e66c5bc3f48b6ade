//! Adding stored tensors to a pack, quantized or dense, without re-encoding.

use super::{Loss, PackWriter, policy::Encoding};
use crate::{Dtype, PackError, Quantized, Stored, TensorData, TensorInfo};

impl PackWriter {
    /// Adds a tensor bit for bit, ignoring the policy: quantized blocks unchanged, a dense tensor in its element type.
    ///
    /// # Errors
    /// As [`add`](Self::add), and if the parts of a quantized tensor do not match.
    pub fn add_stored(&mut self, component: &str, tensor: Stored) -> Result<(), PackError> {
        match tensor {
            Stored::Dense(tensor) => {
                let keep = Some(Encoding::Dense(tensor.info.dtype));
                self.guarded(|writer| writer.add_dense(component, &tensor, keep))
            }
            Stored::Quantized(tensor) => {
                self.guarded(|writer| writer.add_blocks(component, &tensor))
            }
        }
    }

    fn add_blocks(&mut self, component: &str, tensor: &Quantized) -> Result<(), PackError> {
        tensor.check_finite()?;
        let (encoding, info) = (
            Encoding::Quantized(tensor.scheme),
            TensorInfo {
                name: tensor.words.info.name.clone(),
                dtype: Dtype::F32,
                shape: tensor.shape.clone(),
            },
        );
        let pieces: Vec<&TensorData> = [&tensor.words, &tensor.scales]
            .into_iter()
            .chain(&tensor.mins)
            .collect();
        let stored = encoding.stored(&info);
        let pairs = || pieces.iter().zip(&stored);
        let misfit = pairs().find(|(piece, stored)| {
            (piece.info.dtype, &piece.info.shape) != (stored.dtype, &stored.shape)
        });
        if let Some((piece, stored)) = misfit {
            return Err(PackError::Misshapen {
                file: "quantized tensor".into(),
                tensor: info.name,
                expected: stored.describe(),
                found: piece.info.describe(),
            });
        }
        if pieces.len() != stored.len() {
            return Err(PackError::MissingTensor {
                file: "quantized tensor".into(),
                tensor: stored.last().map_or(info.name, |last| last.name.clone()),
            });
        }
        let rows = tensor.shape.first().copied().unwrap_or(1).max(1);
        self.add_encoded(component, &info, encoding, |[begin, end]| {
            let cut = |(piece, stored): (&&TensorData, &TensorInfo)| {
                let row = piece.bytes.len() / rows;
                let mut shape = stored.shape.clone();
                if let Some(len) = shape.first_mut() {
                    *len = end - begin;
                }
                let bytes = piece.bytes.get(begin * row..end * row).unwrap_or_default();
                TensorData::new(stored.name.clone(), stored.dtype, shape, bytes.to_vec())
            };
            Ok((pairs().map(cut).collect::<Result<_, _>>()?, Loss::default()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{PackMeta, Policy, Precision, WriteOptions, quantize};
    use crate::{PackReader, Scheme, quant};

    /// A quantized matrix `[rows, 64]`.
    fn blocks(name: &str, scheme: Scheme, rows: usize) -> Quantized {
        let values: Vec<f32> = (0..rows * 64)
            .map(|i| ((i * 37 % 101) as f32).sin())
            .collect();
        let dense = TensorData::from_f32(name, vec![rows, 64], &values).unwrap();
        let mut pieces = quantize(&dense, scheme).unwrap().unwrap().into_iter();
        Quantized {
            scheme,
            words: pieces.next().unwrap(),
            scales: pieces.next().unwrap(),
            mins: pieces.next(),
            shape: vec![rows, 64],
        }
    }

    fn writer(folder: &std::path::Path, max_shard_bytes: u64) -> PackWriter {
        let options = WriteOptions {
            max_shard_bytes,
            policy: Policy::uniform(Precision::Quantized(Scheme::Q8)),
            ..WriteOptions::default()
        };
        PackWriter::create(folder, PackMeta::default(), options).unwrap()
    }

    #[test]
    fn blocks_come_back_bit_for_bit_from_whole_and_cut_shards() {
        let folder = tempfile::tempdir().unwrap();
        for (at, limit) in [1 << 20, 1500].into_iter().enumerate() {
            let path = folder.path().join(at.to_string());
            let mut writer = writer(&path, limit);
            let dense: Vec<f32> = (0..128).map(|i| (i as f32).cos()).collect();
            let dense = TensorData::from_f32("dense", vec![2, 64], &dense).unwrap();
            let schemes = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1];
            let tensors = schemes.map(|scheme| blocks(scheme.name(), scheme, 33));
            for tensor in &tensors {
                writer
                    .add_stored("lm", Stored::Quantized(tensor.clone()))
                    .unwrap();
            }
            let norm = TensorData::from_f32("norm", vec![3], &[1.0, 2.0, 3.0]).unwrap();
            writer.add_stored("lm", norm.clone().into()).unwrap();
            writer.add_stored("lm", dense.clone().into()).unwrap();
            let manifest = writer.finish().unwrap();
            assert_eq!(manifest.shards.len() > 1, at == 1);
            let reader = PackReader::open(&path).unwrap();
            for tensor in &tensors {
                let Stored::Quantized(found) = reader.read_stored(tensor.scheme.name()).unwrap()
                else {
                    panic!("blocks");
                };
                assert_eq!(&found, tensor);
            }
            assert_eq!(reader.read_logical("norm").unwrap(), norm);
            assert_eq!(reader.read_logical("dense").unwrap(), dense);
        }
    }

    #[test]
    fn blocks_that_do_not_fit_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder.path().join("pack"), 1 << 20);
        let sound = blocks("w", Scheme::Q4_1, 4);
        let lacking = Quantized {
            mins: None,
            ..sound.clone()
        };
        let error = writer
            .add_stored("lm", Stored::Quantized(lacking))
            .unwrap_err();
        assert!(
            error.to_string().contains(&quant::mins_name("w")),
            "{error}"
        );
        let other = Quantized {
            scheme: Scheme::Q8,
            mins: None,
            ..sound.clone()
        };
        let error = writer
            .add_stored("lm", Stored::Quantized(other))
            .unwrap_err();
        assert_eq!(error.code(), "misshapen");
        let mut infinite = sound;
        infinite.scales.bytes[..2].copy_from_slice(&[0, 0x7c]);
        let error = writer
            .add_stored("lm", Stored::Quantized(infinite))
            .unwrap_err();
        assert_eq!(error.code(), "not-finite");
    }
}
