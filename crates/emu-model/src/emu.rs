//! Encoder, causal transformer and language model put together.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use emu_kernels::LayerNorm;
use emu_kernels::packed::{Activations, Scheme};

use crate::causal::CausalFormer;
use crate::config::{ConfigError, EmuConfig};
use crate::lm::Lm;
use crate::namer::Namer;
use crate::persona::SoftPrompt;
use crate::probe::Probe;
use crate::requests::Requests;
use crate::splice::splice;
use crate::vision::Vision;

pub use crate::splice::SpliceError;

/// The model but its picture decoder.
#[derive(Module, Debug)]
pub struct Emu {
    /// The visual encoder.
    pub visual: Vision,
    /// Between encoder and causal transformer.
    pub ln_visual: Option<LayerNorm>,
    /// From encoder tokens to visual embeddings.
    pub cformer: Option<CausalFormer>,
    /// In the place of both, in models that spell what they see.
    pub namer: Option<Namer>,
    /// The language model.
    pub lm: Lm,
    /// In the place of its system message.
    pub persona: Option<SoftPrompt>,
    /// What reads which pictures it is asked for, where it regresses none.
    pub requests: Option<Requests>,
}

impl EmuConfig {
    /// A new model, its weights not yet allocated.
    ///
    /// # Errors
    /// Where [`EmuConfig::validate`] finds one.
    pub fn init(&self, device: &Device) -> Result<Emu, ConfigError> {
        self.validate()?;
        let (features, width) = (self.vision.width, self.lm.width);
        let causal = self.causal.as_ref();
        let namer = self.namer.as_ref();
        let lm = || self.lm.init(self.adapter.as_ref(), device);
        Ok(Emu {
            visual: self.vision.init(device),
            // PyTorch's default eps: this norm is not one of the encoder's.
            ln_visual: causal.map(|_| LayerNorm::new(features, LN_VISUAL_EPS, device)),
            cformer: causal.map(|causal| causal.init(features, width, device)),
            namer: namer.map(|namer| namer.init(features, width, &self.image, device)),
            // One that reads words regresses none.
            lm: match causal {
                Some(_) => lm(),
                None => lm().alone(),
            },
            persona: { self.persona }.map(|length| SoftPrompt::new(length, width, device)),
            requests: { self.requests.as_ref() }.map(|requests| requests.init(&self.lm, device)),
        })
    }

    /// What products with the LM's packed weights may do with their inputs: in a model that reads words, as where its LM
    /// runs alone ([`crate::TextModel`]).
    pub fn lm_activations(&self) -> fn(Scheme) -> Activations {
        match self.namer {
            Some(_) => |_| Activations::Int8,
            None => Activations::by_weight,
        }
    }
}

/// The reference builds `ln_visual` with the encoder's eps.
const LN_VISUAL_EPS: f64 = 1e-6;

impl Emu {
    /// The tokens of the encoder, normed where a causal former reads them: `[B, 3, S, S]` to `[B, N, V]`.
    pub fn encode(&self, images: Tensor<4>, probe: &mut Probe) -> Tensor<3> {
        let tokens = self.visual.forward_probed(images, probe);
        let Some(norm) = &self.ln_visual else {
            return tokens;
        };
        let tokens = norm.forward(tokens);
        probe.see(format_args!("ln_visual"), &tokens);
        tokens
    }

    /// The visual embeddings of pictures: `[B, 3, S, S]` to `[B, Q, D]`.
    pub fn embed_images(&self, images: Tensor<4>) -> Tensor<3> {
        let tokens = self.encode(images.clone(), &mut Probe::off());
        match (&self.cformer, &self.namer) {
            (Some(former), _) => former.forward(tokens),
            (None, Some(namer)) => namer.forward(images, tokens, &self.lm.embed_tokens),
            (None, None) => tokens,
        }
    }

    /// Embeddings of a batch of sequences, with the visual embeddings in the places of the `<image>` tokens, in order.
    ///
    /// # Shapes
    /// - `ids`: B rows of T; `visual`: `[images, Q, D]`, where images · Q is the number of `<image>` tokens
    /// - returns `[B, T, D]`
    ///
    /// # Errors
    /// Where marks and embeddings do not match in number, or the rows differ in length.
    pub fn splice(
        &self,
        ids: &[Vec<u32>],
        visual: Option<Tensor<3>>,
        image: u32,
    ) -> Result<Tensor<3>, SpliceError> {
        splice(&self.lm.embed_tokens, ids, visual, image)
    }
}
