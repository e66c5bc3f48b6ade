//! Tensors of the released files: names, shapes and element types, from the key lists in the test fixtures.

use std::path::Path;

use anyhow::{Context, Result, bail};
use emu_pack::Dtype;
use serde_json::{Value, json};

use super::keys_file;

/// A tensor to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its key.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its sizes.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        self.elements() as u64 * self.dtype.size() as u64
    }
}

/// One weight file and the configuration next to it.
#[derive(Debug)]
pub struct Part {
    /// Folder of this component of the decoder.
    pub folder: &'static str,
    /// Its weight file.
    pub file: &'static str,
    /// Its `config.json`.
    pub config: Value,
    /// Its tensors in file order.
    pub tensors: Vec<Tensor>,
}

impl Part {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(Tensor::bytes).sum()
    }
}

/// Encoder and language model.
#[derive(Debug)]
pub struct Emu {
    /// The weights.
    pub part: Part,
    /// `Emu-14B.json`
    pub config: Value,
    /// LLaMA's `config.json`
    pub llama: Value,
    /// Number of pieces of LLaMA's tokenizer.
    pub pieces: usize,
}

/// The diffusion decoder and the safety checker.
#[derive(Debug)]
pub struct Decoder {
    unet: Part,
    vae: Part,
    safety: Part,
}

impl Decoder {
    /// UNet, VAE and safety checker.
    pub fn parts(&self) -> [&Part; 3] {
        [&self.unet, &self.vae, &self.safety]
    }
}

/// Number of special tokens that Emu adds to LLaMA's.
const ADDED: usize = 4;
/// Key prefixes of the layer stacks.
const LAYER_PREFIXES: [&str; 3] = [
    "visual.blocks.",
    "cformer.cformer.block.",
    "decoder.lm.model.layers.",
];

/// Tensors and configurations of the pretrained model, with at most `layers` layers per stack.
///
/// # Errors
/// Where the key list cannot be read or is invalid.
pub fn emu(folder: &Path, layers: Option<usize>) -> Result<Emu> {
    let file = "keys-emu-14b.json";
    let list = keys_file(folder, file)?;
    let wrong = || format!("{file} is no list of Emu's keys. Take the one of the reference");
    let mut tensors = tensors(list.get("pretrain"), file)?;
    let kept = |tensor: &Tensor| match number(&tensor.name) {
        Some(at) => layers.is_none_or(|layers| at < layers),
        None => true,
    };
    tensors.retain(kept);

    let shape = |name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name);
        tensor.map(|t| t.shape.as_slice()).with_context(wrong)
    };
    let &[rows, width] = shape("decoder.lm.lm_head.weight")? else {
        bail!(wrong());
    };
    let &[ffn, _] = shape("decoder.lm.model.layers.0.mlp.up_proj.weight")? else {
        bail!(wrong());
    };
    let &[half_head] = shape("decoder.lm.model.layers.0.self_attn.rotary_emb.inv_freq")? else {
        bail!(wrong());
    };
    let count = |prefix: &str| {
        let numbers = tensors.iter().filter(|t| t.name.starts_with(prefix));
        numbers
            .filter_map(|t| number(&t.name))
            .max()
            .map_or(0, |n| n + 1)
    };
    let [encoder, causal, lm] = LAYER_PREFIXES.map(count);
    let pieces = rows.checked_sub(ADDED).with_context(wrong)?;
    let llama = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": pieces, "hidden_size": width,
        "intermediate_size": ffn, "num_hidden_layers": lm, "num_attention_heads": width / (2 * half_head).max(1),
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "hidden_act": "silu", "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": false,
    });
    let mut config = list.get("config").with_context(wrong)?.clone();
    config["vision_cfg"]["layers"] = encoder.into();
    if layers.is_some() {
        // The released configuration has no such entry, because its causal former is always that of t5-base.
        config["t5_config"] = list.get("t5_config").with_context(wrong)?.clone();
        config["t5_config"]["num_layers"] = causal.into();
        config["t5_config"]["num_decoder_layers"] = causal.into();
    }
    let part = Part {
        folder: "",
        file: "Emu-pretrain.pt",
        config: Value::Null,
        tensors,
    };
    Ok(Emu {
        part,
        config,
        llama,
        pieces,
    })
}

/// Tensors and configurations of UNet, VAE and safety checker.
///
/// # Errors
/// As [`emu`].
pub fn decoder(folder: &Path) -> Result<Decoder> {
    let part = |list: &str, folder_name, file, class: &str| -> Result<Part> {
        let json = keys_file(folder, list)?;
        let mut config = json.get("config").cloned().unwrap_or_default();
        config["_class_name"] = class.into();
        Ok(Part {
            folder: folder_name,
            file,
            config,
            tensors: tensors(json.get("keys"), list)?,
        })
    };
    let diffusers = "diffusion_pytorch_model.safetensors";
    Ok(Decoder {
        unet: part(
            "keys-sd15-unet.json",
            "unet",
            diffusers,
            "UNet2DConditionModel",
        )?,
        vae: part("keys-sd15-vae.json", "vae", diffusers, "AutoencoderKL")?,
        safety: part(
            "keys-safety-checker.json",
            "safety_checker",
            "model.safetensors",
            "StableDiffusionSafetyChecker",
        )?,
    })
}

/// Layer number in a key.
fn number(name: &str) -> Option<usize> {
    let rest = LAYER_PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    rest.split('.').next()?.parse().ok()
}

/// Tensors of a `{key: [shape, type]}` list, in the same order.
fn tensors(list: Option<&Value>, file: &str) -> Result<Vec<Tensor>> {
    let wrong = || format!("{file} is no list of keys with shapes and types. Take the reference's");
    let list = list.and_then(Value::as_object).with_context(wrong)?;
    let tensor = |(name, entry): (&String, &Value)| {
        let dtype = match entry.get(1)?.as_str()? {
            "float32" => Dtype::F32,
            "bfloat16" => Dtype::BF16,
            "float16" => Dtype::F16,
            _ => return None,
        };
        let sizes = entry.get(0)?.as_array()?.iter();
        let shape = sizes.map(|size| usize::try_from(size.as_u64()?).ok());
        Some(Tensor {
            name: name.clone(),
            dtype,
            shape: shape.collect::<Option<_>>()?,
        })
    };
    let tensors = list.iter().map(|entry| tensor(entry).with_context(wrong));
    tensors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> &'static Path {
        Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/reference"
        ))
    }

    #[test]
    fn the_full_size_is_the_released_one() {
        let emu = emu(folder(), None).expect("the list");
        assert_eq!(emu.part.tensors.len(), 1096);
        assert_eq!(emu.part.bytes(), 30_449_950_464);
        assert_eq!(
            (emu.pieces, &emu.llama["num_hidden_layers"]),
            (32_000, &json!(40))
        );
        assert_eq!(emu.llama["num_attention_heads"], 40);
        assert!(emu.config.get("t5_config").is_none());
        let decoder = decoder(folder()).expect("the lists");
        let bytes: u64 = decoder.parts().iter().map(|part| part.bytes()).sum();
        assert_eq!(bytes, 4 * (968_146_884 + 83_653_863 + 303_981_588));
    }

    #[test]
    fn fewer_layers_are_counted_in_every_configuration() {
        let emu = emu(folder(), Some(2)).expect("the list");
        assert_eq!(emu.config["vision_cfg"]["layers"], 2);
        assert_eq!(emu.config["t5_config"]["num_decoder_layers"], 2);
        assert_eq!(emu.llama["num_hidden_layers"], 2);
        let names = || emu.part.tensors.iter().map(|t| t.name.as_str());
        assert!(names().any(|name| name.starts_with("visual.blocks.1.")));
        assert!(!names().any(|name| number(name).is_some_and(|n| n > 1)));
        assert!(names().any(|name| name == "decoder.lm.model.norm.weight"));
    }

    #[test]
    fn wrong_lists_are_named() {
        let error = super::emu(Path::new("/nowhere"), None).expect_err("no folder");
        assert!(error.to_string().contains("keys-emu-14b.json"), "{error}");
        for wrong in [json!({"a": 1}), json!({"a": [[1], "int3"]}), json!([])] {
            assert!(tensors(Some(&wrong), "list.json").is_err(), "{wrong}");
        }
    }
}
