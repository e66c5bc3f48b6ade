//! A cache of latents from a frozen autoencoder.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use half::f16;

use super::decoder::floats;
use crate::TrainError;

/// Latents by sample key. They are rounded to f16 on first use too, so that a resumed run, which encodes them again,
/// gets the same values.
#[derive(Debug, Default)]
pub(super) struct Kept {
    latents: HashMap<String, Vec<f16>>,
    /// Shape of each: `[C, S, S]`.
    shape: [usize; 3],
}

impl Kept {
    /// The latents of a batch, `[B, C, S, S]`.
    ///
    /// # Arguments
    /// - `pictures`: the pictures of `keys`, concatenated
    /// - `encode`: computes the latents of pictures that are not cached
    ///
    /// # Errors
    /// If the device fails.
    pub fn find(
        &mut self,
        keys: &[String],
        pictures: &[f32],
        device: &Device,
        encode: impl FnOnce(Vec<f32>) -> Tensor<4>,
    ) -> Result<Tensor<4>, TrainError> {
        let picture = pictures.len() / keys.len().max(1);
        let unknown = |i: &usize| {
            let key = &keys[*i];
            !self.latents.contains_key(key) && !keys[..*i].contains(key)
        };
        let new: Vec<usize> = (0..keys.len()).filter(unknown).collect();
        if !new.is_empty() {
            let of = |&i: &usize| &pictures[i * picture..][..picture];
            let encoded = encode(new.iter().flat_map(of).copied().collect());
            let [_, c, h, w] = encoded.dims();
            self.shape = [c, h, w];
            let values = floats(encoded)?;
            for (&i, values) in new.iter().zip(values.chunks_exact(c * h * w)) {
                let values = values.iter().map(|v| f16::from_f32(*v)).collect();
                self.latents.insert(keys[i].clone(), values);
            }
        }
        let all = keys.iter().flat_map(|key| &self.latents[key]);
        let all: Vec<f32> = all.map(|v| v.to_f32()).collect();
        let [c, h, w] = self.shape;
        let data = TensorData::new(all, [keys.len(), c, h, w]);
        Ok(Tensor::from_data(data, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_once_is_not_encoded_again() {
        let device = Device::flex();
        let mut kept = Kept::default();
        let mut encoded = vec![];
        let mut find = |keys: &[&str], pictures: &[f32]| -> Vec<f32> {
            let keys: Vec<String> = keys.iter().map(|&key| key.into()).collect();
            let encode = |pictures: Vec<f32>| {
                encoded.push(pictures.len());
                let n = pictures.len();
                let half = pictures.iter().map(|v| v / 2.0).collect();
                Tensor::from_data(TensorData::new(half, [n, 1, 1, 1]), &device)
            };
            let found = kept.find(&keys, pictures, &device, encode);
            floats(found.expect("latents")).expect("numbers")
        };
        assert_eq!(find(&["a", "b", "a"], &[2.0, 4.0, 2.0]), [1.0, 2.0, 1.0]);
        assert_eq!(
            find(&["b", "c"], &[4.0, 0.2]),
            [2.0, f16::from_f32(0.1).to_f32()]
        );
        assert_eq!(
            find(&["c", "a"], &[0.2, 2.0]),
            [f16::from_f32(0.1).to_f32(), 1.0]
        );
        assert_eq!(encoded, [2, 1]);
    }
}
