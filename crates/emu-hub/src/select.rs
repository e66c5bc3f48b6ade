//! Chooses the files that a conversion or a run needs. Repositories often hold the same weights several times.

use std::collections::BTreeSet;

use crate::client::absent;
use crate::pattern::matches;
use crate::{Address, Entry, HubError, Listing, Options};

/// The manifest of a pack.
pub(crate) const MANIFEST: &str = "emu.json";
/// The description of a pipeline of components, each in a folder of its own.
const PIPELINE: &str = "model_index.json";

/// What a file name says about the contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    Safetensors,
    PyTorch,
    Gguf,
    /// Configuration, tokenizer, template.
    Setting,
    /// Anything else: other formats, states of a training, pictures, texts.
    Other,
}

/// A file name, taken apart.
struct Name<'a> {
    /// Folder, without a slash at its end.
    folder: &'a str,
    /// Name without folder.
    file: &'a str,
    format: Format,
    /// Name of the weights without ending and number; `model` for `pytorch_model`, as both hold the same.
    stem: String,
    /// Whether it is one of several parts, or their index.
    part: bool,
}

impl<'a> Name<'a> {
    fn of(path: &'a str) -> Self {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let whole = file.strip_suffix(".index.json");
        let index = whole.is_some();
        let (stem, ending) = whole.unwrap_or(file).rsplit_once('.').unwrap_or((file, ""));
        let mut format = match ending {
            "safetensors" => Format::Safetensors,
            "bin" | "pt" | "pth" => Format::PyTorch,
            "gguf" => Format::Gguf,
            "json" | "model" | "tiktoken" | "jinja" => Format::Setting,
            "txt" if ["merges.txt", "vocab.txt"].contains(&file) => Format::Setting,
            _ => Format::Other,
        };
        let training = [
            "optimizer",
            "training_args",
            "scheduler.",
            "rng_state",
            "scaler.",
        ];
        if format == Format::PyTorch && training.iter().any(|start| file.starts_with(start)) {
            format = Format::Other;
        }
        let (stem, numbered) = match stem.rsplit_once("-of-") {
            Some((rest, count)) if is_number(count) => match rest.rsplit_once('-') {
                Some((rest, at)) if is_number(at) => (rest, true),
                _ => (stem, false),
            },
            _ => (stem, false),
        };
        let stem = match stem.strip_prefix("pytorch_model") {
            Some(rest) => format!("model{rest}"),
            None => stem.to_owned(),
        };
        Self {
            folder,
            file,
            format,
            stem,
            part: index || numbered,
        }
    }

    /// `model` for `model.fp16`, a second file of the same weights in another precision.
    fn plain(&self) -> Option<&str> {
        self.stem.split_once('.').map(|(plain, _)| plain)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Chooses the files to fetch: those that match `include`, or else what a conversion or a run needs, without those that match
/// `exclude`.
///
/// The automatic choice takes configurations, tokenizers and, in each folder, the weights once: safetensors rather than PyTorch,
/// one file rather than parts, the usual precision rather than variants such as `fp16`. In the folder of a pack it takes the
/// pack. If the address names a file, it takes that, the other parts of the same weights, and the settings beside it.
///
/// # Errors
/// If the address names a file or folder that is not in the list, or nothing is left.
pub fn choose<'a>(
    listing: &'a Listing,
    address: &Address,
    options: &Options,
) -> Result<Vec<&'a Entry>, HubError> {
    let scope = scope(listing, address)?;
    let any = |patterns: &[String], path: &str| patterns.iter().any(|p| matches(p, path));
    let mut chosen: Vec<&Entry> = match (options.include.is_empty(), scope) {
        (true, Scope::File(entries)) => entries,
        (true, Scope::Folder(entries)) => automatic(&entries, address.path.as_deref()),
        (false, Scope::File(entries) | Scope::Folder(entries)) => {
            let wanted = entries.into_iter();
            wanted.filter(|e| any(&options.include, &e.path)).collect()
        }
    };
    chosen.retain(|entry| !any(&options.exclude, &entry.path));
    match chosen.is_empty() {
        true => Err(HubError::NothingChosen {
            address: address.to_string(),
        }),
        false => Ok(chosen),
    }
}

/// What the address names.
enum Scope<'a> {
    /// A file, with what belongs to it.
    File(Vec<&'a Entry>),
    /// A folder, or the whole repository.
    Folder(Vec<&'a Entry>),
}

fn scope<'a>(listing: &'a Listing, address: &Address) -> Result<Scope<'a>, HubError> {
    let entries = listing.entries.iter();
    let Some(path) = &address.path else {
        return Ok(Scope::Folder(entries.collect()));
    };
    if entries.clone().any(|entry| entry.path == *path) {
        let named = Name::of(path);
        let belongs = |entry: &&Entry| {
            let name = Name::of(&entry.path);
            let parts = named.part && name.part;
            let same = parts && (name.format, &name.stem) == (named.format, &named.stem);
            let setting = name.format == Format::Setting;
            entry.path == *path || name.folder == named.folder && (same || setting)
        };
        return Ok(Scope::File(entries.filter(belongs).collect()));
    }
    let inside = |entry: &&Entry| {
        let rest = entry.path.strip_prefix(path.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let entries: Vec<&Entry> = entries.filter(inside).collect();
    match entries.is_empty() {
        true => Err(absent(address, path)),
        false => Ok(Scope::Folder(entries)),
    }
}

/// The automatic choice in a folder and those below it.
fn automatic<'a>(entries: &[&'a Entry], top: Option<&str>) -> Vec<&'a Entry> {
    let names: Vec<(Name<'_>, &'a Entry)> = entries
        .iter()
        .map(|entry| (Name::of(&entry.path), *entry))
        .collect();
    let with = |file: &str| -> BTreeSet<&str> {
        let found = names.iter().filter(|(name, _)| name.file == file);
        found.map(|(name, _)| name.folder).collect()
    };
    let (packs, pipelines) = (with(MANIFEST), with(PIPELINE));
    let top_is_pack = packs.contains(top.unwrap_or(""));
    let weights: Vec<&Name<'_>> = { names.iter().map(|(name, _)| name) }
        .filter(|name| name.format < Format::Setting)
        .collect();
    let keep = |name: &Name<'_>| {
        if top_is_pack && name.folder != top.unwrap_or("") {
            return false;
        }
        if packs.contains(name.folder) {
            return matches!(name.format, Format::Safetensors | Format::Setting);
        }
        match name.format {
            Format::Setting => true,
            Format::Other => false,
            // The components have their own.
            _ if pipelines.contains(name.folder) => false,
            _ => !weights.iter().any(|other| better(other, name)),
        }
    };
    let kept = names.iter().filter(|(name, _)| keep(name));
    kept.map(|(_, entry)| *entry).collect()
}

/// Whether `other` holds the weights of `name` in a form that is preferred.
fn better(other: &Name<'_>, name: &Name<'_>) -> bool {
    if other.folder != name.folder || other.format == Format::Gguf || name.format == Format::Gguf {
        return false;
    }
    // The usual precision in another format is preferred to a variant in this one.
    if name.plain() == Some(&other.stem) {
        return true;
    }
    other.stem == name.stem
        && (other.format < name.format || other.format == name.format && !other.part && name.part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let entry = |path: &&str| Entry {
            path: (*path).into(),
            size: Some(1),
            hash: None,
        };
        Listing {
            commit: "c".repeat(40),
            entries: paths.iter().map(entry).collect(),
        }
    }

    fn chosen(paths: &[&str], address: &str, options: &Options) -> Vec<String> {
        let (listing, address) = (listing(paths), crate::parse(address).expect("an address"));
        let chosen = choose(&listing, &address, options).expect("a choice");
        chosen.iter().map(|entry| entry.path.clone()).collect()
    }

    fn auto(paths: &[&str], address: &str) -> Vec<String> {
        chosen(paths, address, &Options::new("/c"))
    }

    const EMU: [&str; 16] = [
        ".gitattributes",
        "Emu-instruct.pt",
        "README.md",
        "pretrain/feature_extractor/preprocessor_config.json",
        "pretrain/multimodal_encoder/pytorch_model.bin",
        "pretrain/safety_checker/config.json",
        "pretrain/safety_checker/pytorch_model.bin",
        "pretrain/scheduler/scheduler_config.json",
        "pretrain/unet/config.json",
        "pretrain/unet/diffusion_pytorch_model.bin",
        "pretrain/unet/diffusion_pytorch_model.fp16.bin",
        "pretrain/unet/diffusion_pytorch_model.fp16.safetensors",
        "pretrain/unet/diffusion_pytorch_model.safetensors",
        "pretrain/vae/config.json",
        "pretrain/vae/diffusion_pytorch_model.bin",
        "pretrain2/vae/config.json",
    ];

    #[test]
    fn of_the_released_layout_each_component_is_taken_once() {
        let wanted = [
            "pretrain/feature_extractor/preprocessor_config.json",
            "pretrain/multimodal_encoder/pytorch_model.bin",
            "pretrain/safety_checker/config.json",
            "pretrain/safety_checker/pytorch_model.bin",
            "pretrain/scheduler/scheduler_config.json",
            "pretrain/unet/config.json",
            "pretrain/unet/diffusion_pytorch_model.safetensors",
            "pretrain/vae/config.json",
            "pretrain/vae/diffusion_pytorch_model.bin",
        ];
        assert_eq!(auto(&EMU, "hf://BAAI/Emu/pretrain"), wanted);
        assert_eq!(
            auto(&EMU, "hf://BAAI/Emu/Emu-instruct.pt"),
            ["Emu-instruct.pt"]
        );
    }

    #[test]
    fn weights_come_once() {
        for (paths, wanted) in [
            // Safetensors rather than PyTorch, parts or whole, under either name.
            (
                &[
                    "model.safetensors",
                    "pytorch_model.bin",
                    "tf_model.h5",
                    "flax_model.msgpack",
                ][..],
                &["model.safetensors"][..],
            ),
            (
                &[
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                    "model.safetensors.index.json",
                    "pytorch_model-00001-of-00001.bin",
                    "pytorch_model.bin.index.json",
                ],
                &[
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                    "model.safetensors.index.json",
                ],
            ),
            (
                &[
                    "model-00001-of-00001.safetensors",
                    "model.safetensors",
                    "model.safetensors.index.json",
                ],
                &["model.safetensors"],
            ),
            // PyTorch where there is nothing else; states of a training never.
            (
                &[
                    "optimizer.pt",
                    "pytorch_model.bin",
                    "rng_state_0.pth",
                    "scheduler.pt",
                    "training_args.bin",
                ],
                &["pytorch_model.bin"],
            ),
            // Other weights in the same folder stay.
            (
                &["adapter_model.safetensors", "pytorch_model.bin"],
                &["adapter_model.safetensors", "pytorch_model.bin"],
            ),
            // A variant only if there is nothing else.
            (
                &["model.fp16.safetensors", "model.safetensors"],
                &["model.safetensors"],
            ),
            (
                &["model.fp16.safetensors", "pytorch_model.bin"],
                &["pytorch_model.bin"],
            ),
            (&["model.fp16.safetensors"], &["model.fp16.safetensors"]),
            // A pipeline's components instead of the same weights in one file.
            (
                &[
                    "model_index.json",
                    "v1-5.safetensors",
                    "unet/config.json",
                    "unet/model.safetensors",
                ],
                &[
                    "model_index.json",
                    "unet/config.json",
                    "unet/model.safetensors",
                ],
            ),
            // Tokenizers and templates, no pictures and texts.
            (
                &[
                    "README.md",
                    "chat_template.jinja",
                    "merges.txt",
                    "notes.txt",
                    "photo.png",
                    "tokenizer.model",
                ],
                &["chat_template.jinja", "merges.txt", "tokenizer.model"],
            ),
        ] {
            assert_eq!(auto(paths, "hf://a/b"), wanted);
        }
    }

    #[test]
    fn a_pack_is_taken_as_a_whole_and_alone() {
        let paths = [
            "README.md",
            "emu.json",
            "lm-00001-of-00001.safetensors",
            "old/model.safetensors",
            "tokenizer.json",
            "vision-00001-of-00001.safetensors",
        ];
        let wanted = [
            "emu.json",
            "lm-00001-of-00001.safetensors",
            "tokenizer.json",
            "vision-00001-of-00001.safetensors",
        ];
        assert_eq!(auto(&paths, "hf://a/b"), wanted);
        let deep: Vec<String> = paths.iter().map(|path| format!("q4/{path}")).collect();
        let mut deep: Vec<&str> = deep.iter().map(String::as_str).collect();
        deep.push("f16/emu.json");
        let wanted: Vec<String> = wanted.iter().map(|path| format!("q4/{path}")).collect();
        assert_eq!(auto(&deep, "hf://a/b/q4"), wanted);
    }

    #[test]
    fn a_file_comes_with_its_parts_and_settings() {
        let paths = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "other-00001-of-00002.safetensors",
            "pytorch_model.bin",
            "x/config.json",
        ];
        let wanted = &paths[..4];
        assert_eq!(
            auto(&paths, "hf://a/b/model.safetensors.index.json"),
            wanted
        );
        assert_eq!(
            auto(&paths, "hf://a/b/model-00002-of-00002.safetensors"),
            wanted
        );
        let bin = [
            "config.json",
            "model.safetensors.index.json",
            "pytorch_model.bin",
        ];
        let found = auto(&paths, "hf://a/b/pytorch_model.bin");
        assert_eq!(found, [bin[0], bin[2]]);
        let parts = [
            "a-Q4-00001-of-00002.gguf",
            "a-Q4-00002-of-00002.gguf",
            "a-Q8.gguf",
        ];
        assert_eq!(
            auto(&parts, "hf://a/b/a-Q4-00001-of-00002.gguf"),
            parts[..2]
        );
        assert_eq!(auto(&parts, "hf://a/b/a-Q8.gguf"), parts[2..]);
    }

    #[test]
    fn patterns_replace_the_choice() {
        let mut options = Options::new("/c");
        options.include = vec!["*.md".into(), "pretrain/unet/".into()];
        options.exclude = vec!["*.fp16.*".into(), "*.bin".into()];
        let wanted = [
            "README.md",
            "pretrain/unet/config.json",
            "pretrain/unet/diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(chosen(&EMU, "hf://BAAI/Emu", &options), wanted);
        options.include.clear();
        options.exclude = vec!["*".into()];
        let (listing, address) = (listing(&EMU), crate::parse("hf://a/b").expect("one"));
        let error = choose(&listing, &address, &options).expect_err("nothing");
        assert_eq!(error.code(), "hub-nothing-chosen");
        let gone = crate::parse("hf://a/b/pretrai").expect("one");
        let error = choose(&listing, &gone, &Options::new("/c")).expect_err("no such");
        assert_eq!(error.code(), "hub-no-file");
    }
}
