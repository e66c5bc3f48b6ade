//! Vision encoder, causal former and language model as one module.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::LayerNorm;
use emu_kernels::packed::{Activations, Scheme};

use crate::causal::CausalFormer;
use crate::config::{ConfigError, EmuConfig, LmInit};
use crate::lm::Lm;
use crate::namer::Namer;
use crate::persona::SoftPrompt;
use crate::probe::Probe;
use crate::requests::Requests;
use crate::splice::splice;
use crate::vision::Vision;

pub use crate::splice::SpliceError;

/// The model without its image decoder.
#[derive(Module, Debug)]
pub struct Emu {
    /// The vision encoder.
    pub visual: Vision,
    /// Norm between encoder and causal former.
    pub ln_visual: Option<LayerNorm>,
    /// Encoder tokens to visual embeddings.
    pub cformer: Option<CausalFormer>,
    /// Namer, instead of both.
    pub namer: Option<Namer>,
    /// The language model.
    pub lm: Lm,
    /// Soft prompt that replaces the default system message.
    pub persona: Option<SoftPrompt>,
    /// Request reader, if the LM regresses no embeddings.
    pub requests: Option<Requests>,
}

impl EmuConfig {
    /// Creates the model; weights are allocated lazily.
    ///
    /// # Errors
    /// As [`EmuConfig::validate`].
    pub fn init(&self, device: &Device) -> Result<Emu, ConfigError> {
        self.init_with(&LmInit::default(), device)
    }

    /// As [`EmuConfig::init`], with a choice of the LM's initial weights.
    ///
    /// # Errors
    /// As [`EmuConfig::validate`] and [`LmInit::validate`].
    pub fn init_with(&self, start: &LmInit, device: &Device) -> Result<Emu, ConfigError> {
        self.validate()?;
        start.validate(&self.lm)?;
        let (features, width) = (self.vision.width, self.lm.width);
        let causal = self.causal.as_ref();
        let namer = self.namer.as_ref();
        let lm = || self.lm.init_with(start, self.adapter.as_ref(), device);
        Ok(Emu {
            visual: self.vision.init(device),
            ln_visual: causal.map(|_| LayerNorm::new(features, LN_VISUAL_EPS, device)),
            cformer: causal.map(|causal| causal.init(features, width, device)),
            namer: namer.map(|namer| namer.init(features, width, &self.image, device)),
            // With a namer, the LM regresses no embeddings.
            lm: match causal {
                Some(_) => lm(),
                None => lm().alone(),
            },
            persona: { self.persona }.map(|length| SoftPrompt::new(length, width, device)),
            requests: { self.requests.as_ref() }.map(|requests| requests.init(&self.lm, device)),
        })
    }

    /// How matmuls with the LM's packed weights treat their activations: with a namer, int8 as in a text-only model
    /// ([`crate::TextModel`]).
    pub fn lm_activations(&self) -> fn(Scheme) -> Activations {
        match self.namer {
            Some(_) => |_| Activations::Int8,
            None => Activations::by_weight,
        }
    }
}

/// The reference implementation builds `ln_visual` with the encoder's eps, not PyTorch's default.
const LN_VISUAL_EPS: f64 = 1e-6;

impl Emu {
    /// Encoder tokens, normed if a causal former reads them: `[B, 3, S, S]` to `[B, N, V]`.
    pub fn encode(&self, images: Tensor<4>, probe: &mut Probe) -> Tensor<3> {
        let tokens = self.visual.forward_probed(images, probe);
        let Some(norm) = &self.ln_visual else {
            return tokens;
        };
        let tokens = norm.forward(tokens);
        probe.see(format_args!("ln_visual"), &tokens);
        tokens
    }

    /// Visual embeddings of images: `[B, 3, S, S]` to `[B, Q, D]`.
    pub fn embed_images(&self, images: Tensor<4>) -> Tensor<3> {
        let tokens = self.encode(images.clone(), &mut Probe::off());
        match (&self.cformer, &self.namer) {
            (Some(former), _) => former.forward(tokens),
            (None, Some(namer)) => namer.forward(images, tokens, &self.lm.embed_tokens),
            (None, None) => tokens,
        }
    }

    /// Embeddings of a batch of sequences; visual embeddings replace the `<image>` tokens in order.
    ///
    /// # Shapes
    /// - `ids`: B rows of T; `visual`: `[images, Q, D]`, where images · Q is the number of `<image>` tokens
    /// - returns `[B, T, D]`
    ///
    /// # Errors
    /// If marks and embeddings differ in number, or rows differ in length.
    pub fn splice(
        &self,
        ids: &[Vec<u32>],
        visual: Option<Tensor<3>>,
        image: u32,
    ) -> Result<Tensor<3>, SpliceError> {
        splice(&self.lm.embed_tokens, ids, visual, image)
    }
}
