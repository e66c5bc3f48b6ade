//! Linear layer with optional LoRA adapter.

use burn::module::{Module, Param};
use burn::tensor::{Device, Shape, Tensor};

use crate::init::{Init, param};
use crate::packed::Packed;
use crate::{ops, packed};

/// `y = x Wᵀ + b`, with `W` stored `[out, in]` as in checkpoints and packs, plus `scale · (x Aᵀ) Bᵀ` if a LoRA adapter is
/// attached (Hu et al., "LoRA", 2021).
#[derive(Module, Debug)]
pub struct QLinear {
    /// `[out, in]`, dense or [`packed`].
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Option<Param<Tensor<1>>>,
    /// LoRA adapter, if attached.
    pub lora: Option<Lora>,
}

/// LoRA adapter of a [`QLinear`].
#[derive(Module, Debug)]
pub struct Lora {
    /// `[rank, in]`
    pub a: Param<Tensor<2>>,
    /// `[out, rank]`
    pub b: Param<Tensor<2>>,
    /// alpha / rank
    pub scale: f64,
    /// Dropout probability of the inputs of `a`, applied only with autodiff, which means training.
    pub dropout: f64,
}

/// Sizes of a model's LoRA adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank of the update.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
}

impl QLinear {
    /// A layer with normal weights of variance `1 / in`.
    pub fn new(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        Self::with_init(
            inputs,
            outputs,
            bias,
            Init::Normal(1.0 / (inputs as f32).sqrt()),
            device,
        )
    }

    /// A layer with weights initialized by `init` and a zero bias.
    pub fn with_init(
        inputs: usize,
        outputs: usize,
        bias: bool,
        init: Init,
        device: &Device,
    ) -> Self {
        Self {
            weight: param([outputs, inputs], init, device),
            bias: bias.then(|| param([outputs], Init::Zeros, device)),
            lora: None,
        }
    }

    /// Attaches an adapter whose initial update is zero.
    pub fn with_lora(mut self, config: &LoraConfig, device: &Device) -> Self {
        let [outputs, inputs] = self.weight.lazy_shape().dims();
        self.lora = Some(Lora {
            a: param(
                [config.rank, inputs],
                Init::Uniform(1.0 / (inputs as f32).sqrt()),
                device,
            ),
            b: param([outputs, config.rank], Init::Zeros, device),
            scale: config.alpha / config.rank as f64,
            dropout: 0.0,
        });
        self
    }

    /// # Shapes
    /// - `x`: `[.., in]`
    /// - returns `[.., out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        let y = match packed::of(&self.weight, &x) {
            Some(packed) => packed.linear(x.clone(), bias),
            None => ops::linear(x.clone(), self.weight.val(), bias),
        };
        match &self.lora {
            None => y,
            Some(lora) => {
                let x = if lora.dropout > 0.0 && x.device().is_autodiff() {
                    ops::dropout(x, lora.dropout)
                } else {
                    x
                };
                let low = ops::linear(x, lora.a.val(), None);
                y + ops::linear(low, lora.b.val(), None).mul_scalar(lora.scale)
            }
        }
    }

    /// `residual + forward(x)`, fused if the weight is packed.
    ///
    /// # Shapes
    /// - `x`: `[.., in]`, `residual`: `[.., out]`
    pub fn forward_add<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        match packed::of(&self.weight, &x) {
            Some(packed) if self.lora.is_none() => {
                packed.linear_add(x, self.bias.as_ref().map(Param::val), residual)
            }
            _ => residual + self.forward(x),
        }
    }

    /// Bytes of the weight on the device; 0 if it is not there, as in a [stack](Self::stack).
    pub fn bytes(&self) -> u64 {
        packed::bytes(&self.weight)
    }

    /// The weight with the adapter's update added, `[out, in]`.
    pub fn merged_weight(&self) -> Tensor<2> {
        match &self.lora {
            None => self.weight.val(),
            Some(lora) => {
                self.weight.val() + lora.b.val().matmul(lora.a.val()).mul_scalar(lora.scale)
            }
        }
    }

    /// Stacks the packed weights of layers; `None` unless all are packed, without bias or adapter. Their parameters keep names
    /// and shapes, and dequantize their part of the stack on demand.
    pub fn fuse<const N: usize>(layers: [&mut Self; N]) -> Option<Packed> {
        let plain = |layer: &Self| layer.bias.is_none() && layer.lora.is_none();
        layers.iter().all(|layer| plain(layer)).then_some(())?;
        let parts: Option<Vec<&Packed>> = { layers.iter() }
            .map(|layer| layer.weight.reparameterization::<Packed>())
            .collect();
        let fused = Packed::concat_rows(&parts?)?;
        let mut from = 0;
        for layer in layers {
            let shape @ [out, _] = layer.weight.lazy_shape().dims();
            let (source, rows) = (fused.clone(), from..from + out);
            from += out;
            layer.weight = Param::uninitialized(
                layer.weight.id,
                move |_: &Device, _| source.part(rows),
                fused.device(),
                false,
                Shape::from(shape),
            );
        }
        Some(fused)
    }
}
