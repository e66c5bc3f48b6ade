//! Presets of model sizes.

use super::{
    AdapterConfig, CausalConfig, EmuConfig, GenerationConfig, ImageConfig, LmConfig, PromptConfig,
    SpecialTokens, StemConfig, VisionConfig,
};

impl CausalConfig {
    /// The causal former of the released Emu-14B.
    pub fn emu_14b() -> Self {
        Self {
            queries: 32,
            d_model: 768,
            d_kv: 64,
            d_ff: 3072,
            layers: 12,
            heads: 12,
            buckets: 32,
            max_distance: 128,
            norm_eps: 1e-6,
            raster: false,
        }
    }
}

impl EmuConfig {
    /// The released Emu-14B (pretrained; see [`EmuConfig::instruct`]).
    pub fn emu_14b() -> Self {
        Self {
            vision: VisionConfig {
                image_size: 224,
                patch_size: 14,
                width: 1408,
                layers: 40,
                head_width: 88,
                mlp_ratio: 4.3637,
                stem: None,
                efficientnet: None,
                clip: None,
            },
            causal: Some(CausalConfig::emu_14b()),
            namer: None,
            persona: None,
            requests: None,
            lm: LmConfig {
                vocab: 32004,
                width: 5120,
                ffn: 13824,
                layers: 40,
                heads: 40,
                kv_heads: 40,
                head_size: 128,
                context: 2048,
                rope_base: 10000.0,
                norm_eps: 1e-6,
                tied: false,
            },
            adapter: None,
            special: SpecialTokens {
                bos: 1,
                eos: 2,
                pad: 32000,
                img: 32001,
                end_img: 32002,
                image: 32003,
                user: None,
                assistant: None,
            },
            ends: vec![],
            image: ImageConfig::default(),
            prompts: PromptConfig::default(),
            generation: GenerationConfig::default(),
        }
    }

    /// The instruction-tuned variant of a pretrained model: two more tokens, LoRA adapters of rank 16 and alpha 16.
    pub fn instruct(mut self) -> Self {
        self.special.user = Some(self.lm.vocab as u32);
        self.special.assistant = Some(self.lm.vocab as u32 + 1);
        self.lm.vocab += 2;
        self.adapter = Some(AdapterConfig {
            rank: 16,
            alpha: 16.0,
        });
        self.prompts = PromptConfig {
            user: "[USER]: {}".into(),
            assistant: " [ASSISTANT]:".into(),
            caption: "Please provide an accurate and concise description of the given image."
                .into(),
            ..Default::default()
        };
        self
    }

    /// emu-mini, which this project trains and ships: 64 px, a convolutional stem, 16 embeddings per image.
    pub fn emu_mini(vocab: usize, special: SpecialTokens) -> Self {
        Self {
            vision: VisionConfig {
                image_size: 64,
                patch_size: 16,
                width: 192,
                layers: 2,
                head_width: 32,
                mlp_ratio: 3.0,
                stem: Some(StemConfig {
                    channels: vec![32, 48, 96, 192],
                    blocks: vec![0, 1, 1, 1],
                    groups: 16,
                }),
                efficientnet: None,
                clip: None,
            },
            causal: Some(CausalConfig {
                queries: 16,
                d_model: 192,
                d_kv: 32,
                d_ff: 512,
                layers: 2,
                heads: 6,
                buckets: 32,
                max_distance: 128,
                norm_eps: 1e-6,
                raster: true,
            }),
            namer: None,
            persona: None,
            requests: None,
            lm: LmConfig {
                vocab,
                width: 192,
                ffn: 512,
                layers: 4,
                heads: 6,
                kv_heads: 6,
                head_size: 32,
                context: 512,
                rope_base: 10000.0,
                norm_eps: 1e-6,
                tied: true,
            },
            adapter: None,
            special,
            ends: vec![],
            image: ImageConfig::default(),
            prompts: PromptConfig::trained(),
            generation: GenerationConfig::default(),
        }
    }

    /// Sizes of the reference implementation's tiny model, for tests.
    pub fn tiny() -> Self {
        Self {
            vision: VisionConfig {
                image_size: 56,
                patch_size: 14,
                width: 64,
                layers: 2,
                head_width: 16,
                mlp_ratio: 4.3637,
                stem: None,
                efficientnet: None,
                clip: None,
            },
            causal: Some(CausalConfig {
                queries: 4,
                d_model: 48,
                d_kv: 12,
                d_ff: 96,
                layers: 2,
                heads: 4,
                buckets: 32,
                max_distance: 128,
                norm_eps: 1e-6,
                raster: false,
            }),
            namer: None,
            persona: None,
            requests: None,
            lm: LmConfig {
                vocab: 304,
                width: 64,
                ffn: 172,
                layers: 2,
                heads: 4,
                kv_heads: 4,
                head_size: 16,
                context: 2048,
                rope_base: 10000.0,
                norm_eps: 1e-6,
                tied: false,
            },
            adapter: None,
            special: SpecialTokens {
                bos: 1,
                eos: 2,
                pad: 300,
                img: 301,
                end_img: 302,
                image: 303,
                user: None,
                assistant: None,
            },
            ends: vec![],
            image: ImageConfig::default(),
            prompts: PromptConfig::default(),
            generation: GenerationConfig::default(),
        }
    }
}
