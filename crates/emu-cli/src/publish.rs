//! `emu publish`: a folder with card, licence, pack and page, as hubs and static hosts want it.

use std::fs;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use emu_model::pack::ModelConfig;
use emu_pack::{MANIFEST_FILE, Manifest};
use serde_json::json;

use crate::args::PublishArgs;
use crate::media::is_picture_name;
use crate::models;
use crate::output::{bytes, json_line, print_now};
use crate::runtime::open_pack;

/// Files of a pack's folder that are published besides the pack itself.
const BESIDE: [&str; 2] = ["ATTRIBUTION.md", "NOTICE"];

/// Hubs store files that match this outside of git.
const ATTRIBUTES: &str = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n";

/// Folders of a site that hold the packs of its own models.
const BUNDLED: [&str; 2] = ["emu-webgpu-mini", "emu-webgpu-smol"];

/// Name of the page beside `index.html`, which opens it with the pack.
const PAGE: &str = "page.html";

/// Writes the folder: complete, or not at all.
///
/// # Errors
/// If the pack is damaged or names no licence, the page is none, or a file cannot be read or written.
pub fn run(args: &PublishArgs) -> Result<()> {
    if args.out.exists() {
        bail!(
            "{} exists already. Name a folder that does not.",
            args.out.display()
        );
    }
    let folder = models::resolve(&args.pack)?;
    let reader = open_pack(Some(&folder))?;
    reader.verify()?;
    let manifest = reader.manifest();
    if manifest.license.is_empty() || manifest.license == "unknown" {
        bail!(
            "{} names no licence, and what is published needs one. Name it: emu convert {0} --license NAME -o DIR.",
            folder.display()
        );
    }
    let parent = match args.out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| unwritten(parent))?;
    let building = parent.join(format!(".publish-{}", std::process::id()));
    let total = fill(args, &folder, manifest, &building).and_then(|total| {
        fs::rename(&building, &args.out).with_context(|| unwritten(&args.out))?;
        Ok(total)
    });
    if total.is_err() {
        let _ = fs::remove_dir_all(&building);
    }
    let total = total?;
    if args.json {
        return json_line(&json!({
            "out": args.out, "name": manifest.name, "license": manifest.license, "bytes": total,
            "page": args.page.is_some(),
        }));
    }
    print_now(&format!(
        "{}: {} under {}, {}\n",
        args.out.display(),
        manifest.name,
        manifest.license,
        bytes(total)
    ))
}

/// Writes all files into `to`. Returns their bytes.
fn fill(args: &PublishArgs, folder: &Path, manifest: &Manifest, to: &Path) -> Result<u64> {
    fs::create_dir(to).with_context(|| unwritten(to))?;
    // 1. the pack, and what stands beside it
    let entries = manifest.shards.iter().chain(&manifest.files);
    let names = entries.map(|entry| entry.file.as_str());
    for name in names.chain([MANIFEST_FILE]) {
        copy(&folder.join(name), &to.join(name))?;
    }
    for name in BESIDE {
        if folder.join(name).is_file() {
            copy(&folder.join(name), &to.join(name))?;
        }
    }
    // 2. licence and card
    let license = args.license_file.clone().or_else(|| {
        let own = folder.join("LICENSE");
        own.is_file().then_some(own)
    });
    if let Some(license) = &license {
        copy(license, &to.join("LICENSE"))?;
    }
    let card = card(args, folder, manifest)?;
    if args.card.is_none() {
        shown(&card, folder, to)?;
    }
    write(&to.join("README.md"), &card)?;
    write(&to.join(".gitattributes"), ATTRIBUTES)?;
    // 3. the page
    if let Some(site) = &args.page {
        page(site, to)?;
    }
    size(to)
}

fn unwritten(path: &Path) -> String {
    format!(
        "{} cannot be written; check its permissions and the space left",
        path.display()
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(|_| ())
        .with_context(|| format!("{} cannot be copied; check the path", from.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| unwritten(path))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read; check the path", path.display()))
}

/// The card, with the header that hubs read: the given one, the pack's own, or one written from its manifest.
fn card(args: &PublishArgs, folder: &Path, manifest: &Manifest) -> Result<String> {
    let own = folder.join("README.md");
    let text = match &args.card {
        Some(path) => read(path)?,
        None if own.is_file() => read(&own)?,
        None => described(manifest)?,
    };
    Ok(match text.starts_with("---\n") {
        true => text,
        false => header(manifest) + &text,
    })
}

/// Copies the pictures of a pack's own card that lie in the pack's folder.
fn shown(card: &str, folder: &Path, to: &Path) -> Result<()> {
    for name in pictures(card) {
        let (from, target) = (folder.join(name), to.join(name));
        if !from.is_file() || target.exists() {
            continue;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(|| unwritten(parent))?;
        }
        copy(&from, &target)?;
    }
    Ok(())
}

/// The pictures that a text in Markdown shows by paths that do not lead out of its folder.
fn pictures(text: &str) -> impl Iterator<Item = &str> {
    let marked = text.split("![").skip(1);
    let names = marked.filter_map(|rest| Some(rest.split_once("](")?.1.split_once(')')?.0));
    names.filter(|name| {
        let mut parts = Path::new(name).components();
        !name.contains("://")
            && is_picture_name(Path::new(name))
            && parts.all(|part| matches!(part, Component::Normal(_)))
    })
}

/// The YAML in front of a card.
fn header(manifest: &Manifest) -> String {
    let license = licence(&manifest.license);
    format!(
        "---\n{license}\nlibrary_name: emu\npipeline_tag: image-text-to-text\ntags:\n- emu\n- multimodal\n- webgpu\n---\n\n"
    )
}

/// A licence as hubs know it: by its identifier in lower case, or, of an expression of several, by a name.
fn licence(expression: &str) -> String {
    let name = expression.to_lowercase().replace(' ', "-");
    match expression.contains(' ') {
        true => format!("license: other\nlicense_name: {name}"),
        false => format!("license: {name}"),
    }
}

/// A card of what the manifest says.
fn described(manifest: &Manifest) -> Result<String> {
    let config = ModelConfig::from_value(&manifest.config)?;
    let emu = &config.emu;
    let mut lines = vec![
        format!("# {}\n", manifest.name),
        format!(
            "A multimodal model that reads pictures of {} pixels and text. Its language model has {} layers of width {}.\n",
            emu.vision.image_size, emu.lm.layers, emu.lm.width
        ),
        "| part | bytes |\n| --- | --- |".into(),
    ];
    let parts = manifest.components.iter();
    lines.extend(parts.map(|(name, part)| format!("| {name} | {} |", bytes(part.bytes))));
    lines.push(format!(
        "\n## Use\n\n```sh\nemu caption --model DIR picture.png\nemu chat --model DIR --image picture.png \"what is this?\"\n```\n\n\
         ```js\nimport {{ Emu }} from \"emu-webgpu\";\nconst emu = await Emu.load(\"DIR/\");\n```\n\n## Licence\n\n{}. {}",
        manifest.license, manifest.attribution
    ));
    Ok(lines.join("\n").trim_end().to_string() + "\n")
}

/// Copies a site without the packs of its own models, so that it opens with the pack in the same folder.
fn page(site: &Path, to: &Path) -> Result<()> {
    let index = site.join("index.html");
    if !index.is_file() {
        bail!(
            "{} holds no index.html, so it is no page. Build one with `cargo xtask demo --build-only`, and name out/site.",
            site.display()
        );
    }
    tree(site, to, &|name| {
        name == "index.html" || BUNDLED.contains(&name)
    })?;
    write(&to.join(PAGE), &without_models(&read(&index)?))?;
    let open = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Emu</title>\n\
         <meta http-equiv=\"refresh\" content=\"0; url={PAGE}?model=./\">\n<a href=\"{PAGE}?model=./\">Open the model</a>\n</html>\n"
    );
    write(&to.join("index.html"), &open)
}

/// The page with the mark that no model is bundled with it.
fn without_models(html: &str) -> String {
    let mut html = html.to_string();
    if let Some(at) = html.find(" data-models=\"") {
        let value = at + " data-models=\"".len();
        if let Some(end) = html[value..].find('"') {
            html.replace_range(at..=value + end, "");
        }
    }
    html.replacen("<html ", "<html data-models=\"none\" ", 1)
}

/// Copies the files of a folder, but for those in it that `left_out` names.
fn tree(from: &Path, to: &Path, left_out: &dyn Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| unwritten(to))?;
    for entry in fs::read_dir(from).with_context(|| format!("{} cannot be read", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let target = to.join(&name);
        if name.to_str().is_some_and(left_out) {
            continue;
        }
        if entry.path().is_dir() {
            tree(&entry.path(), &target, &|_| false)?;
        } else if target.exists() {
            bail!(
                "The page and the pack both have a file {}. Take the page as it was built.",
                name.display()
            );
        } else {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Bytes of all files of a folder.
fn size(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        total += match path.is_dir() {
            true => size(&path)?,
            false => fs::metadata(&path)?.len(),
        };
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_those_that_hubs_know() {
        assert_eq!(licence("CC-BY-4.0"), "license: cc-by-4.0");
        assert_eq!(
            licence("Apache-2.0 AND CC-BY-4.0"),
            "license: other\nlicense_name: apache-2.0-and-cc-by-4.0"
        );
    }

    #[test]
    fn pictures_of_a_card_are_those_of_its_folder() {
        let card = "[a](no.png) ![all](demo/all.png)\n![](b.jpg) and ![out](../c.png) ![web](https://d.test/d.png) \
                    ![root](/e.png) ![no picture](f.md) ![open](g.png";
        assert_eq!(
            pictures(card).collect::<Vec<_>>(),
            ["demo/all.png", "b.jpg"]
        );
    }

    #[test]
    fn a_page_is_marked_to_have_no_models_of_its_own() {
        let wanted = "<html data-models=\"none\" lang=\"en\">";
        assert_eq!(without_models("<html lang=\"en\">"), wanted);
        assert_eq!(
            without_models("<html data-models=\"mini\" lang=\"en\">"),
            wanted
        );
    }
}
