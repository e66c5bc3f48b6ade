//! GPU convolutions: one shader, an implicit gemm.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, TensorMetadata};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{MOST_WORKGROUPS, Shader, apart, into_contiguous, output};
use crate::ops::conv::ConvBackend;
#[cfg(not(target_family = "wasm"))]
use crate::ops::conv::ConvGradient;
use crate::spec::{ConvFusion, ConvSpec};

/// Workgroups that keep a large GPU busy: below this, tiles are smaller and the depth (channels times kernel) is split.
const MANY: usize = 64;

/// Tiling of the gemm.
#[derive(Clone, Copy)]
struct Tiles {
    /// Output channels per tile.
    out: usize,
    /// Pixels per tile.
    pixels: usize,
    /// Output channels per invocation, four or eight, each for four pixels.
    per: usize,
    /// Groups of invocations that split the depth.
    slices: usize,
    /// Input channels loaded at a time.
    step: usize,
}

impl Tiles {
    fn new(out: usize, pixels: usize, channels: usize, kernel: usize) -> Self {
        let workgroups = |o: usize, p: usize| out.div_ceil(o) * pixels.div_ceil(p);
        let (tile, wide, per) = match out {
            0..=16 => (16, 64, 4),
            17..=32 => (32, 64, 8),
            _ if workgroups(64, 64) >= MANY => (64, 64, 8),
            _ => (32, 32, 8),
        };
        // Split the depth where there are few tiles and much depth.
        let slices = match workgroups(tile, wide) {
            _ if channels * kernel * kernel < 128 => 1,
            n if n < MANY / 2 => 4,
            n if n < MANY => 2,
            _ => 1,
        };
        Self {
            out: tile,
            pixels: wide,
            per,
            slices,
            step: channels
                .next_power_of_two()
                .clamp(4, if slices > 2 { 8 } else { 16 }),
        }
    }

    /// Vectors of workgroup memory: the loads of all slices, or the sums of one. Must match the shader.
    fn shared(&self) -> usize {
        let loaded = self.slices * self.step * (self.out / 4 + 1 + self.pixels / 4);
        match self.slices {
            1 => loaded,
            _ => loaded.max(self.out * self.pixels / 4),
        }
    }

    fn invocations(&self) -> usize {
        self.slices * (self.out / self.per) * (self.pixels / 4)
    }
}

/// Parameters of a launch, besides its tensors.
struct Product {
    channels: usize,
    /// Height and width of the input as seen by the kernel: upsampled, or dilated with zeros.
    size: [usize; 2],
    shrink: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    out: usize,
    out_size: [usize; 2],
    /// Input gradient: flipped weights, over an input dilated with zeros.
    backward: bool,
    channels_last: bool,
}

/// Optional tensors, with the names of their shader section and of their binding.
type Optional<'a> = [(&'static str, &'static str, Option<&'a CubeTensor>); 4];

impl Product {
    fn run(&self, x: &CubeTensor, weight: &CubeTensor, optional: Optional) -> CubeTensor {
        let [bias, skip, shift, residual] = optional;
        let first = x.meta.shape()[1];
        let (batch, strides) = (x.meta.shape()[0], x.meta.strides());
        let [out_height, out_width] = self.out_size;
        let pixels = batch * out_height * out_width;
        let tiles = Tiles::new(self.out, pixels, self.channels, self.kernel);
        let shift_rows = shift.2.map_or(0, |shift| shift.meta.shape()[0]);
        let sizes = [
            self.channels,
            first,
            self.size[0],
            self.size[1],
            self.before,
            self.out,
            out_height,
            out_width,
            batch,
            strides[0],
            strides[1],
            strides[2],
            strides[3],
            if shift_rows > 1 { self.out } else { 0 },
        ];
        let mut constants = vec![
            ("shrink", self.shrink),
            ("kernel", self.kernel),
            ("stride", self.stride),
            ("tile_o", tiles.out),
            ("tile_p", tiles.pixels),
            ("per", tiles.per),
            ("eight", usize::from(tiles.per == 8)),
            ("slices", tiles.slices),
            ("step", tiles.step),
            ("shared", tiles.shared()),
            ("invocations", tiles.invocations()),
            ("flipped", usize::from(self.backward)),
            ("straight", usize::from(!self.backward)),
            ("spread", usize::from(self.backward && self.shrink > 1)),
            ("channels_last", usize::from(self.channels_last)),
            ("channels_first", usize::from(!self.channels_last)),
        ];
        let shape = match self.channels_last {
            true => [batch, out_height, out_width, self.out],
            false => [batch, self.out, out_height, out_width],
        };
        let mut y = output(x, Shape::new(shape));
        let mut tensors = vec![x, weight, &y];
        for (name, place, tensor) in [bias, skip, shift, residual] {
            constants.push((name, usize::from(tensor.is_some())));
            constants.push((place, tensors.len()));
            tensors.extend(tensor);
        }
        constants.push(("info_at", tensors.len()));
        let shader = Shader {
            name: "conv",
            text: include_str!("../../../../shaders/conv/conv.wgsl"),
            constants,
            invocations: tiles.invocations(),
        };
        let [across, rows, _] = super::grid(pixels.div_ceil(tiles.pixels));
        let layers = self.out.div_ceil(tiles.out);
        debug_assert!(layers <= MOST_WORKGROUPS);
        shader.launch_with([across, rows, layers], &tensors, &sizes.map(|n| n as u32));
        if self.channels_last {
            y = Cube::float_permute(y, &[0, 3, 1, 2]);
        }
        y
    }
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
    let [_, c, h, w] = x.shape().dims::<4>();
    let [out, channels, kernel, _] = weight.shape().dims::<4>();
    debug_assert_eq!(fusion.skip, channels != c);
    let used = |on: bool, tensor| on.then(|| apart(into_contiguous(tensor), &x));
    let skip = used(fusion.skip, skip);
    let shift = used(fusion.shift, shift);
    let residual = used(fusion.residual, residual);
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let size = fusion.upsampled.map_or([h, w], |(h, w)| [h, w]);
    let product = Product {
        channels,
        size,
        shrink: if fusion.upsampled.is_some() { 2 } else { 1 },
        kernel,
        stride: spec.stride,
        before: spec.padding.0,
        out,
        out_size: size.map(|n| spec.out(n, kernel)),
        backward: false,
        channels_last: fusion.channels_last,
    };
    let optional = [
        ("bias", "bias_at", Some(&bias)),
        ("skip", "skip_at", skip.as_ref()),
        ("shift", "shift_at", shift.as_ref()),
        ("residual", "residual_at", residual.as_ref()),
    ];
    product.run(&x, &weight, optional)
}

/// Gradient of the input `[B, C, H, W]`: a convolution of the output gradient, dilated by the stride, with flipped weights.
pub fn x_backward(
    [_, channels, h, w]: [usize; 4],
    weight: CubeTensor,
    grad: CubeTensor,
    spec: ConvSpec,
) -> CubeTensor {
    let weight = into_contiguous(weight);
    let [out, _, kernel, _] = weight.shape().dims::<4>();
    let [_, _, rows, columns] = grad.shape().dims::<4>();
    let product = Product {
        channels: out,
        size: [rows, columns].map(|n| (n - 1) * spec.stride + 1),
        shrink: spec.stride,
        kernel,
        stride: 1,
        // If the forward pass has more padding than the kernel reaches, this one starts inside.
        before: (kernel - 1).wrapping_sub(spec.padding.0),
        out: channels,
        out_size: [h, w],
        backward: true,
        channels_last: false,
    };
    let none = [
        ("bias", "bias_at", None),
        ("skip", "skip_at", None),
        ("shift", "shift_at", None),
        ("residual", "residual_at", None),
    ];
    product.run(&grad, &weight, none)
}

/// Tile of the weight gradient per workgroup: output channels, patch elements, and at least so many pixels.
#[cfg(not(target_family = "wasm"))]
const PART: [usize; 3] = [32, 64, 1024];

/// Gradients of the weights `[O, C, k, k]` and of the bias `[O]`: one launch, and two more that add up partial sums if there
/// are few weights and many pixels, so that pixels are split among workgroups.
#[cfg(not(target_family = "wasm"))]
pub fn parameters_backward(
    x: CubeTensor,
    [out, channels, kernel, _]: [usize; 4],
    grad: CubeTensor,
    spec: ConvSpec,
) -> [CubeTensor; 2] {
    let rows = |x: CubeTensor| {
        if x.meta.is_tiled() {
            into_contiguous(x)
        } else {
            x
        }
    };
    let x = rows(x);
    let grad = apart(rows(grad), &x);
    let [batch, _, height, width] = x.shape().dims::<4>();
    let [_, _, out_height, out_width] = grad.shape().dims::<4>();
    let (places, pixels) = (channels * kernel * kernel, batch * out_height * out_width);
    let tiles = [places.div_ceil(PART[1]), out.div_ceil(PART[0])];
    let most = pixels.div_ceil(PART[2]).max(1);
    let parts = MANY.div_ceil(tiles[0] * tiles[1]).min(most);
    let depth = pixels.div_ceil(parts);
    let weights = output(&x, Shape::new([parts, out * places]));
    let biases = output(&x, Shape::new([parts, out]));
    let (of_x, of_grad) = (x.meta.strides(), grad.meta.strides());
    let shader = Shader {
        name: "conv_weight",
        text: include_str!("../../../../shaders/conv/conv_weight.wgsl"),
        constants: vec![
            ("channels", channels),
            ("height", height),
            ("width", width),
            ("kernel", kernel),
            ("stride", spec.stride),
            ("padding", spec.padding.0),
            ("out", out),
            ("out_height", out_height),
            ("out_width", out_width),
            ("batch", batch),
            ("depth", depth),
            ("x_batch", of_x[0]),
            ("x_channel", of_x[1]),
            ("x_row", of_x[2]),
            ("x_column", of_x[3]),
            ("grad_batch", of_grad[0]),
            ("grad_channel", of_grad[1]),
            ("grad_row", of_grad[2]),
            ("grad_column", of_grad[3]),
        ],
        invocations: 64,
    };
    shader.launch([tiles[0], tiles[1], parts], &[&x, &grad, &weights, &biases]);
    [
        (weights, vec![out, channels, kernel, kernel]),
        (biases, vec![out]),
    ]
    .map(|(sums, shape)| {
        let sum = if parts > 1 {
            Cube::float_sum_dim(sums, 0)
        } else {
            sums
        };
        Cube::float_reshape(sum, Shape::from(shape))
    })
}

impl ConvBackend for Cube {
    fn emu_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        let none = [(); 3].map(|()| x.clone());
        forward(x, weight, bias, none, spec, ConvFusion::default())
    }

    fn emu_conv2d_fused(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        skip: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: ConvSpec,
        fusion: ConvFusion,
    ) -> FloatTensor<Self> {
        forward(x, weight, bias, [skip, shift, residual], spec, fusion)
    }
}

#[cfg(not(target_family = "wasm"))]
impl ConvGradient for Cube {
    fn emu_conv2d_x_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> FloatTensor<Self> {
        // Padding beyond the kernel's reach.
        if spec.padding.0 >= weight.shape()[2] {
            use burn::backend::ops::ModuleOps;
            return <Self as ModuleOps<Self>>::conv2d_x_backward(x, weight, grad, spec.options());
        }
        x_backward(x.shape().dims(), weight, grad, spec)
    }

    fn emu_conv2d_parameters_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        _bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        spec: ConvSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        parameters_backward(x, weight.shape().dims(), grad, spec).into()
    }
}
