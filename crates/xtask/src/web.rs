//! The files for browsers: npm packages and page, built and assembled into a folder for any static server.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::command;
use crate::model::{self, MODELS};
use crate::npm::install;
use crate::wasm::{self, WasmArgs};
use crate::workspace::Workspace;

/// Folder of the shipped model.
const MODEL: &str = "models/emu-mini";
/// Its folder in the package `emu-webgpu-mini`.
const MINI_PACK: &str = "web/mini/pack";
/// Its quantization policy in that package.
const MINI_POLICY: &str = "configs/quantize/q8.toml";
/// Folder of the model in the package `emu-webgpu-smol`.
const SMOL_PACK: &str = "web/smol/pack";

/// Folders that are compiled, each with its own lock file. In this order, because the page uses the package's types.
const COMPILED: [&str; 2] = ["web/package", "web/demo"];
/// Folder of the end-to-end tests.
const TESTS: [&str; 1] = ["web/e2e"];

/// Builds modules, model packages, npm package and page. Returns `false` if a size budget is exceeded, which only a build for
/// publishing checks.
pub fn build(workspace: &Workspace, modules: &WasmArgs) -> Result<bool> {
    install(workspace, &COMPILED)?;
    // The packs are built in parallel, because compiling the modules leaves a processor idle at times.
    let within = thread::scope(|scope| {
        let pack = scope.spawn(|| {
            mini_pack(workspace)?;
            if let Err(error) = smol_pack(workspace) {
                println!("emu-smol is left out, the page opens with emu-mini: {error:#}");
            }
            anyhow::Ok(())
        });
        let within = wasm::run(workspace, modules)?;
        pack.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        anyhow::Ok(within)
    })?;
    compile(workspace, &COMPILED)?;
    Ok(within)
}

/// Builds what the end-to-end tests need: all of [`build`], with the modules that `cargo xtask demo` has. Those of a release
/// are the same code, linked for size, which takes several minutes more (`cargo xtask soak`, `cargo xtask release`).
pub fn build_for_tests(workspace: &Workspace, modules: &WasmArgs) -> Result<bool> {
    install(workspace, &TESTS)?;
    build(workspace, modules)
}

/// Compiles the TypeScript of these folders.
pub fn compile(workspace: &Workspace, folders: &[&str]) -> Result<()> {
    install(workspace, folders)?;
    for name in folders {
        let mut npm = command::new("npm", &workspace.root.join(name));
        if !command::succeeds(npm.args(["run", "--silent", "build"]))? {
            bail!("{name} did not build; the compiler's message is above");
        }
    }
    Ok(())
}

/// Builds the pack of the package `emu-webgpu-mini`.
fn mini_pack(workspace: &Workspace) -> Result<()> {
    let pack = workspace.root.join(MINI_PACK);
    let manifest = workspace.root.join(MODEL).join("emu.json");
    let made_from = pack.with_file_name(".made-from");
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("{} cannot be read", manifest.display()))?;
    let as_before = fs::read_to_string(&made_from).is_ok_and(|made| made == text);
    if as_before && pack.join("emu.json").is_file() {
        return Ok(());
    }
    if pack.exists() {
        fs::remove_dir_all(&pack).with_context(|| format!("{} is in the way", pack.display()))?;
    }
    let order = json!({"pack": MODEL, "out": MINI_PACK, "policy": MINI_POLICY});
    model::repack(workspace, &order).with_context(|| format!("{MINI_PACK} cannot be written"))?;
    for file in ["README.md", "ATTRIBUTION.md"] {
        let from = workspace.root.join(MODEL).join(file);
        fs::copy(&from, pack.join(file))
            .with_context(|| format!("{} cannot be copied", from.display()))?;
    }
    fs::write(&made_from, text).context("the pack's folder cannot be written")
}

/// Builds the pack of the package `emu-webgpu-smol`, whose language model is fetched.
fn smol_pack(workspace: &Workspace) -> Result<()> {
    let [smol] = &MODELS;
    let pack = workspace.root.join(SMOL_PACK);
    let whole = workspace.root.join(smol.pack);
    let manifest = fs::read_to_string(whole.join("emu.json")).ok();
    let made = fs::read_to_string(pack.join("emu.json")).ok();
    if manifest.is_some() && made == manifest {
        return Ok(());
    }
    if pack.exists() {
        fs::remove_dir_all(&pack).with_context(|| format!("{} is in the way", pack.display()))?;
    }
    model::complete(workspace, smol)?;
    // Copies to a temporary folder and renames it last, so that an interrupted copy leaves no partial pack.
    let filling = pack.with_extension("part");
    let _ = fs::remove_dir_all(&filling);
    // Copies only the files in the manifest, because the folder may contain shards of an earlier version.
    for file in files_of(&whole)? {
        copy(&whole.join(&file), &filling.join(&file))?;
    }
    fs::rename(&filling, &pack).with_context(|| format!("{} cannot be made", pack.display()))
}

/// File names of a pack.
fn files_of(pack: &Path) -> Result<Vec<String>> {
    let path = pack.join("emu.json");
    let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let listed = ["shards", "files"]
        .into_iter()
        .filter_map(|key| manifest[key].as_array());
    let names = listed.flatten().filter_map(|entry| entry["file"].as_str());
    Ok(names.chain(["emu.json"]).map(str::to_owned).collect())
}

/// Assembles the page in `site` for a static server.
pub fn assemble(workspace: &Workspace, site: &Path) -> Result<()> {
    let root = workspace.root.join("web");
    if site.exists() {
        fs::remove_dir_all(site).with_context(|| format!("{} is in the way", site.display()))?;
    }
    for (from, to) in [
        (PAGE, "index.html"),
        ("demo/style.css", "style.css"),
        ("demo/_headers", "_headers"),
        ("demo/dist", "dist"),
        ("demo/examples", "examples"),
        ("package/dist", "emu-webgpu/dist"),
        ("package/wasm/cpu", "emu-webgpu/wasm/cpu"),
        (WEBGPU.0, WEBGPU.1),
        ("mini/index.js", "emu-webgpu-mini/index.js"),
        ("mini/package.json", "emu-webgpu-mini/package.json"),
        ("mini/pack", "emu-webgpu-mini/pack"),
        ("smol/index.js", "emu-webgpu-smol/index.js"),
        ("smol/package.json", "emu-webgpu-smol/package.json"),
        (SMOL.0, SMOL.1),
    ] {
        let from = root.join(from);
        if from.exists() || ![WEBGPU.1, SMOL.1].contains(&to) {
            copy(&from, &site.join(to))?;
        }
    }
    if root.join(SMOL.0).exists() {
        return Ok(());
    }
    mark(site, WITHOUT_SMOL)
}

/// The page, relative to `web`.
const PAGE: &str = "demo/index.html";
/// The WebGPU module, relative to `web` and to a site.
const WEBGPU: (&str, &str) = ("package/wasm/webgpu", "emu-webgpu/wasm/webgpu");

/// The pack of emu-smol, relative to `web` and to a site.
const SMOL: (&str, &str) = ("smol/pack", "emu-webgpu-smol/pack");

/// Attribute that tells the page that emu-smol is missing.
const WITHOUT_SMOL: &str = "data-models=\"mini\"";

/// Whether the WebGPU module has been built.
pub fn has_webgpu(workspace: &Workspace) -> bool {
    workspace.root.join("web").join(WEBGPU.0).is_dir()
}

/// Marks the page of a site so that it runs without the WebGPU module, which is still being built.
pub fn without_webgpu(site: &Path) -> Result<()> {
    mark(site, "data-webgpu=\"pending\"")
}

/// Adds an attribute to the page of a site.
fn mark(site: &Path, attribute: &str) -> Result<()> {
    let page = site.join("index.html");
    let html =
        fs::read_to_string(&page).with_context(|| format!("{} cannot be read", page.display()))?;
    let marked = html.replacen("<html ", &format!("<html {attribute} "), 1);
    if marked == html {
        bail!("{} has no <html> with a language", page.display());
    }
    fs::write(&page, marked).with_context(|| format!("{} cannot be written", page.display()))
}

/// Adds the WebGPU module to a site that was assembled without it.
pub fn add_webgpu(workspace: &Workspace, site: &Path) -> Result<()> {
    let root = workspace.root.join("web");
    copy(&root.join(WEBGPU.0), &site.join(WEBGPU.1))?;
    copy(&root.join(PAGE), &site.join("index.html"))?;
    match site.join(SMOL.1).exists() {
        true => Ok(()),
        false => mark(site, WITHOUT_SMOL),
    }
}

/// Copies a file or a folder, without files whose name starts with a dot.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let cannot = || format!("{} cannot be copied to {}", from.display(), to.display());
    if !from.is_dir() {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).with_context(cannot)?;
        }
        // Weights are hard-linked: their files are replaced as a whole and never modified.
        let weights = from.extension().is_some_and(|e| e == "safetensors");
        if !weights || fs::hard_link(from, to).is_err() {
            fs::copy(from, to).with_context(cannot)?;
        }
        return Ok(());
    }
    for entry in fs::read_dir(from).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with('.') {
            copy(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}

/// A static file server, stopped on drop.
pub struct Server(Child);

impl Server {
    /// Starts a server, which prints its address.
    pub fn start(workspace: &Workspace, site: &Path, port: u16) -> Result<Self> {
        let script: PathBuf = ["web", "server", "serve.mjs"].iter().collect();
        let mut node = command::new("node", &workspace.root);
        node.arg(script).arg(site);
        let child = node.args(["--port", &port.to_string()]).spawn();
        Ok(Self(child.context("node cannot be started")?))
    }

    /// Waits until the server exits. Returns whether it succeeded.
    pub fn wait(mut self) -> Result<bool> {
        let status = self.0.wait().context("the server is lost")?;
        Ok(status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already exited if `wait` was called.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_webgpu_says_so_until_it_is_there() {
        let place = tempfile::tempdir().expect("a folder");
        let page = place.path().join("index.html");
        fs::write(&page, "<!doctype html>\n<html lang=\"en\">").expect("written");
        without_webgpu(place.path()).expect("marked");
        let marked = fs::read_to_string(&page).expect("there");
        assert!(marked.contains("<html data-webgpu=\"pending\" lang=\"en\">"));
        fs::write(&page, "<!doctype html>").expect("written");
        assert!(without_webgpu(place.path()).is_err());
    }

    #[test]
    fn only_what_a_pack_lists_belongs_to_it() {
        let place = tempfile::tempdir().expect("a folder");
        let manifest =
            r#"{"shards": [{"file": "lm.safetensors"}], "files": [{"file": "card.md"}]}"#;
        assert!(files_of(place.path()).is_err());
        fs::write(place.path().join("emu.json"), manifest).expect("written");
        fs::write(place.path().join("old.safetensors"), "").expect("written");
        let files = files_of(place.path()).expect("a list");
        assert_eq!(files, ["lm.safetensors", "card.md", "emu.json"]);
    }

    #[test]
    fn folders_are_copied_without_hidden_files() {
        let place = tempfile::tempdir().expect("a folder");
        let from = place.path().join("from/deep");
        fs::create_dir_all(&from).expect("made");
        fs::write(from.join("a.js"), "1").expect("written");
        fs::write(from.join(".made-from"), "2").expect("written");
        let to = place.path().join("to");
        copy(&place.path().join("from"), &to).expect("copied");
        assert_eq!(
            fs::read_to_string(to.join("deep/a.js")).expect("there"),
            "1"
        );
        assert!(!to.join("deep/.made-from").exists());
        assert!(copy(&place.path().join("absent"), &to).is_err());
    }
}
