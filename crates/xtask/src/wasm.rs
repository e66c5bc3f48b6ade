//! `cargo xtask wasm`: the two WASM modules of the npm package, one for WebGPU, one for the CPU.
//!
//! Steps: compile, remove dead functions, generate the JavaScript bindings (wasm-bindgen, version of Cargo.lock), optimise
//! (Binaryen's wasm-opt, version of web/package-lock.json), and compare the sizes with their budgets.
//!
//! These modules are published. A local page needs no small download: `--quick`, which `cargo xtask demo` uses, links
//! without link-time optimisation and only generates the bindings. Both modes share the compiled crates.

mod trim;

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::npm;
use crate::workspace::Workspace;

/// The modules. Each is a feature of emu-web.
const MODULES: [&str; 2] = ["cpu", "webgpu"];
const TARGET: &str = "wasm32-unknown-unknown";
/// Output folder in the package.
const FOLDER: &str = "web/package/wasm";
/// WebAssembly features that rustc and wasm-bindgen use. Every browser with WebGPU has them.
const FEATURES: [&str; 7] = [
    "bulk-memory",
    "bulk-memory-opt",
    "mutable-globals",
    "nontrapping-float-to-int",
    "reference-types",
    "sign-ext",
    "simd",
];
/// Crates compiled for speed in the CPU module and for size in the WebGPU module.
const COOL: [&str; 2] = ["emu-kernels", "tokenizers"];
/// Maximum bytes of a module, raw and compressed with brotli.
const BUDGET: Size = Size {
    raw: 12_000_000,
    brotli: 2_200_000,
};

/// Arguments of `cargo xtask wasm`.
#[derive(Debug, Default)]
pub struct WasmArgs {
    /// Build for a local page: larger and faster to build, not for publishing.
    pub quick: bool,
    /// Build only these modules; both if empty.
    pub only: Vec<String>,
    /// Output folder instead of the package's, for builds with the code that `tests/peers` measures.
    pub peers: Option<PathBuf>,
}

impl WasmArgs {
    /// Modules for a local page; both if `only` is empty.
    pub fn local(only: &[&str]) -> Self {
        Self {
            quick: true,
            only: only.iter().map(|module| (*module).to_owned()).collect(),
            peers: None,
        }
    }
}

/// Bytes of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    raw: u64,
    brotli: u64,
}

/// Builds the modules; `false` if one exceeds its budget.
pub fn run(workspace: &Workspace, args: &WasmArgs) -> Result<bool> {
    if !args.quick {
        let lock = workspace.root.join("Cargo.lock");
        let lock = fs::read_to_string(&lock)
            .with_context(|| format!("{} cannot be read", lock.display()))?;
        trim::check_versions(&lock)?;
        npm::install_tools(workspace)?;
    }
    let wanted = |module: &str| args.only.is_empty() || args.only.iter().any(|name| name == module);
    thread::scope(|scope| {
        let mut building = Some(scope.spawn(|| build_bindgen(workspace)));
        let mut tool = PathBuf::new();
        // One module is optimised on one processor while the next one is compiled.
        let mut finishing = Vec::new();
        for module in MODULES.into_iter().filter(|module| wanted(module)) {
            let compiled = compile(workspace, module, args)?;
            if let Some(building) = building.take() {
                tool = building
                    .join()
                    .unwrap_or_else(|panic| resume_unwind(panic))?;
            }
            if let Some(bound) = bound(workspace, module, &compiled, &tool, args)? {
                finishing.push(scope.spawn(move || finish(workspace, args, &bound)));
            }
        }
        let mut within = true;
        for module in finishing {
            within &= module.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(within)
    })
}

/// A module with JavaScript bindings, not yet optimised.
struct Bound {
    module: &'static str,
    folder: PathBuf,
    stamp: String,
}

/// File name of a module's stamp, which identifies its source.
const STAMP: &str = ".made-from";
/// Last word of the stamp of a module built for publishing.
const PUBLISHED: &str = "published";

/// Whether the package has both modules as built for publishing.
pub fn is_published(workspace: &Workspace) -> bool {
    MODULES.iter().all(|module| {
        let stamp = workspace.root.join(FOLDER).join(module).join(STAMP);
        fs::read_to_string(stamp).is_ok_and(|made| made.trim_end().ends_with(PUBLISHED))
    })
}

/// Generates the bindings of a compiled module; `None` if the output is up to date.
fn bound(
    workspace: &Workspace,
    module: &'static str,
    compiled: &Path,
    tool: &Path,
    args: &WasmArgs,
) -> Result<Option<Bound>> {
    let place = args.peers.clone();
    let folder = place.unwrap_or_else(|| workspace.root.join(FOLDER));
    let folder = folder.join(module);
    let stamp = stamp(compiled, args.quick)?;
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|made| made == stamp) {
        println!("{}: as before", folder.display());
        return Ok(None);
    }
    // Removes the stamp first, so that a failure below leaves no stamp next to files of another build.
    fs::remove_file(folder.join(STAMP)).ok();
    if args.quick {
        bind(workspace, tool, compiled, &folder)?;
    } else {
        bind(workspace, tool, &trimmed(module, compiled)?, &folder)?;
    }
    Ok(Some(Bound {
        module,
        folder,
        stamp,
    }))
}

/// Optimises a module unless it is a quick build, and prints its size; `false` if it exceeds its budget.
fn finish(workspace: &Workspace, args: &WasmArgs, bound: &Bound) -> Result<bool> {
    let (file, mut within) = (bound.folder.join("emu_web_bg.wasm"), true);
    if args.quick {
        println!("{}: {} bytes", bound.folder.display(), bytes(&file)?);
    } else {
        optimise(workspace, &file)?;
        let size = measure(workspace, &file)?;
        println!(
            "{}: {} bytes, {} under brotli",
            bound.folder.display(),
            size.raw,
            size.brotli
        );
        if args.peers.is_none() {
            within = fits(bound.module, size);
        }
    }
    let stamp = bound.folder.join(STAMP);
    fs::write(&stamp, &bound.stamp)
        .with_context(|| format!("{} cannot be written", stamp.display()))?;
    Ok(within)
}

fn fits(module: &str, size: Size) -> bool {
    let mut within = true;
    for (what, bytes, budget) in [
        ("bytes", size.raw, BUDGET.raw),
        ("bytes under brotli", size.brotli, BUDGET.brotli),
    ] {
        if bytes > budget {
            println!("FAILED: the {module} module has {bytes} {what}, the budget is {budget}");
            within = false;
        }
    }
    within
}

/// Compiles a module and returns Cargo's output file. The next module has the same file name and overwrites it.
fn compile(workspace: &Workspace, module: &str, args: &WasmArgs) -> Result<PathBuf> {
    let mut build = command::cargo(workspace);
    let features = if args.peers.is_some() {
        &[module, "peers"][..]
    } else {
        &[module]
    };
    build
        .args(["rustc", "--profile", "wasm", "--package", "emu-web"])
        .args(["--lib", "--crate-type", "cdylib"])
        .args(["--features", &features.join(","), "--target", TARGET])
        .args(["--config", &flags(workspace)]);
    if module == "webgpu" {
        // These crates do the CPU module's computation; on a GPU their speed does not matter.
        for package in COOL {
            let level = format!("profile.wasm.package.{package}.opt-level=\"z\"");
            build.args(["--config", &level]);
        }
    }
    if !args.quick {
        build.args(["--", "-C", "lto=fat"]);
    }
    if !command::succeeds(&mut build)? {
        bail!("the {module} module did not build; the compiler's message is above");
    }
    Ok(command::target(workspace)
        .join(TARGET)
        .join("wasm/emu_web.wasm"))
}

/// A Cargo setting with compiler flags. Compiled dependencies keep their bitcode for link-time optimisation, which Cargo would
/// omit. Path prefixes of this machine are removed from panic messages.
fn flags(workspace: &Workspace) -> String {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let registries = fs::read_dir(home.join("registry/src"));
    let registries = { registries.into_iter().flatten().flatten() }.map(|entry| entry.path());
    let flags: Vec<_> = [workspace.root.clone()]
        .into_iter()
        .chain(registries)
        .map(|place| format!("--remap-path-prefix={}=.", place.display()))
        .chain(["-Cembed-bitcode=yes".to_owned()])
        .collect();
    // Cargo appends this list to the configured one. JSON strings are valid TOML strings.
    format!("target.{TARGET}.rustflags={}", serde_json::json!(flags))
}

/// Removes dead functions from a compiled module. Returns the path of the result.
fn trimmed(module: &str, compiled: &Path) -> Result<PathBuf> {
    let bytes = fs::read(compiled)
        .with_context(|| format!("{} was not written by the build", compiled.display()))?;
    let (bytes, taken) = trim::trim(&bytes)?;
    // Only the WebGPU module contains a kernel compiler.
    if module == "webgpu" && taken == 0 {
        bail!(
            "the webgpu module has none of the functions that wasm/trim.rs takes out; their names have changed"
        );
    }
    let folder = compiled.with_file_name("trimmed");
    fs::create_dir_all(&folder)
        .with_context(|| format!("{} cannot be created", folder.display()))?;
    let file = folder.join("emu_web.wasm");
    fs::write(&file, bytes).with_context(|| format!("{} cannot be written", file.display()))?;
    Ok(file)
}

/// Identifies the source of an output, which is rebuilt only if the stamp changes.
fn stamp(compiled: &Path, quick: bool) -> Result<String> {
    let kind = if quick { "quick" } else { PUBLISHED };
    let about = fs::metadata(compiled)
        .with_context(|| format!("{} was not written by the build", compiled.display()))?;
    let changed = about.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    Ok(format!("{} {} {kind}\n", about.len(), changed.as_nanos()))
}

/// Builds the tool that generates the JavaScript bindings, and returns its path.
fn build_bindgen(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = command::cargo(workspace);
    build.args(["build", "--package", "xtask", "--features", "bindgen"]);
    build.args(["--bin", "bindgen"]);
    if !command::succeeds(&mut build)? {
        bail!("wasm-bindgen did not build; the compiler's message is above");
    }
    Ok(command::built(workspace, "bindgen"))
}

/// Generates the JavaScript bindings of a module.
fn bind(workspace: &Workspace, tool: &Path, compiled: &Path, folder: &Path) -> Result<()> {
    let mut bind = command::new(tool, &workspace.root);
    match command::succeeds(bind.arg(compiled).arg(folder))? {
        true => Ok(()),
        false => bail!("wasm-bindgen failed; its message is above"),
    }
}

fn optimise(workspace: &Workspace, file: &Path) -> Result<()> {
    let web = workspace.root.join("web");
    let tool = web.join("node_modules/binaryen/bin/wasm-opt");
    let smaller = file.with_extension("opt");
    let mut shrink = command::new("node", &web);
    shrink
        .arg(tool)
        .arg(file)
        .args(FEATURES.map(|feature| format!("--enable-{feature}")))
        .args(["-Os", "--strip-debug", "-o"])
        .arg(&smaller);
    if !command::succeeds(&mut shrink)? {
        bail!("wasm-opt failed; its message is above");
    }
    fs::rename(&smaller, file).with_context(|| format!("{} cannot be written", file.display()))
}

fn bytes(file: &Path) -> Result<u64> {
    let about = fs::metadata(file);
    Ok(about
        .with_context(|| format!("{} was not written by wasm-bindgen", file.display()))?
        .len())
}

/// Raw and compressed size. Node provides brotli.
fn measure(workspace: &Workspace, file: &Path) -> Result<Size> {
    let script = "const b = require('fs').readFileSync(process.argv[1]);\
        console.log(b.length, require('zlib').brotliCompressSync(b).length)";
    let mut node = command::new("node", &workspace.root);
    let text = command::capture(node.args(["-e", script]).arg(file))?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(raw)), Some(Ok(brotli))) => Ok(Size { raw, brotli }),
        _ => bail!("node printed no sizes but {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_held() {
        let ok = Size {
            raw: 11_999_999,
            brotli: 2_000_000,
        };
        assert!(fits("cpu", ok));
        assert!(!fits(
            "cpu",
            Size {
                raw: 12_000_001,
                ..ok
            }
        ));
        assert!(!fits(
            "cpu",
            Size {
                brotli: 2_200_001,
                ..ok
            }
        ));
    }
}
