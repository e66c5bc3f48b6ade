//! Convolution and its input gradient: an implicit gemm.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Kernel, fields, kernel};
use crate::gpu::{MANY_WORKGROUPS, MOST_WORKGROUPS, apart, grid, into_contiguous, output};
use crate::spec::{ConvFusion, ConvSpec};

fields! {
    /// Tiling of the gemm.
    Tiles {
        /// Output channels per tile.
        tile_o: usize,
        /// Pixels per tile.
        tile_p: usize,
        /// Output channels per invocation, four or eight, each for four pixels.
        per: usize,
        /// Groups of invocations that split the depth.
        slices: usize,
        /// Input channels loaded at a time.
        step: usize,
    }
}

impl Tiles {
    pub fn new(out: usize, pixels: usize, channels: usize, kernel: usize) -> Self {
        let workgroups = |o: usize, p: usize| out.div_ceil(o) * pixels.div_ceil(p);
        let (tile_o, tile_p, per) = match out {
            0..=16 => (16, 64, 4),
            17..=32 => (32, 64, 8),
            _ if workgroups(64, 64) >= MANY_WORKGROUPS => (64, 64, 8),
            _ => (32, 32, 8),
        };
        // Split the depth where there are few tiles and much depth.
        let slices = match workgroups(tile_o, tile_p) {
            _ if channels * kernel * kernel < 128 => 1,
            n if n < MANY_WORKGROUPS / 2 => 4,
            n if n < MANY_WORKGROUPS => 2,
            _ => 1,
        };
        let most = if slices > 2 { 8 } else { 16 };
        Self {
            tile_o,
            tile_p,
            per,
            slices,
            step: channels.next_power_of_two().clamp(4, most),
        }
    }

    /// Vectors of workgroup memory: the loads of all slices, or the sums of one.
    fn shared(&self) -> usize {
        let loaded = self.slices * self.step * (self.tile_o / 4 + 1 + self.tile_p / 4);
        match self.slices {
            1 => loaded,
            _ => loaded.max(self.tile_o * self.tile_p / 4),
        }
    }

    fn invocations(&self) -> usize {
        self.slices * (self.tile_o / self.per) * (self.tile_p / 4)
    }
}

kernel! {
    /// Convolution as implicit gemm, or its input gradient.
    ConvKernel, "conv" ["conv/conv.wgsl"]
    {
        /// K, the kernel's height and width.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Upsampling of x, or with `flipped` its dilation.
        shrink: usize,
        /// Tiling of the gemm.
        tiles: Tiles,
        /// Input gradient: flipped weights, over an input dilated with zeros.
        flipped: bool,
        /// NHWC output.
        channels_last: bool,
        /// Whether a bias is added.
        bias: bool,
        /// Whether the channels of `skip` follow those of x.
        skip: bool,
        /// Whether a shift is added.
        shift: bool,
        /// Whether a residual is added.
        residual: bool,
    }
    |key| {
        invocations: key.tiles.invocations(),
        shared: key.tiles.shared(),
        eight: key.tiles.per == 8,
        spread: key.flipped && key.shrink > 1,
    }
    /// `[B, C or first, H, W]`, `[O, C, K, K]`; the result; `[O]`, `[B, C - first, H, W]`, `[B or 1, O]`, as the result.
    ConvBuffers {
        x, weight, y,
        bias if key.bias, skip if key.skip, shift if key.shift, residual if key.residual,
    }
    uniform sizes
}

/// Sizes of a launch.
struct Sizes {
    channels: usize,
    /// Height and width of the input as seen by the kernel: upsampled, or dilated with zeros.
    size: [usize; 2],
    before: usize,
    out: usize,
    out_size: [usize; 2],
}

/// Optional tensors.
#[derive(Default)]
struct Fused<'a> {
    bias: Option<&'a CubeTensor>,
    skip: Option<&'a CubeTensor>,
    shift: Option<&'a CubeTensor>,
    residual: Option<&'a CubeTensor>,
}

fn run(
    key: ConvKernel,
    sizes: &Sizes,
    x: &CubeTensor,
    weight: &CubeTensor,
    fused: &Fused,
) -> CubeTensor {
    let first = x.meta.shape()[1];
    let (batch, strides) = (x.meta.shape()[0], x.meta.strides());
    let [out_height, out_width] = sizes.out_size;
    let pixels = batch * out_height * out_width;
    let shift_rows = fused.shift.map_or(0, |shift| shift.meta.shape()[0]);
    let words = [
        sizes.channels,
        first,
        sizes.size[0],
        sizes.size[1],
        sizes.before,
        sizes.out,
        out_height,
        out_width,
        batch,
        strides[0],
        strides[1],
        strides[2],
        strides[3],
        if shift_rows > 1 { sizes.out } else { 0 },
    ];
    let shape = match key.channels_last {
        true => [batch, out_height, out_width, sizes.out],
        false => [batch, sizes.out, out_height, out_width],
    };
    let mut y = output(x, Shape::new(shape));
    let [across, rows, _] = grid(pixels.div_ceil(key.tiles.tile_p));
    let layers = sizes.out.div_ceil(key.tiles.tile_o);
    debug_assert!(layers <= MOST_WORKGROUPS);
    let buffers = ConvBuffers {
        x,
        weight,
        y: &y,
        bias: fused.bias,
        skip: fused.skip,
        shift: fused.shift,
        residual: fused.residual,
    };
    key.launch([across, rows, layers], buffers, &words.map(|n| n as u32));
    if key.channels_last {
        y = Cube::float_permute(y, &[0, 3, 1, 2]);
    }
    y
}

/// A convolution with fused operations. `skip`, `shift` and `residual` are used if the fusion enables them.
pub fn forward(
    x: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    [skip, shift, residual]: [CubeTensor; 3],
    spec: ConvSpec,
    fusion: ConvFusion,
) -> CubeTensor {
    let [b, c, h, w] = x.shape().dims::<4>();
    let [out, channels, kernel, _] = weight.shape().dims::<4>();
    debug_assert_eq!(fusion.skip, channels != c);
    let used = |on: bool, tensor| on.then(|| apart(into_contiguous(tensor), &x));
    let skip = used(fusion.skip, skip);
    let shift = used(fusion.shift, shift);
    let residual = used(fusion.residual, residual);
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let size = fusion.upsampled.map_or([h, w], |(h, w)| [h, w]);
    let out_size = size.map(|n| spec.out(n, kernel));
    let sizes = Sizes {
        channels,
        size,
        before: spec.padding.0,
        out,
        out_size,
    };
    let key = ConvKernel {
        kernel,
        stride: spec.stride,
        shrink: if fusion.upsampled.is_some() { 2 } else { 1 },
        tiles: Tiles::new(out, b * out_size[0] * out_size[1], channels, kernel),
        flipped: false,
        channels_last: fusion.channels_last,
        bias: true,
        skip: fusion.skip,
        shift: fusion.shift,
        residual: fusion.residual,
    };
    let fused = Fused {
        bias: Some(&bias),
        skip: skip.as_ref(),
        shift: shift.as_ref(),
        residual: residual.as_ref(),
    };
    run(key, &sizes, &x, &weight, &fused)
}

/// Gradient of the input `[B, C, H, W]`: a convolution of the output gradient, dilated by the stride, with flipped weights.
pub fn x_backward(
    [b, channels, h, w]: [usize; 4],
    weight: CubeTensor,
    grad: CubeTensor,
    spec: ConvSpec,
) -> CubeTensor {
    let weight = into_contiguous(weight);
    let [out, _, kernel, _] = weight.shape().dims::<4>();
    let [_, _, rows, columns] = grad.shape().dims::<4>();
    let key = ConvKernel {
        kernel,
        stride: 1,
        shrink: spec.stride,
        tiles: Tiles::new(channels, b * h * w, out, kernel),
        flipped: true,
        channels_last: false,
        bias: false,
        skip: false,
        shift: false,
        residual: false,
    };
    let sizes = Sizes {
        channels: out,
        size: [rows, columns].map(|n| (n - 1) * spec.stride + 1),
        // If the forward pass has more padding than the kernel reaches, this one starts inside.
        before: (kernel - 1).wrapping_sub(spec.padding.0),
        out: channels,
        out_size: [h, w],
    };
    run(key, &sizes, &grad, &weight, &Fused::default())
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    for flags in 0..64 {
        let on = |bit: usize| flags >> bit & 1 == 1;
        for (out, pixels, channels) in [(3, 100, 3), (20, 9, 40), (64, 9, 640), (640, 4096, 64)] {
            checked.check(ConvKernel {
                kernel: 3,
                stride: 1,
                shrink: if on(0) { 2 } else { 1 },
                tiles: Tiles::new(out, pixels, channels, 3),
                flipped: on(1),
                channels_last: on(2),
                bias: on(3),
                skip: on(4),
                shift: on(5),
                residual: on(3),
            });
        }
    }
}
