//! Weights that stay packed on the device: the pack's own quantized blocks of 32, or f16, multiplied without dequantizing
//! the whole matrix.
//!
//! A packed weight is attached to its parameter: [`attach`] sets it, [`of`] gets it. Reading the parameter's dense value
//! dequantizes it at that moment; the layers of this crate never do.

use burn::backend::Dispatch;
use burn::module::{Module, Param, ParamId, Reparameterization, Reparameterizer};
use burn::tensor::kind::Basic;
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};

use crate::device::{on_cpu, persistent};
use crate::ops::matmul::MatmulBackend;

pub use crate::spec::{Activations, BLOCK, PackedSpec, Scheme};

#[cfg(feature = "wgpu")]
pub use crate::gpu::matmul::is_gemv;

/// Buffer size in bytes that every WebGPU adapter can bind whole. Larger matrices are split by rows.
const BINDING: usize = 1 << 27;

/// Whether a matrix of this shape can be packed.
pub const fn fits([out, width]: [usize; 2]) -> bool {
    out > 0 && width > 0 && width.is_multiple_of(BLOCK)
}

/// A matrix `[out, in]` in blocks of [`BLOCK`] along `in`, on a device.
#[derive(Module, Debug)]
pub struct Packed {
    /// Stacked by rows; usually one.
    #[module(skip)]
    parts: Vec<Rows>,
}

/// Rows of a matrix with their own buffers.
#[derive(Clone, Debug)]
struct Rows {
    words: Tensor<1, Int>,
    scales: Option<Tensor<1, Int>>,
    mins: Option<Tensor<1, Int>>,
    spec: PackedSpec,
}

/// The parts of a packed matrix have inconsistent lengths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "A packed matrix of {out} x {width} wants {expected} {what}, but there are {found}. Convert the checkpoint again."
)]
pub struct PackedError {
    /// Rows.
    pub out: usize,
    /// Columns.
    pub width: usize,
    /// The part.
    pub what: &'static str,
    /// Expected length.
    pub expected: usize,
    /// Actual length.
    pub found: usize,
}

impl Packed {
    /// Uploads a packed matrix to a device.
    ///
    /// # Arguments
    /// - `words`: element 0 of a row is in the lowest bits of its first word
    /// - `scales`, `mins`: f16 bits, one per block; no scales if the scheme has none
    ///
    /// # Errors
    /// A part's length does not match `[out, width]`.
    pub fn new(
        scheme: Scheme,
        [out, width]: [usize; 2],
        words: &[u32],
        scales: &[u16],
        mins: Option<&[u16]>,
        device: &Device,
    ) -> Result<Self, PackedError> {
        Self::split(scheme, [out, width], words, scales, mins, BINDING, device)
    }

    /// Same, with buffers of at most `binding` bytes.
    fn split(
        scheme: Scheme,
        [out, width]: [usize; 2],
        words: &[u32],
        scales: &[u16],
        mins: Option<&[u16]>,
        binding: usize,
        device: &Device,
    ) -> Result<Self, PackedError> {
        let blocks = out * (width / BLOCK);
        let check = |what, expected, found| match expected == found {
            true => Ok(()),
            false => Err(PackedError {
                out,
                width,
                what,
                expected,
                found,
            }),
        };
        check("columns in blocks of 32", width / BLOCK * BLOCK, width)?;
        check("words", blocks * scheme.words(), words.len())?;
        let wanted = |is: bool| if is { blocks } else { 0 };
        check("scales", wanted(scheme.has_scales()), scales.len())?;
        let found = mins.map_or(0, <[u16]>::len);
        check("minimums", wanted(scheme.has_mins()), found)?;

        // Even, so that no pair of scales is split.
        let per_part = (binding / (width / BLOCK * scheme.words() * 4).max(1)).max(2) / 2 * 2;
        let row = width / BLOCK;
        let parts = (0..out).step_by(per_part).map(|first| {
            let rows = per_part.min(out - first);
            let blocks = first * row..(first + rows) * row;
            let spec = PackedSpec::plain(scheme, [rows, width]);
            let words = &words[blocks.start * scheme.words()..blocks.end * scheme.words()];
            Rows {
                words: int(bytemuck::cast_slice(words).to_vec(), device),
                scales: (scheme.has_scales()).then(|| halves(&scales[blocks.clone()], device)),
                mins: mins.map(|mins| halves(&mins[blocks], device)),
                spec,
            }
        });
        Ok(Self {
            parts: parts.collect(),
        })
    }

    /// Stacks matrices by rows; `None` unless their blocks are of one kind and fit one buffer.
    pub fn concat_rows(parts: &[&Self]) -> Option<Self> {
        let whole: Option<Vec<&Rows>> = { parts.iter() }
            .map(|part| match part.parts.as_slice() {
                [only] => Some(only),
                _ => None,
            })
            .collect();
        let parts = whole?;
        let first = parts.first()?;
        let alike = |part: &&Rows| {
            let (a, b) = (part.spec, first.spec);
            // Scales are stored in pairs, so nothing can follow an odd number of them.
            (a.scheme, a.width) == (b.scheme, b.width)
                && (!a.scheme.has_scales() || (a.out * a.width / BLOCK).is_multiple_of(2))
        };
        let words: usize = parts.iter().map(|part| part.words.dims()[0]).sum();
        (parts.iter().all(alike) && 4 * words <= BINDING).then_some(())?;
        let concat = |of: fn(&Rows) -> Option<Tensor<1, Int>>| {
            let all: Option<Vec<_>> = parts.iter().map(|part| of(part)).collect();
            all.map(|all| persistent(&all[0].device(), || Tensor::cat(all, 0)))
        };
        let out = parts.iter().map(|part| part.spec.out).sum();
        let rows = Rows {
            words: concat(|part| Some(part.words.clone()))?,
            scales: concat(|part| part.scales.clone()),
            mins: concat(|part| part.mins.clone()),
            spec: PackedSpec { out, ..first.spec },
        };
        Some(Self { parts: vec![rows] })
    }

    /// Sets the precision of activations in products.
    pub fn with_activations(mut self, activations: Activations) -> Self {
        for part in &mut self.parts {
            part.spec.activations = activations;
        }
        self
    }

    /// Sets the precision of activations in products as `choose` decides for the scheme.
    pub fn with_activations_by(self, choose: fn(Scheme) -> Activations) -> Self {
        match self.parts.first().map(|part| part.spec.scheme) {
            Some(scheme) => self.with_activations(choose(scheme)),
            None => self,
        }
    }

    /// Whether activations of its products may be quantized.
    pub fn rounds(&self) -> bool {
        { self.parts.iter() }.any(|part| part.spec.activations == Activations::Int8)
    }

    /// `[out, in]`
    pub fn shape(&self) -> [usize; 2] {
        let out = self.parts.iter().map(|part| part.spec.out).sum();
        [out, self.parts.first().map_or(0, |part| part.spec.width)]
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        let bytes = |spec: PackedSpec| spec.scheme.bytes([spec.out, spec.width]);
        self.parts.iter().map(|part| bytes(part.spec)).sum()
    }

    /// Device of the matrix.
    pub fn device(&self) -> Device {
        self.parts[0].words.device()
    }

    /// `x Wᵀ + b`.
    ///
    /// # Shapes
    /// - `x`: `[.., in]`, `bias`: `[out]`
    /// - returns `[.., out]`
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        self.product(x, bias, None, false)
    }

    /// `x Wᵀ + b + r`.
    ///
    /// # Shapes
    /// - `x`: `[.., in]`, `bias`: `[out]`, `residual`: `[.., out]`
    /// - returns `[.., out]`
    pub fn linear_add<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        residual: Tensor<D>,
    ) -> Tensor<D> {
        self.product(x, bias, Some(residual), false)
    }

    /// `silu(x Gᵀ) * x Uᵀ`, where this matrix is G [above](Self::stacked) U.
    ///
    /// # Shapes
    /// - `x`: `[.., in]`
    /// - returns `[.., out / 2]`
    pub fn gated<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.product(x, None, None, true)
    }

    /// Matrix product for any rank: leading axes are folded into rows.
    fn product<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<D>>,
        pair: bool,
    ) -> Tensor<D> {
        let (mut dims, [out, width]) = (x.dims(), self.shape());
        let rows = dims.iter().product::<usize>() / width;
        dims[D - 1] = if pair { out / 2 } else { out };
        let residual = residual.map(|residual| residual.reshape([rows, out]));
        let x = x.reshape([rows, width]);
        self.product_of_rows(x, bias, residual, pair).reshape(dims)
    }

    fn product_of_rows(
        &self,
        x: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
        pair: bool,
    ) -> Tensor<2> {
        crate::count::weights_read(self.bytes());
        if let [rows] = self.parts.as_slice() {
            return rows.product(x, bias, residual, pair);
        }
        let each = { self.parts.iter() }.map(|rows| rows.product(x.clone(), None, None, false));
        let mut y = Tensor::cat(each.collect(), 1);
        if let Some(bias) = bias {
            y = y + bias.unsqueeze();
        }
        match residual {
            Some(residual) => y + residual,
            None => y,
        }
    }

    /// Rows of the matrix, dequantized: `[n]` ids, each below `out`, to `[n, in]`.
    pub fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        if let [rows] = self.parts.as_slice() {
            return rows.rows(ids);
        }
        let mut first = 0;
        let each = { self.parts.iter() }.map(|rows| {
            let here = ids.clone().sub_scalar(first as i64);
            let count = rows.spec.out as i64;
            first += rows.spec.out;
            let outside = here
                .clone()
                .lower_elem(0)
                .bool_or(here.clone().greater_equal_elem(count));
            let found = rows.rows(here);
            let outside = outside.unsqueeze_dim::<2>(1).expand(found.dims());
            found.mask_fill(outside, 0.0)
        });
        each.reduce(|a, b| a + b)
            .expect("a matrix has at least one part")
    }

    /// A range of rows, dequantized, such as one of the [`stacked`](Self::stacked) parts.
    pub fn part(&self, rows: core::ops::Range<usize>) -> Tensor<2> {
        self.rows(Tensor::arange(
            rows.start as i64..rows.end as i64,
            &self.device(),
        ))
    }

    /// The whole matrix, dequantized: `[out, in]`.
    pub fn dense(&self) -> Tensor<2> {
        self.part(0..self.shape()[0])
    }
}

fn int(values: Vec<i32>, device: &Device) -> Tensor<1, Int> {
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), (device, DType::I32))
}

/// Packs f16 bits in pairs into words.
fn halves(values: &[u16], device: &Device) -> Tensor<1, Int> {
    let pairs = values.chunks(2).map(|pair| {
        let high = pair.get(1).copied().unwrap_or(0);
        (u32::from(pair[0]) | u32::from(high) << 16) as i32
    });
    int(pairs.collect(), device)
}

impl Rows {
    /// Words, scales and minimums; placeholders where absent.
    fn tensors(&self) -> [Tensor<1, Int>; 3] {
        let or_words = |half: &Option<_>| half.clone().unwrap_or_else(|| self.words.clone());
        let (scales, mins) = (or_words(&self.scales), or_words(&self.mins));
        [self.words.clone(), scales, mins]
    }

    fn product(
        &self,
        x: Tensor<2>,
        bias: Option<Tensor<1>>,
        residual: Option<Tensor<2>>,
        pair: bool,
    ) -> Tensor<2> {
        let spec = PackedSpec {
            bias: bias.is_some(),
            residual: residual.is_some(),
            pair,
            ..self.spec
        };
        let placeholder = || x.clone().into_dispatch();
        let bias = bias.map_or_else(placeholder, Tensor::into_dispatch);
        let residual = residual.map_or_else(placeholder, Tensor::into_dispatch);
        let [words, scales, mins] = self.tensors().map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::emu_packed_linear(
            x.into_dispatch(),
            words,
            scales,
            mins,
            bias,
            residual,
            spec,
        ))
    }

    fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let [words, scales, mins] = self.tensors().map(Tensor::into_dispatch);
        Tensor::from_dispatch(Dispatch::emu_packed_rows(
            ids.into_dispatch(),
            words,
            scales,
            mins,
            self.spec,
        ))
    }
}

/// Whether packed weights can be used on a device: not with autodiff.
pub fn supported(device: &Device) -> bool {
    !device.is_autodiff()
}

/// Whether f16 matrices should stay packed on a device: on GPUs only. The CPU is faster with f32.
pub fn keeps_halves(device: &Device) -> bool {
    supported(device) && !on_cpu(device)
}

impl Reparameterization for Packed {
    const NAME: &'static str = "packed";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        base
    }
}

/// Attaches one packed weight to one parameter.
struct Attach(Option<Packed>);

impl Reparameterizer for Attach {
    type Reparam = Packed;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Packed>) {
        (param, self.0.take())
    }
}

/// A parameter backed by this packed weight. Its dense value is computed only on demand.
///
/// # Panics
/// If D is not 2; generic for callers that are generic themselves.
pub fn attach<const D: usize>(id: ParamId, packed: Packed) -> Param<Tensor<D>> {
    let ([out, width], device) = (packed.shape(), packed.device());
    let mut shape = [0; D];
    shape.copy_from_slice(&[out, width]);
    let source = packed.clone();
    let dense = move |_: &Device, _: bool| source.dense().reshape(shape);
    Param::uninitialized(id, dense, device, false, Shape::from(shape))
        .apply_reparameterization(Attach(Some(packed)))
}

/// Sets the precision of activations for a packed parameter as `choose` decides for its scheme; no effect on a dense one.
pub fn set_activations(param: &mut Param<Tensor<2>>, choose: fn(Scheme) -> Activations) {
    if let Some(packed) = param.reparameterization::<Packed>() {
        *param = attach(param.id, packed.clone().with_activations_by(choose));
    }
}

/// Whether a matrix is packed, and activations of its products may be quantized.
pub fn rounds(param: &Param<Tensor<2>>) -> bool {
    param
        .reparameterization::<Packed>()
        .is_some_and(Packed::rounds)
}

/// Bytes of a matrix on its device, packed or dense; 0 if not initialized.
pub fn bytes(param: &Param<Tensor<2>>) -> u64 {
    match param.reparameterization::<Packed>() {
        Some(packed) => packed.bytes(),
        None if param.is_initialized() => 4 * param.lazy_shape().num_elements() as u64,
        None => 0,
    }
}

/// The packed weight of a parameter, if it has one and the device of `x` supports it.
pub(crate) fn of<'a, const D: usize, K: Basic>(
    param: &'a Param<Tensor<2>>,
    x: &Tensor<D, K>,
) -> Option<&'a Packed> {
    param
        .reparameterization::<Packed>()
        .filter(|_| supported(&x.device()))
}

#[cfg(test)]
mod tests;
