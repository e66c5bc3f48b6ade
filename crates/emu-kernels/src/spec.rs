//! What kernels are made for: sizes, schemes and switches of each operation. Everything may import this module; it imports
//! none of the crate.

#[cfg(not(target_family = "wasm"))]
use burn::backend::ops::ConvOptions;

/// Stride and padding `(before, after)` of a convolution with square kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Step of the kernel.
    pub stride: usize,
    /// Zero rows and columns added.
    pub padding: (usize, usize),
}

/// What is fused with a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConvFusion {
    /// The input is upsampled by repeating pixels, then cut to this height and width.
    pub upsampled: Option<(usize, usize)>,
    /// Whether the channels of `skip` follow those of the input, which then is not upsampled; where not, the tensor is a
    /// placeholder, as the others.
    pub skip: bool,
    /// Whether `shift`, `[B or 1, out]`, is added to the channels.
    pub shift: bool,
    /// Whether `residual`, of the output's shape, is added.
    pub residual: bool,
    /// Whether the output had better lie in memory with its channels last. Its shape stays; backends may ignore this.
    pub channels_last: bool,
}

impl ConvSpec {
    /// The output's size along an axis of size `n`.
    #[cfg(feature = "wgpu")]
    pub(crate) fn out(&self, n: usize, kernel: usize) -> usize {
        (n + self.padding.0 + self.padding.1 - kernel) / self.stride + 1
    }

    /// The same for Burn's own convolution.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn options(&self) -> ConvOptions<2> {
        let mut options = ConvOptions::new([self.stride; 2], [self.padding.0; 2], [1; 2], 1);
        options.padding = [self.padding; 2];
        options
    }
}

/// Groups, eps and the activation of a group norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormSpec {
    /// Groups that the channels are divided into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// What attention does to its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query `t` of the last T positions sees keys up to its own position.
    pub causal: bool,
    /// Factor of the scores.
    pub scale: f64,
    /// Keys that count, from the first on: all, except that [a GPU's kernel](crate::ops::attention::runs_in_kernel) takes buffers with room for more.
    pub kv_len: usize,
    /// Whether the tensor `mask` counts; where not, it is a placeholder.
    pub mask: bool,
    /// Whether the tensor `bias` counts; where not, it is a placeholder.
    pub bias: bool,
    /// Whether the backward pass returns the gradient at the scores, for a bias that learns.
    pub score_gradient: bool,
}

impl AttentionSpec {
    /// Widest heads of the kernel.
    pub(crate) const WIDEST: usize = 512;
    /// Widest heads of its backward pass. An invocation holds sums for keys and for values, which leave the registers of
    /// wider ones: heads of 160 took 1.7 times as long as Burn's own operations. Those keep matrices of scores; networks
    /// have such heads where they have few positions.
    pub(crate) const WIDEST_BACKWARD: usize = 128;

    /// Whether the kernel serves heads of this size.
    pub(crate) const fn fits(head_size: usize) -> bool {
        head_size.is_multiple_of(4) && head_size > 0 && head_size <= Self::WIDEST
    }

    /// Whether the kernel of the backward pass does.
    pub(crate) const fn fits_backward(head_size: usize) -> bool {
        Self::fits(head_size) && head_size <= Self::WIDEST_BACKWARD
    }
}

/// Sizes of a step's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSpec {
    /// H
    pub heads: usize,
    /// G
    pub kv_heads: usize,
    /// E
    pub head_size: usize,
    /// Positions in the cache before this step.
    pub start: usize,
    /// Whether a table says which beam wrote each position; where not, the tensor is a placeholder.
    pub beams: bool,
}

impl StepSpec {
    /// Whether the kernels of a decoding step serve heads of this size.
    pub(crate) const fn fits(head_size: usize) -> bool {
        head_size.is_multiple_of(4) && head_size <= 256
    }
}

/// Elements along `in` that share a scale, where there are scales; rows are whole blocks of them.
pub const BLOCK: usize = 32;

/// How the values of a block are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// f16, without a scale.
    F16,
    /// 8 bits, two's complement, times the scale.
    Q8,
    /// 4 bits, two's complement, times the scale.
    Q4,
    /// 4 bits from 0 to 15, times the scale, plus the minimum.
    Q4_1,
}

impl Scheme {
    /// Bits of an element.
    pub const fn bits(self) -> usize {
        match self {
            Self::F16 => 16,
            Self::Q8 => 8,
            Self::Q4 | Self::Q4_1 => 4,
        }
    }

    /// 32-bit words of a block.
    pub const fn words(self) -> usize {
        self.bits()
    }

    /// Whether a block has a scale.
    pub const fn has_scales(self) -> bool {
        !matches!(self, Self::F16)
    }

    /// Bytes of a matrix of this shape, whose width is whole blocks. More than 32 bits count in sum, even where memory has
    /// no more.
    pub const fn bytes(self, [out, width]: [usize; 2]) -> u64 {
        let blocks = out as u64 * (width / BLOCK) as u64;
        let parts = self.has_scales() as u64 + self.has_mins() as u64;
        // Scales lie in pairs.
        4 * (blocks * self.words() as u64 + parts * blocks.div_ceil(2))
    }

    /// Whether a block has a minimum.
    pub const fn has_mins(self) -> bool {
        matches!(self, Self::Q4_1)
    }
}

/// What products with a packed matrix may do with their activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Take them as they are.
    #[default]
    F32,
    /// Round them to 8 bits, in blocks of [`BLOCK`] with a scale each, where that is faster: on the CPU, with weights of at
    /// most 8 bits. No element moves by more than 1/254 of the greatest of its block. Language models bear it; GPUs take
    /// inputs as they are.
    Int8,
}

impl Activations {
    /// Rounded where the weights have four bits, which moves them by 8% already; exact where they have eight, since rounding
    /// moves products by 0.5%, as much again as such weights do.
    pub const fn by_weight(scheme: Scheme) -> Self {
        match scheme {
            Scheme::F16 | Scheme::Q8 => Self::F32,
            Scheme::Q4 | Scheme::Q4_1 => Self::Int8,
        }
    }
}

/// A packed matrix, and what is done with its product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedSpec {
    /// How its values are stored.
    pub scheme: Scheme,
    /// Rows.
    pub out: usize,
    /// Columns.
    pub width: usize,
    /// Whether the tensor `bias` counts; where not, it is a placeholder.
    pub bias: bool,
    /// Whether the tensor `residual`, `[rows, out]`, is added; where not, it is a placeholder.
    pub residual: bool,
    /// Whether the matrix is a gate above what it gates: `silu(x Gᵀ) * x Uᵀ`, of half as many rows. Without bias and
    /// residual.
    pub pair: bool,
    /// What products may do with their activations.
    pub activations: Activations,
}

impl PackedSpec {
    /// A matrix `[out, width]` and nothing besides.
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

/// What a kernel that chooses a token is made for. What changes often is in its tensors instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSpec {
    /// A token that may not be chosen.
    pub banned: Option<usize>,
    /// The token that `min_length` bans.
    pub end: usize,
    /// As in [`crate::sample::Processors`].
    pub min_length: usize,
    /// As in [`crate::sample::Processors`]; 0 for none.
    pub ngram: usize,
    /// Whether there is a repetition penalty.
    pub penalty: bool,
    /// Whether a token is drawn; else the most likely one is taken.
    pub sample: bool,
    /// As in [`crate::sample::Sampling`]; 0 for all.
    pub top_k: usize,
    /// Whether there is a top-p.
    pub top_p: bool,
}

/// Words before the sums in what goes to the device.
///
/// They are the bits of the repetition penalty, the size of n-grams that may not repeat, how many tokens each history has,
/// and two tokens that may not come, -1 for none. The bits of each beam's sum follow, then the histories.
pub(crate) const BEAM_HEADER: usize = 5;
