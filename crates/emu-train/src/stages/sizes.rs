//! The sizes of the model that a configuration names.

use std::path::Path;

use emu_model::EmuConfig;
use emu_tokenizer::names;

use super::corpus::Words;
use super::model_file::MODEL_FILE;
use crate::{TrainConfig, TrainError};

/// The sizes of the Emu in a configuration: the preset `emu-mini` with the tokenizer's vocabulary, another preset, or
/// what a file, a pack or a run says.
///
/// # Errors
/// If there is no such preset, or the file cannot be read or does not match the tokenizer.
pub fn emu_config(config: &TrainConfig, words: &Words) -> Result<EmuConfig, TrainError> {
    let sizes = match preset(config)? {
        Some(sizes) => sizes,
        None => EmuConfig::emu_mini(words.vocab(), words.special),
    };
    sizes
        .validate()
        .map_err(|e| TrainError::other("config", e))?;
    fits(&sizes, words)?;
    Ok(sizes)
}

/// Whether the tokenizer is of the model: another one puts pictures where the model reads words.
fn fits(sizes: &EmuConfig, words: &Words) -> Result<(), TrainError> {
    let (model, own) = (&sizes.special, &words.special);
    let marks = [
        (names::IMG, model.img, own.img),
        (names::END_IMG, model.end_img, own.end_img),
        (names::IMAGE, model.image, own.image),
    ];
    match marks.into_iter().find(|(_, model, own)| model != own) {
        None => Ok(()),
        Some((name, model, own)) => Err(TrainError::config(
            "options.tokenizer",
            format!(
                "its {name} is token {own}, that of the model at `init.preset` is token {model}; take the tokenizer of that model"
            ),
        )),
    }
}

/// The sizes of the Emu in a configuration; `None` for the preset `emu-mini`, whose vocabulary is the tokenizer's.
///
/// # Errors
/// If there is no such preset, or the file cannot be read.
pub fn preset(config: &TrainConfig) -> Result<Option<EmuConfig>, TrainError> {
    let name = config.init.preset.as_deref().unwrap_or("emu-mini");
    Ok(Some(match name {
        "emu-mini" => return Ok(None),
        "tiny" => EmuConfig::tiny(),
        "emu-14b" => EmuConfig::emu_14b(),
        "emu-14b-instruct" => EmuConfig::emu_14b().instruct(),
        path => sizes_at(Path::new(path))?,
    }))
}

/// The sizes in a TOML or JSON file, a pack, or the folder of a run.
fn sizes_at(path: &Path) -> Result<EmuConfig, TrainError> {
    let wrong = |message: String| TrainError::config("init.preset", message);
    let mut path = path.to_path_buf();
    if path.is_dir() {
        let files = [emu_pack::MANIFEST_FILE, MODEL_FILE].map(|name| path.join(name));
        path = (files.into_iter().find(|file| file.is_file()))
            .ok_or_else(|| wrong(format!("{} is neither a pack nor a run", path.display())))?;
    }
    let text = std::fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    if path.extension().is_some_and(|kind| kind == "json") {
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let inner = ["/config/emu", "/emu"]
            .iter()
            .find_map(|at| value.pointer(at));
        let inner = inner.unwrap_or(&value).clone();
        serde_json::from_value(inner).map_err(|e| wrong(e.to_string()))
    } else {
        toml::from_str(&text).map_err(|e: toml::de::Error| wrong(e.message().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(preset: &str) -> TrainConfig {
        let text = format!(
            "stage='t'\nout='o'\nsteps=1\nbatch=1\n[optimiser]\nlr=1.0\n[init]\npreset='{preset}'"
        );
        TrainConfig::parse(&text, Path::new("t.toml")).unwrap()
    }

    #[test]
    fn presets_files_packs_and_runs_have_sizes() {
        let tiny = EmuConfig::tiny();
        assert_eq!(preset(&config("tiny")).unwrap(), Some(tiny.clone()));
        assert_eq!(preset(&config("emu-mini")).unwrap(), None);
        let instruct = preset(&config("emu-14b-instruct")).unwrap().unwrap();
        assert_eq!(
            (instruct.lm.vocab, instruct.special.user),
            (32_006, Some(32_004))
        );

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let emu = serde_json::json!(tiny);
        std::fs::create_dir(at("pack")).unwrap();
        std::fs::create_dir(at("run")).unwrap();
        for (file, value) in [
            ("bare.json", emu.clone()),
            ("run/model.json", serde_json::json!({ "emu": emu.clone() })),
            (
                "pack/emu.json",
                serde_json::json!({ "config": { "emu": emu } }),
            ),
        ] {
            std::fs::write(at(file), value.to_string()).unwrap();
        }
        std::fs::write(at("sizes.toml"), toml::to_string(&tiny).unwrap()).unwrap();
        for name in ["bare.json", "run/model.json", "run", "pack", "sizes.toml"] {
            let found = preset(&config(&at(name).display().to_string())).unwrap();
            assert_eq!(found.as_ref(), Some(&tiny), "{name}");
        }
        let error = preset(&config(&folder.path().display().to_string()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("neither a pack nor a run"), "{error}");
    }
    #[test]
    fn a_tokenizer_of_another_model_is_refused() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/stages/tokenizer.json");
        let words = Words::open(&path).unwrap();
        assert!(emu_config(&config("emu-mini"), &words).is_ok());
        let error = emu_config(&config("tiny"), &words).unwrap_err().to_string();
        assert!(
            error.contains("options.tokenizer")
                && error.contains("[IMG] is token 1004")
                && error.contains("token 301"),
            "{error}"
        );
        // A pack of one's own, with this tokenizer.
        let folder = tempfile::tempdir().unwrap();
        let mut sizes = EmuConfig::tiny();
        sizes.special = words.special;
        sizes.lm.vocab = words.vocab();
        let file = folder.path().join("sizes.toml");
        std::fs::write(&file, toml::to_string(&sizes).unwrap()).unwrap();
        let found = emu_config(&config(&file.display().to_string()), &words).unwrap();
        assert_eq!(found, sizes);
    }
}
