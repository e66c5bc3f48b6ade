//! Compile-time parameters of kernels: sizes, quantization schemes and switches of each operation. Any module may import
//! this one; it imports none of the crate.

#[cfg(not(target_family = "wasm"))]
use burn::backend::ops::ConvOptions;

/// Stride and padding `(before, after)` of a convolution with square kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Stride of the kernel.
    pub stride: usize,
    /// Zero rows and columns added, `(before, after)`.
    pub padding: (usize, usize),
}

/// Operations fused with a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConvFusion {
    /// Nearest-neighbour upsampling of the input, cropped to this height and width.
    pub upsampled: Option<(usize, usize)>,
    /// Skip connection: the channels of `skip` are concatenated to those of the input, which is then not upsampled. If false,
    /// the tensor is a placeholder, as are the others.
    pub skip: bool,
    /// Whether `shift`, `[B or 1, out]`, is added per channel.
    pub shift: bool,
    /// Whether `residual`, of the output's shape, is added.
    pub residual: bool,
    /// Prefer NHWC memory layout for the output. The shape is unchanged; backends may ignore this.
    pub channels_last: bool,
}

impl ConvSpec {
    /// Output size along an axis of size `n`.
    #[cfg(feature = "wgpu")]
    pub(crate) fn out(&self, n: usize, kernel: usize) -> usize {
        (n + self.padding.0 + self.padding.1 - kernel) / self.stride + 1
    }

    /// As options of Burn's own convolution.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn options(&self) -> ConvOptions<2> {
        let mut options = ConvOptions::new([self.stride; 2], [self.padding.0; 2], [1; 2], 1);
        options.padding = [self.padding; 2];
        options
    }
}

/// Groups, eps and activation of a group norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormSpec {
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Parameters of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Causal mask: the queries are the last T positions, and each sees keys up to its own.
    pub causal: bool,
    /// Scale of the scores.
    pub scale: f64,
    /// Number of valid keys, from the first: all, except that the [GPU kernel](crate::ops::attention::runs_in_kernel) takes
    /// buffers with spare capacity.
    pub kv_len: usize,
    /// Whether the tensor `mask` is used; if not, it is a placeholder.
    pub mask: bool,
    /// Whether the tensor `bias` is used; if not, it is a placeholder.
    pub bias: bool,
    /// Whether the backward pass returns the gradient of the scores, for a trainable bias.
    pub score_gradient: bool,
}

impl AttentionSpec {
    /// Largest head size of the kernel.
    pub(crate) const WIDEST: usize = 512;
    /// Largest head size of its backward pass. An invocation accumulates gradients of keys and of values in registers, which
    /// spill for wider heads: head size 160 took 1.7 times as long as Burn's own operations. Those materialize the score
    /// matrix; networks have such heads where they have few positions.
    pub(crate) const WIDEST_BACKWARD: usize = 128;

    /// Whether the kernel supports this head size.
    pub(crate) const fn fits(head_size: usize) -> bool {
        head_size.is_multiple_of(4) && head_size > 0 && head_size <= Self::WIDEST
    }

    /// Whether the backward kernel supports this head size.
    pub(crate) const fn fits_backward(head_size: usize) -> bool {
        Self::fits(head_size) && head_size <= Self::WIDEST_BACKWARD
    }
}

/// Sizes of attention in a decoding step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// H, query heads
    pub heads: usize,
    /// G, key/value heads
    pub kv_heads: usize,
    /// E, head size
    pub head_size: usize,
    /// Positions in the cache before this step.
    pub start: usize,
    /// Whether a beam table gives the cache row of each position; if not, the tensor is a placeholder.
    pub beams: bool,
}

impl StepSpec {
    /// Whether the kernels of a decoding step support this head size.
    pub(crate) const fn fits(head_size: usize) -> bool {
        head_size.is_multiple_of(4) && head_size <= 256
    }
}

/// Elements along `in` that share a scale, in schemes with scales; a row is a whole number of blocks.
pub const BLOCK: usize = 32;

/// Storage format of a block's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// f16, no scale.
    F16,
    /// 8 bits, two's complement, times the scale.
    Q8,
    /// 4 bits, two's complement, times the scale.
    Q4,
    /// 4 bits from 0 to 15, times the scale, plus the minimum.
    Q4_1,
}

impl Scheme {
    /// Bits per element.
    pub const fn bits(self) -> usize {
        match self {
            Self::F16 => 16,
            Self::Q8 => 8,
            Self::Q4 | Self::Q4_1 => 4,
        }
    }

    /// 32-bit words per block.
    pub const fn words(self) -> usize {
        self.bits()
    }

    /// Whether a block has a scale.
    pub const fn has_scales(self) -> bool {
        !matches!(self, Self::F16)
    }

    /// Bytes of a matrix of this shape, whose width is a multiple of [`BLOCK`]. 64 bits, since sums exceed 32 bits even where
    /// memory does not.
    pub const fn bytes(self, [out, width]: [usize; 2]) -> u64 {
        let blocks = out as u64 * (width / BLOCK) as u64;
        let parts = self.has_scales() as u64 + self.has_mins() as u64;
        // Scales are stored in pairs.
        4 * (blocks * self.words() as u64 + parts * blocks.div_ceil(2))
    }

    /// Whether a block has a minimum.
    pub const fn has_mins(self) -> bool {
        matches!(self, Self::Q4_1)
    }
}

/// Precision of activations in products with a packed matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Unquantized.
    #[default]
    F32,
    /// Quantized to 8 bits, in blocks of [`BLOCK`] with one scale each, where that is faster: on the CPU, with weights of at
    /// most 8 bits. No element changes by more than 1/254 of the greatest of its block. Language models tolerate it; GPUs do
    /// not quantize activations.
    Int8,
}

impl Activations {
    /// `Int8` for 4-bit weights, whose own error is already 8%. `F32` for 8-bit weights: quantized activations change
    /// products by 0.5%, as much again as such weights do.
    pub const fn by_weight(scheme: Scheme) -> Self {
        match scheme {
            Scheme::F16 | Scheme::Q8 => Self::F32,
            Scheme::Q4 | Scheme::Q4_1 => Self::Int8,
        }
    }
}

/// A packed matrix and the operations fused with its product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedSpec {
    /// Storage format of the values.
    pub scheme: Scheme,
    /// Rows, `out`.
    pub out: usize,
    /// Columns, `in`.
    pub width: usize,
    /// Whether the tensor `bias` is used; if not, it is a placeholder.
    pub bias: bool,
    /// Whether the tensor `residual`, `[rows, out]`, is added; if not, it is a placeholder.
    pub residual: bool,
    /// Gated: the matrix is the gate G stacked on U, and the output `silu(x Gᵀ) * x Uᵀ` has `out / 2` columns. Without bias
    /// and residual.
    pub pair: bool,
    /// Precision of the activations.
    pub activations: Activations,
}

impl PackedSpec {
    /// A matrix `[out, width]` with nothing fused.
    pub fn plain(scheme: Scheme, [out, width]: [usize; 2]) -> Self {
        Self {
            scheme,
            out,
            width,
            bias: false,
            residual: false,
            pair: false,
            activations: Activations::F32,
        }
    }
}

/// Compile-time parameters of the sampling kernel. Values that change often are in its tensors instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSpec {
    /// A banned token.
    pub banned: Option<usize>,
    /// The end token, which `min_length` bans.
    pub end: usize,
    /// As in [`crate::sample::Processors`].
    pub min_length: usize,
    /// As in [`crate::sample::Processors`]; 0 for none.
    pub ngram: usize,
    /// Whether there is a repetition penalty.
    pub penalty: bool,
    /// Whether there is a presence or frequency penalty.
    pub counts: bool,
    /// Whether tokens are biased.
    pub bias: bool,
    /// Whether a token is sampled; else decoding is greedy.
    pub sample: bool,
    /// As in [`crate::sample::Sampling`]; 0 for all.
    pub top_k: usize,
    /// Whether there is a top-p.
    pub top_p: bool,
    /// Whether there is a min-p.
    pub min_p: bool,
}

/// Number of numbers before the biased tokens in the sampler's numbers: temperature, top-p, repetition penalty, logarithm of
/// min-p, presence penalty, frequency penalty, and the number of biased tokens.
pub(crate) const SAMPLE_HEADER: usize = 7;

/// Number of words before the beams' scores in the buffer that the host uploads.
///
/// They are the bits of the repetition penalty, the size of n-grams that may not repeat, the number of tokens in each history,
/// and two banned tokens, -1 for none. The bits of each beam's cumulative score follow, then the histories.
pub(crate) const BEAM_HEADER: usize = 5;
