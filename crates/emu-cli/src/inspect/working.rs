//! Memory of a task besides the weights: KV cache and activations. The page computes the same numbers before it downloads
//! anything (`web/package/src/needs.ts`).

use emu_model::config::EmuConfig;
use emu_model::diffusion::DecoderConfig;
use emu_model::diffusion::unet::BlockKind;
use emu_model::pack::ModelConfig;

/// Bytes of an f32.
const F32: u64 = 4;
/// Default length of an answer in tokens.
const NEW_TOKENS: u64 = 128;
/// Tokens of a short prompt besides those of its picture.
const MARKS: u64 = 3;
/// Activations alive at the same time: a layer's input, its output, and the residual.
const ALIVE: u64 = 3;

/// Side in pixels at which drawings of the released model are planned, besides the pack's own size.
pub const LARGE: usize = 512;

/// A task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Embeddings of a picture, without the language model.
    Encode,
    /// Caption a picture.
    Caption,
    /// Conversation, with drawing if the model draws.
    Chat,
    /// Draw a picture of the pack's size.
    Draw,
    /// Draw a picture of [`LARGE`] pixels.
    DrawLarge,
}

impl Task {
    /// User-visible name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Caption => "caption",
            Self::Chat => "chat",
            Self::Draw => "draw",
            Self::DrawLarge => "draw_512",
        }
    }
}

/// Bytes of memory besides the weights, for a prompt of one picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Working {
    /// KV cache.
    pub cache: u64,
    /// Estimate of the activations alive at the same time.
    pub activations: u64,
    /// Largest buffer among cache and activations, which is bound as a whole.
    pub largest: u64,
}

impl Working {
    /// Memory of a task with `beams` beams (1: no beam search).
    pub fn of(config: &ModelConfig, task: Task, beams: u64) -> Self {
        let emu = &config.emu;
        if task == Task::Encode {
            let largest = F32 * seeing(emu);
            return Self {
                cache: 0,
                activations: ALIVE * largest,
                largest,
            };
        }
        let draws = matches!(task, Task::Draw | Task::DrawLarge);
        let decoder = config.decoder.as_ref().filter(|_| task != Task::Caption);
        let beams = if draws { 1 } else { beams.max(1) };
        let lm = &emu.lm;
        let [context, read, drawn] = [lm.context, emu.queries(), emu.drawn()].map(|n| n as u64);
        let prompt = read + MARKS;
        // A conversation that may contain drawings uses the full context.
        let room = match task {
            _ if draws => drawn,
            _ if decoder.is_some() && emu.requests.is_none() && beams == 1 => context,
            _ => NEW_TOKENS,
        };
        let keys = F32 * product([lm.kv_heads, lm.head_size]) * context.min(prompt + room);
        let denoised = decoder.map_or(0, |decoder| match task {
            Task::DrawLarge => drawing(decoder, LARGE),
            _ => drawing(decoder, decoder.image_size),
        });
        let reading = prompt * lm.widest() as u64;
        let activation = F32 * reading.max(seeing(emu)).max(denoised);
        // Beam search keeps the prompt's cache and one copy per beam.
        let rows = if beams > 1 { beams + 1 } else { 1 };
        Self {
            cache: 2 * lm.layers as u64 * keys * rows,
            activations: ALIVE * activation,
            largest: activation.max(keys * beams),
        }
    }

    /// Sum of cache and activations.
    pub fn bytes(&self) -> u64 {
        self.cache + self.activations
    }
}

fn product<const N: usize>(factors: [usize; N]) -> u64 {
    factors.iter().map(|&n| n as u64).product()
}

/// Number of elements in the largest activation of the encoder.
fn seeing(emu: &EmuConfig) -> u64 {
    let vision = &emu.vision;
    // Integral in all existing configurations; a fraction would be negligible.
    let wide = (vision.width as f64 * vision.mlp_ratio.max(3.0)) as u64;
    let stem = { vision.stem.as_ref() }.and_then(|stem| stem.channels.first());
    let half = vision.image_size / 2;
    let stem = stem.map_or(0, |&channels| product([half, half, channels]));
    let net = vision.efficientnet.as_ref();
    let net = net.map_or(0, |net| net.largest_activation(vision.image_size));
    stem.max(net).max(vision.tokens() as u64 * wide)
}

/// Number of elements in the largest activation of the diffusion decoder, for a picture of this side in pixels.
fn drawing(decoder: &DecoderConfig, picture: usize) -> u64 {
    let (unet, vae) = (&decoder.unet, &decoder.vae);
    let values = |side: usize, channels: usize| {
        let along = picture / side.max(1);
        product([along, along, channels])
    };
    let next = |channels: &[usize], level: usize| channels.get(level + 1).copied();
    let mut largest = 0;
    // The VAE upsamples the activation of a coarser level to the size of the finer level.
    for (level, &channels) in vae.channels.iter().enumerate() {
        let wide = channels.max(next(&vae.channels, level).unwrap_or(0));
        largest = largest.max(values(vae.patch << level, wide));
    }
    // The UNet runs with and without the condition in one batch. Its transformers use eight values per channel. Its residual
    // blocks read the upsampled activation and the skip connection.
    for (level, &channels) in unet.channels.iter().enumerate() {
        let wide = match unet.down.get(level) {
            Some(BlockKind::CrossAttention) => 8 * channels,
            _ => channels + next(&unet.channels, level).unwrap_or(channels),
        };
        largest = largest.max(2 * values(vae.factor() << level, wide));
    }
    largest
}

#[cfg(test)]
mod tests {
    use emu_model::config::VisionConfig;
    use emu_model::namer::NamerConfig;
    use emu_model::spelling::SpellingConfig;

    use super::*;

    fn of(config: &ModelConfig, task: Task, beams: u64) -> (u64, u64) {
        let working = Working::of(config, task, beams);
        (working.bytes(), working.largest)
    }

    /// `admission.test.mjs` has the same numbers.
    #[test]
    fn the_released_models_take_what_the_page_says() {
        let config = ModelConfig {
            emu: EmuConfig::emu_14b(),
            decoder: Some(DecoderConfig::emu_14b()),
            safety: None,
        };
        assert_eq!(of(&config, Task::Caption, 1), (286_007_296, 6_316_032));
        assert_eq!(of(&config, Task::Chat, 1), (4_160_749_568, 268_435_456));
        assert_eq!(of(&config, Task::Draw, 1), (915_079_168, 268_435_456));
        // The released model's pictures are large; those of another size take memory by their area.
        assert_eq!(of(&config, Task::DrawLarge, 1), of(&config, Task::Draw, 1));
        let mut small = config.clone();
        if let Some(decoder) = &mut small.decoder {
            decoder.image_size /= 2;
        }
        assert_eq!(of(&small, Task::DrawLarge, 1), of(&config, Task::Draw, 1));
        assert_eq!(of(&small, Task::Draw, 1).1, 268_435_456 / 4);
        // Without the language model there is no cache: three activations of 257 tokens of the MLP's width.
        let seen = 4 * 257 * 6144;
        assert_eq!(of(&config, Task::Encode, 1), (3 * seen, seen));
        let (_, five) = of(&config, Task::Caption, 5);
        assert_eq!(five, 5 * 163 * 40 * 128 * 4);
        assert_eq!(of(&config, Task::Draw, 5), of(&config, Task::Draw, 1));
    }

    /// `admission.test.mjs` has the same numbers.
    #[test]
    fn a_model_that_names_pictures_takes_what_its_encoder_does() {
        let mut emu = EmuConfig::tiny();
        emu.vision = VisionConfig::efficientnet_lite2();
        emu.causal = None;
        emu.namer = Some(NamerConfig {
            names: 500,
            spelling: SpellingConfig {
                objects: 2,
                tokens: 3,
            },
            temperature: 0.25,
            colours: 8,
            colour_spread: 0.05,
            roots: true,
            photos: None,
        });
        let config = ModelConfig {
            emu,
            decoder: None,
            safety: None,
        };
        // KV cache of 4 embeddings, 3 marks and 128 tokens; three activations of 130 x 130 x 96 elements.
        let keys = 4 * 4 * 16 * (4 + 3 + 128);
        let seen = 4 * 130 * 130 * 96;
        let found = of(&config, Task::Caption, 1);
        assert_eq!(found, (2 * 2 * keys + 3 * seen, seen));
        assert_eq!(found, (19_607_040, 6_489_600));
    }

    #[test]
    fn a_model_that_does_not_draw_keeps_no_room_for_pictures() {
        let config = ModelConfig {
            emu: EmuConfig::emu_14b(),
            decoder: None,
            safety: None,
        };
        let [caption, chat] = [Task::Caption, Task::Chat].map(|task| of(&config, task, 1));
        assert_eq!(caption, chat);
    }
}
