//! Splices visual embeddings into token embeddings, at the `<image>` tokens.

use burn::tensor::{Int, Tensor, TensorData};
use emu_kernels::QEmbedding;

/// Image marks and visual embeddings do not match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpliceError {
    /// Numbers of marks and embeddings differ.
    #[error(
        "The prompt has {marks} <image> positions but {embeddings} visual embeddings were given. Put one <image> mark for each picture."
    )]
    Count {
        /// Number of `<image>` tokens.
        marks: usize,
        /// Number of visual embeddings.
        embeddings: usize,
    },
    /// Rows differ in length.
    #[error("The sequences of a batch differ in length. Pad them first.")]
    Ragged,
}

/// See [`Emu::splice`].
pub fn splice(
    table: &QEmbedding,
    ids: &[Vec<u32>],
    visual: Option<Tensor<3>>,
    image: u32,
) -> Result<Tensor<3>, SpliceError> {
    let (b, t) = (ids.len(), ids.first().map_or(0, Vec::len));
    if ids.iter().any(|row| row.len() != t) {
        return Err(SpliceError::Ragged);
    }
    let flat: Vec<u32> = ids.iter().flatten().copied().collect();
    let marks: Vec<usize> = (0..flat.len()).filter(|&i| flat[i] == image).collect();
    let embeddings = visual.as_ref().map_or(0, |v| v.dims()[0] * v.dims()[1]);
    if marks.len() != embeddings {
        return Err(SpliceError::Count {
            marks: marks.len(),
            embeddings,
        });
    }
    let device = table.weight.lazy_device();
    let tokens: Tensor<2, Int> = Tensor::from_data(
        TensorData::new(flat.iter().map(|&i| i as i32).collect(), [b, t]),
        &device,
    );
    let text = table.forward(tokens); // [B, T, D]
    let Some(visual) = visual else {
        return Ok(text);
    };

    // One gather over [text rows; visual rows]: position i takes its own row, or the next visual row.
    let [_, _, d] = text.dims();
    let mut next = b * t;
    let source: Vec<i32> = flat
        .iter()
        .enumerate()
        .map(|(i, &id)| {
            if id == image {
                next += 1;
                (next - 1) as i32
            } else {
                i as i32
            }
        })
        .collect();
    let source: Tensor<1, Int> = Tensor::from_data(TensorData::new(source, [b * t]), &device);
    let rows = Tensor::cat(
        vec![text.reshape([b * t, d]), visual.reshape([embeddings, d])],
        0,
    );
    Ok(rows.select(0, source).reshape([b, t, d]))
}
