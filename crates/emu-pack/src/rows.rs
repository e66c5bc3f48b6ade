//! Row permutation of stored tensors.

use crate::quant::{Quantized, Stored};
use crate::{PackError, TensorData};

impl Stored {
    /// Undoes an interleaving of the two halves of each of `groups` row groups: a group of E rows is stored in the order 0, E/2,
    /// 1, E/2 + 1, .. Only whole rows move, so this applies to every tensor of a quantized matrix: words, scales and minima.
    ///
    /// # Errors
    /// [`PackError::Misshapen`] if the rows do not divide into `groups` groups of even size.
    pub fn with_halves_joined(self, groups: usize) -> Result<Self, PackError> {
        Ok(match self {
            Self::Dense(tensor) => Self::Dense(join(tensor, groups)?),
            Self::Quantized(tensor) => Self::Quantized(Quantized {
                words: join(tensor.words, groups)?,
                scales: join(tensor.scales, groups)?,
                mins: tensor.mins.map(|mins| join(mins, groups)).transpose()?,
                ..tensor
            }),
        })
    }
}

fn join(mut tensor: TensorData, groups: usize) -> Result<TensorData, PackError> {
    let rows = tensor.info.shape.first().copied().unwrap_or(0);
    let halves = groups.saturating_mul(2);
    let whole = halves > 0 && rows.is_multiple_of(halves);
    if !whole || !tensor.bytes.len().is_multiple_of(rows.max(1)) {
        return Err(PackError::Misshapen {
            file: "weights".into(),
            tensor: tensor.info.name.clone(),
            expected: format!("{groups} groups of an even number of rows"),
            found: tensor.info.describe(),
        });
    }
    let (row, half) = (tensor.bytes.len() / rows.max(1), rows / halves);
    let mut bytes = Vec::with_capacity(tensor.bytes.len());
    for group in 0..groups {
        for side in 0..2 {
            for i in 0..half {
                let from = (group * 2 * half + 2 * i + side) * row;
                bytes.extend_from_slice(tensor.bytes.get(from..from + row).unwrap_or_default());
            }
        }
    }
    tensor.bytes = bytes;
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

    #[test]
    fn rows_that_alternate_get_their_order_back() {
        // Two groups of four rows, one byte each.
        let alternating = vec![0, 2, 1, 3, 4, 6, 5, 7];
        let read = |groups| {
            let tensor = TensorData::new("w", Dtype::U8, vec![8, 1], alternating.clone());
            let joined = Stored::Dense(tensor?).with_halves_joined(groups)?;
            Ok::<_, PackError>(joined.into_dense()?.bytes)
        };
        let straight: Vec<u8> = (0..8).collect();
        assert_eq!(read(2).expect("rows"), straight);
        for groups in [0, 3, 8, usize::MAX] {
            let error = read(groups).expect_err("no halves");
            assert_eq!(error.code(), "misshapen", "{groups}");
        }
    }
}
