//! Converts the configuration files of the original implementation (`Emu-14B.json`, the LLaMA folder's `config.json`)
//! to [`EmuConfig`]. Sizes come from these files and from the weights' shapes.

use emu_pack::{TensorInfo, TensorSource};
use serde_json::Value;

use crate::config::{
    AdapterConfig, CausalConfig, ConfigError, EmuConfig, GenerationConfig, ImageConfig, LmConfig,
    PromptConfig, SpecialTokens, VisionConfig,
};

/// Suffix of an adapter's first matrix in peft.
const LORA_A: &str = ".lora_A.default.weight";

/// The pretrained model of these two files; [`EmuConfig::instruct`] converts it to the other variant.
///
/// Without a `t5_config`, which the released file lacks, the causal former is that of t5-base.
///
/// # Errors
/// Names the first entry that is absent, of the wrong type, or not supported.
pub fn emu_config(emu: &Value, llama: &Value) -> Result<EmuConfig, ConfigError> {
    let vision = Section::of(emu, "vision_cfg")?;
    let adapter = Section::of(emu, "vladapter_cfg")?;
    let vocab = Section::root("the LLaMA config", llama)?.size("vocab_size")?;
    let lm = lm_config(llama)?;
    // The special tokens follow the LM's own vocabulary, in this order.
    let id = |nth: usize| (vocab + nth) as u32;
    let llama = Section::root("the LLaMA config", llama)?;
    let special = SpecialTokens {
        bos: llama.size_or("bos_token_id", 1)? as u32,
        eos: llama.size_or("eos_token_id", 2)? as u32,
        pad: id(0),
        img: id(1),
        end_img: id(2),
        image: id(3),
        user: None,
        assistant: None,
    };
    let config = EmuConfig {
        vision: VisionConfig {
            image_size: vision.size("image_size")?,
            patch_size: vision.size("patch_size")?,
            width: vision.size("width")?,
            layers: vision.size("layers")?,
            head_width: vision.size("head_width")?,
            mlp_ratio: vision.number("mlp_ratio")?,
            stem: None,
            efficientnet: None,
            clip: None,
        },
        causal: Some(causal_config(
            emu.get("t5_config"),
            adapter.size("n_causal")?,
        )?),
        namer: None,
        persona: None,
        requests: None,
        lm: LmConfig {
            vocab: vocab + 4,
            ..lm
        },
        adapter: None,
        special,
        ends: vec![],
        image: ImageConfig::default(),
        prompts: PromptConfig::default(),
        generation: GenerationConfig::default(),
    };
    config.validate()?;
    Ok(config)
}

/// The language model of a LLaMA folder's `config.json`, without Emu's special tokens.
///
/// # Errors
/// As [`emu_config`].
pub fn lm_config(llama: &Value) -> Result<LmConfig, ConfigError> {
    let llama = Section::root("the LLaMA config", llama)?;
    llama.only("hidden_act", &["silu"])?;
    if llama
        .value
        .get("rope_scaling")
        .is_some_and(|v| !v.is_null())
    {
        return Err(llama.wrong(
            "rope_scaling",
            "absent: stretched positions are not supported",
        ));
    }
    let (width, heads) = (
        llama.size("hidden_size")?,
        llama.size("num_attention_heads")?,
    );
    Ok(LmConfig {
        vocab: llama.size("vocab_size")?,
        width,
        ffn: llama.size("intermediate_size")?,
        layers: llama.size("num_hidden_layers")?,
        heads,
        kv_heads: llama.size_or("num_key_value_heads", heads)?,
        head_size: llama.size_or("head_dim", width / heads.max(1))?,
        context: llama.size_or("max_position_embeddings", 2048)?,
        rope_base: llama.number_or("rope_theta", 10000.0)?,
        norm_eps: llama.number_or("rms_norm_eps", 1e-6)?,
        tied: llama
            .value
            .get("tie_word_embeddings")
            .and_then(Value::as_bool)
            == Some(true),
    })
}

fn causal_config(t5: Option<&Value>, queries: usize) -> Result<CausalConfig, ConfigError> {
    let base = CausalConfig::emu_14b();
    let Some(t5) = t5 else {
        return Ok(CausalConfig { queries, ..base });
    };
    let t5 = Section::root("t5_config", t5)?;
    t5.only("feed_forward_proj", &["relu"])?;
    let layers = t5.size("num_layers")?;
    Ok(CausalConfig {
        queries,
        d_model: t5.size("d_model")?,
        d_kv: t5.size("d_kv")?,
        d_ff: t5.size("d_ff")?,
        layers: t5.size_or("num_decoder_layers", layers)?,
        heads: t5.size("num_heads")?,
        buckets: t5.size_or("relative_attention_num_buckets", base.buckets)?,
        max_distance: t5.size_or("relative_attention_max_distance", base.max_distance)?,
        norm_eps: t5.number_or("layer_norm_epsilon", base.norm_eps)?,
        raster: false,
    })
}

/// The LoRA adapter of a checkpoint, with its rank from the weights. `lora` is peft's configuration, if there is one;
/// without it alpha equals the rank, as in the released model.
///
/// # Errors
/// If the configuration contradicts the weights or requests an unsupported feature.
pub fn adapter(
    source: &dyn TensorSource,
    lora: Option<&Value>,
) -> Result<Option<AdapterConfig>, ConfigError> {
    let first = |info: &&TensorInfo| info.name.ends_with(LORA_A);
    let Some(rank) = source
        .tensors()
        .iter()
        .find(first)
        .and_then(|info| info.shape.first().copied())
    else {
        return Ok(None);
    };
    let mut alpha = rank as f64;
    if let Some(lora) = lora {
        let lora = Section::root("the adapter's config", lora)?;
        let stated = lora.size_or("r", rank)?;
        if stated != rank {
            return Err(lora.wrong("r", &format!("{rank} as in the weights")));
        }
        lora.only("bias", &["none"])?;
        alpha = lora.number_or("lora_alpha", alpha)?;
    }
    Ok(Some(AdapterConfig { rank, alpha }))
}

/// An object of a JSON file, with its name for error messages.
struct Section<'a> {
    name: &'static str,
    value: &'a Value,
}

impl<'a> Section<'a> {
    fn root(name: &'static str, value: &'a Value) -> Result<Self, ConfigError> {
        match value.is_object() {
            true => Ok(Self { name, value }),
            false => Err(ConfigError(format!("{name} is no JSON object"))),
        }
    }

    fn of(parent: &'a Value, name: &'static str) -> Result<Self, ConfigError> {
        Self::root(name, parent.get(name).unwrap_or(&Value::Null))
    }

    fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        let found = self.value.get(key).unwrap_or(&Value::Null);
        ConfigError(format!(
            "{key} of {} is {found} and should be {expected}",
            self.name
        ))
    }

    fn size(&self, key: &str) -> Result<usize, ConfigError> {
        let value = self.value.get(key).and_then(Value::as_u64);
        // The limit prevents overflow in products of two sizes.
        let value = value.filter(|&n| n <= 1 << 24).map(|n| n as usize);
        value.ok_or_else(|| self.wrong(key, "a whole number of reasonable size"))
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.size(key),
        }
    }

    fn number(&self, key: &str) -> Result<f64, ConfigError> {
        let value = self.value.get(key).and_then(Value::as_f64);
        value
            .filter(|n| n.is_finite() && *n > 0.0)
            .ok_or_else(|| self.wrong(key, "a positive number"))
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.number(key),
        }
    }

    /// Rejects any other value; an absent one is accepted.
    fn only(&self, key: &str, supported: &[&str]) -> Result<(), ConfigError> {
        match self.value.get(key) {
            None => Ok(()),
            Some(Value::String(text)) if supported.contains(&text.as_str()) => Ok(()),
            Some(_) => Err(self.wrong(key, &supported.join(" or "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use emu_pack::{KeyMap, Mapped};

    use super::*;
    use crate::{keys, weights};

    const KEYS: &str = include_str!("../../../tests/fixtures/reference/keys-emu-14b.json");
    const EMU_14B: &str = include_str!("../../../tests/fixtures/reference/Emu-14B.json");
    const TINY: &str = include_str!("../../../tests/fixtures/reference/tiny-emu-config.json");
    const TINY_LLAMA: &str =
        include_str!("../../../tests/fixtures/reference/tiny-llama/config.json");

    fn json(text: &str) -> Value {
        serde_json::from_str(text).expect("a fixture")
    }

    fn llama_13b() -> Value {
        serde_json::json!({
            "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40,
            "num_hidden_layers": 40, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "vocab_size": 32000
        })
    }

    #[test]
    fn files_give_the_presets() {
        let config = emu_config(&json(EMU_14B), &llama_13b()).expect("a config");
        assert_eq!(config, EmuConfig::emu_14b());
        let config = emu_config(&json(TINY), &json(TINY_LLAMA)).expect("a config");
        assert_eq!(config, EmuConfig::tiny());
    }

    #[test]
    fn wrong_files_are_named() {
        let wrong = |emu: &Value, llama: &Value, key: &str| {
            let message = emu_config(emu, llama).expect_err(key).to_string();
            assert!(message.contains(key), "{message}");
        };
        let (emu, llama) = (json(TINY), json(TINY_LLAMA));
        let with = |value: &Value, section: &str, key: &str, new: Value| {
            let mut value = value.clone();
            value[section][key] = new;
            value
        };
        let root = |value: &Value, key: &str, new: Value| {
            let mut value = value.clone();
            value[key] = new;
            value
        };
        wrong(&Value::Null, &llama, "vision_cfg");
        wrong(&emu, &Value::Null, "LLaMA");
        wrong(
            &with(&emu, "vision_cfg", "width", "wide".into()),
            &llama,
            "width",
        );
        wrong(
            &with(&emu, "vision_cfg", "patch_size", 13.into()),
            &llama,
            "patch",
        );
        wrong(
            &with(&emu, "t5_config", "feed_forward_proj", "gated-gelu".into()),
            &llama,
            "gated",
        );
        wrong(
            &emu,
            &root(&llama, "hidden_act", "gelu".into()),
            "hidden_act",
        );
        wrong(
            &emu,
            &root(&llama, "num_hidden_layers", Value::Null),
            "num_hidden_layers",
        );
        wrong(
            &emu,
            &root(&llama, "vocab_size", (1u64 << 40).into()),
            "vocab_size",
        );
        wrong(
            &emu,
            &root(
                &llama,
                "rope_scaling",
                serde_json::json!({"type": "linear"}),
            ),
            "rope_scaling",
        );
    }

    /// Checks both published key sets against the full-size model, each tensor in both directions, without allocating.
    #[test]
    fn every_key_of_the_full_size_model_maps_in_both_directions() {
        let keys = json(KEYS);
        let llama = json(&llama_13b().to_string());
        let pretrain = emu_config(&json(EMU_14B), &llama).expect("a config");
        both_ways(&keys["pretrain"], &pretrain, &keys::emu().expect("rules"));
        let instruct = pretrain.instruct();
        both_ways(
            &keys["instruct"],
            &instruct,
            &keys::emu_instruct().expect("rules"),
        );
        // Name of the adapted weight in newer versions of peft.
        let newer: serde_json::Map<String, Value> = keys["instruct"]
            .as_object()
            .expect("keys")
            .iter()
            .map(|(key, value)| (newer_peft(key, &keys["instruct"]), value.clone()))
            .collect();
        let mapped = to_model(&Value::Object(newer), &keys::emu_instruct().expect("rules"));
        assert_eq!(mapped, parameters(&instruct));
    }

    fn newer_peft(key: &str, all: &Value) -> String {
        match key.strip_suffix(".weight") {
            Some(stem) if all.get(format!("{stem}{LORA_A}")).is_some() => {
                format!("{stem}.base_layer.weight")
            }
            _ => key.into(),
        }
    }

    type Shapes = std::collections::BTreeMap<String, Vec<usize>>;

    fn parameters(config: &EmuConfig) -> Shapes {
        let model = config.init(&Device::flex()).expect("a model");
        weights::parameters(&model).into_iter().collect()
    }

    fn to_model(keys: &Value, map: &KeyMap) -> Shapes {
        let mut shapes = Shapes::new();
        for (key, value) in keys.as_object().expect("keys") {
            let shape = serde_json::from_value(value[0].clone()).expect("a shape");
            match map.to_model(key) {
                Some(Mapped::Name(name)) => {
                    assert!(
                        shapes.insert(name, shape).is_none(),
                        "{key} fills a parameter twice"
                    );
                }
                Some(Mapped::Ignored) => {}
                None => panic!("{key} is not mapped"),
            }
        }
        shapes
    }

    fn both_ways(keys: &Value, config: &EmuConfig, map: &KeyMap) {
        let mapped = to_model(keys, map);
        assert_eq!(mapped, parameters(config));
        for (name, shape) in &mapped {
            let key = map.to_checkpoint(name).expect(name);
            let listed: Vec<usize> =
                serde_json::from_value(keys[&key][0].clone()).unwrap_or_default();
            assert_eq!(&listed, shape, "{name} is written as {key}");
        }
    }
}
