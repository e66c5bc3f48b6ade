//! Requirements of the tasks beyond Rust. Looks for them, installs them where no question is needed, else prints how to.
//!
//! Every task that builds or tests something states its requirements here ([`require`], [`prepare`]), so that the first
//! command on a fresh machine sets it up.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command;
use crate::workspace::Workspace;

/// The compiler target for WASM modules.
const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// Minimum Node version of the packages' tools.
const OLDEST_NODE: u32 = 20;

/// A requirement of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A C++ compiler, for the H.264 decoder of the `emu` program.
    CppCompiler,
    /// Node and npm, for the packages and the page.
    Node,
    /// The standard library of `wasm32-unknown-unknown`.
    WasmTarget,
}

/// Makes sure that all `requirements` are met. Installs what may be installed without a question.
///
/// # Errors
/// One sentence for each missing requirement, with the command that installs it.
pub fn require(workspace: &Workspace, requirements: &[Requirement]) -> Result<()> {
    let missing: Vec<String> = { requirements.iter() }
        .filter_map(|requirement| match requirement {
            Requirement::CppCompiler => provide(workspace, &CPP_COMPILER, true).err(),
            Requirement::Node => node(workspace).err(),
            Requirement::WasmTarget => wasm_target(workspace, true).err(),
        })
        .collect();
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    Ok(())
}

/// What this machine lacks. Each field is the reason for skipping the tests that need it.
#[derive(Debug, Default)]
pub struct Machine {
    /// No adapter for wgpu, not even a software adapter.
    pub no_gpu: Option<String>,
    /// No Chromium.
    pub no_chromium: Option<String>,
    /// No Firefox.
    pub no_firefox: Option<String>,
    /// No Node.
    pub no_node: Option<String>,
    /// No WASM target of the compiler.
    pub no_wasm: Option<String>,
    /// No rustfmt in the toolchain.
    pub no_rustfmt: Option<String>,
    /// No clippy in the toolchain.
    pub no_clippy: Option<String>,
}

impl Machine {
    /// Why the WASM modules and the page cannot be built here.
    pub fn no_pages(&self) -> Option<&str> {
        self.no_node.as_deref().or(self.no_wasm.as_deref())
    }
}

/// A requirement that a system package provides.
struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    find: fn() -> Option<String>,
}

const CPP_COMPILER: Need = Need {
    what: "C++ compiler (for the H.264 decoder)",
    packages: &["g++"],
    find: cpp_compiler,
};
const VULKAN: Need = Need {
    what: "Vulkan driver (a software one is enough)",
    packages: &["mesa-vulkan-drivers", "libvulkan1"],
    find: vulkan_driver,
};

const CHROMIUM: Need = Need {
    what: "Chromium",
    packages: &["chromium"],
    find: chromium,
};
const FIREFOX: Need = Need {
    what: "Firefox",
    packages: &["firefox-esr"],
    find: firefox,
};

/// Checks all requirements, installs what may be installed, and prints each step.
pub fn prepare(workspace: &Workspace, may_install: bool) -> Result<Machine> {
    let mut machine = Machine::default();
    if let Err(reason) = provide(workspace, &CPP_COMPILER, may_install) {
        bail!("nothing can be built without a C++ compiler ({reason})");
    }
    machine.no_gpu = provide(workspace, &VULKAN, may_install).err();
    machine.no_rustfmt = component(workspace, "rustfmt", &["fmt", "--version"], may_install).err();
    machine.no_clippy = component(workspace, "clippy", &["clippy", "--version"], may_install)
        .and_then(|()| match command::find("clippy-driver") {
            Some(_) => Ok(()),
            None => Err("clippy-driver is not on the search path".into()),
        })
        .err();
    machine.no_node = node(workspace).err();
    machine.no_wasm = wasm_target(workspace, may_install).err();
    machine.no_chromium = provide(workspace, &CHROMIUM, may_install).err();
    machine.no_firefox = provide(workspace, &FIREFOX, may_install).err();
    Ok(machine)
}

/// Makes sure that one requirement is met. On failure, returns the reason for skipping.
fn provide(workspace: &Workspace, need: &Need, may_install: bool) -> Result<(), String> {
    if let Some(place) = (need.find)() {
        println!("{}: {place}", need.what);
        return Ok(());
    }
    let by_hand = format!("sudo apt-get install --yes {}", need.packages.join(" "));
    let reason = format!("no {}; to have it: {by_hand}", need.what);
    if !may_install {
        println!("{reason}");
        return Err(reason);
    }
    let Some(prefix) = installer(workspace) else {
        println!("{reason}");
        return Err(reason);
    };
    println!(
        "{}: not here; installing {}",
        need.what,
        need.packages.join(" ")
    );
    let apt = |arguments: &[&str]| {
        let mut words = prefix
            .iter()
            .copied()
            .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .chain(arguments.iter().copied());
        let program = words.next().unwrap_or("apt-get");
        let mut install = command::new(program, &workspace.root);
        install.args(words);
        println!("$ {}", command::line(&install));
        command::succeeds(&mut install).unwrap_or(false)
    };
    let install: Vec<&str> = ["install", "--yes", "-qq", "--no-install-recommends"]
        .into_iter()
        .chain(need.packages.iter().copied())
        .collect();
    // A fresh machine has no package lists yet, and an old one has stale lists.
    let installed = (apt(&["update", "-qq"]) && apt(&install)) || apt(&install);
    match (need.find)() {
        Some(place) if installed => {
            println!("{}: {place}", need.what);
            Ok(())
        }
        _ => {
            println!("{reason}");
            Err(reason)
        }
    }
}

/// Command prefix for `apt-get` with root rights and without a prompt, on Debian and Ubuntu.
fn installer(workspace: &Workspace) -> Option<&'static [&'static str]> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !is_debian(&release) || command::find("apt-get").is_none() {
        return None;
    }
    let user = command::capture(command::new("id", &workspace.root).arg("-u")).unwrap_or_default();
    if user.trim() == "0" {
        return Some(&[]);
    }
    let sudo =
        command::quietly_succeeds(command::new("sudo", &workspace.root).args(["-n", "true"]));
    sudo.then_some(&["sudo", "-n"])
}

/// Whether `/etc/os-release` describes Debian, Ubuntu or a derivative.
fn is_debian(release: &str) -> bool {
    release
        .lines()
        .filter_map(|line| {
            line.strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="))
        })
        .flat_map(|value| value.trim_matches('"').split_whitespace())
        .any(|name| matches!(name, "debian" | "ubuntu"))
}

fn cpp_compiler() -> Option<String> {
    let chosen = std::env::var("CXX").ok().filter(|name| !name.is_empty());
    let windows = cfg!(windows).then(|| "left to the build".to_owned());
    chosen
        .or_else(|| {
            ["c++", "g++", "clang++"]
                .into_iter()
                .find_map(command::find)
                .map(|file| file.display().to_string())
        })
        .or(windows)
}

/// A Vulkan loader and a driver manifest. Metal and Direct3D are part of the system.
fn vulkan_driver() -> Option<String> {
    if cfg!(any(target_os = "macos", windows)) {
        return Some("the system's own graphics interface".to_owned());
    }
    let loader = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib"]
        .into_iter()
        .any(|folder| has_loader(Path::new(folder)));
    let driver = driver_manifests().into_iter().next()?;
    loader.then(|| driver.display().to_string())
}

/// Whether `libvulkan.so.1` is in a library folder or one of its per-architecture subfolders.
fn has_loader(folder: &Path) -> bool {
    if folder.join("libvulkan.so.1").exists() {
        return true;
    }
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy().contains("-linux-")
            && entry.path().join("libvulkan.so.1").exists()
    })
}

/// Driver manifests in the places where the Vulkan loader looks.
fn driver_manifests() -> Vec<PathBuf> {
    let named = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .into_iter()
        .filter_map(std::env::var_os);
    let mut manifests: Vec<PathBuf> = named
        .flat_map(|value| std::env::split_paths(&value).collect::<Vec<_>>())
        .filter(|file| file.is_file())
        .collect();
    let shares =
        std::env::var_os("XDG_DATA_DIRS").unwrap_or_else(|| "/usr/local/share:/usr/share".into());
    let folders = std::env::split_paths(&shares).chain([
        PathBuf::from("/etc"),
        PathBuf::from("/usr/share"),
        PathBuf::from("/usr/local/etc"),
    ]);
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder.join("vulkan/icd.d")) else {
            continue;
        };
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| file.extension().is_some_and(|end| end == "json"))
            .collect();
        // The software driver comes first, because the tests are written for it.
        files.sort_by_key(|file| (!file.to_string_lossy().contains("lvp"), file.clone()));
        manifests.extend(files);
    }
    manifests
}

/// Makes sure that the Rust toolchain has a component that a minimal installation lacks.
fn component(
    workspace: &Workspace,
    name: &str,
    probe: &[&str],
    may_install: bool,
) -> Result<(), String> {
    let works = || command::quietly_succeeds(command::cargo(workspace).args(probe));
    if works() {
        println!("{name}: in the toolchain");
        return Ok(());
    }
    let by_hand = format!("rustup component add {name}");
    if may_install && command::find("rustup").is_some() {
        println!("$ {by_hand}");
        let added = command::succeeds(command::new("rustup", &workspace.root).args([
            "component",
            "add",
            name,
        ]))
        .unwrap_or(false);
        if added && works() {
            return Ok(());
        }
    }
    let reason = format!("the toolchain has no {name}; to have it: {by_hand}");
    println!("{reason}");
    Err(reason)
}

/// The browser for the end-to-end tests, under the names it has on Debian and other systems.
fn chromium() -> Option<String> {
    let named = ["chromium", "chromium-browser", "google-chrome"];
    named.into_iter().find_map(found)
}

fn firefox() -> Option<String> {
    ["firefox-esr", "firefox"].into_iter().find_map(found)
}

fn found(program: &str) -> Option<String> {
    Some(command::find(program)?.display().to_string())
}

/// Environment variables with the browsers' programs, for the tests.
pub fn browsers() -> [(&'static str, Option<String>); 2] {
    [("EMU_CHROMIUM", chromium()), ("EMU_FIREFOX", firefox())]
}

/// Makes sure of Node in a sufficient version, with npm.
fn node(workspace: &Workspace) -> Result<(), String> {
    let version = command::capture(command::new("node", &workspace.root).arg("--version")).ok();
    let found = version.as_deref().map(str::trim);
    let reason = match found.and_then(major_version) {
        Some(major) if major >= OLDEST_NODE && command::find("npm").is_some() => {
            println!("Node: {}", found.unwrap_or_default());
            return Ok(());
        }
        Some(major) if major >= OLDEST_NODE => {
            "Node is here without npm; to have it: install npm as your system packages it"
                .to_owned()
        }
        Some(_) => format!(
            "Node {} is too old; to have it: install Node {OLDEST_NODE} or later",
            found.unwrap_or_default()
        ),
        None => format!("no Node; to have it: install Node {OLDEST_NODE} or later"),
    };
    println!("{reason}");
    Err(reason)
}

/// `20` of `v20.20.2`.
fn major_version(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// The standard library of the WASM target. Looked for in the compiler's folder, so that a toolchain without rustup counts
/// too. Installed with rustup, if there is one.
fn wasm_target(workspace: &Workspace, may_install: bool) -> Result<(), String> {
    if has_wasm_target(workspace) {
        println!("WASM: {WASM_TARGET} is installed");
        return Ok(());
    }
    let rustup = command::find("rustup").is_some();
    if may_install && rustup {
        println!("$ rustup target add {WASM_TARGET}");
        let mut add = command::new("rustup", &workspace.root);
        // The check below decides, whatever the exit status is.
        let _ = command::succeeds(add.args(["target", "add", WASM_TARGET]));
        if has_wasm_target(workspace) {
            return Ok(());
        }
    }
    let reason = if rustup && may_install {
        format!(
            "no {WASM_TARGET}, and rustup could not add it; to have it, with a network: rustup target add {WASM_TARGET}"
        )
    } else if rustup {
        format!("no {WASM_TARGET}; to have it: rustup target add {WASM_TARGET}")
    } else {
        format!(
            "no {WASM_TARGET}, and no rustup to add it; to have it: install Rust by rustup (rustup.rs), or your \
             system's package of that target (Debian: sudo apt-get install --yes libstd-rust-dev-wasm32)"
        )
    };
    println!("{reason}");
    Err(reason)
}

fn has_wasm_target(workspace: &Workspace) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut ask = command::new(rustc, &workspace.root);
    let folder = command::capture(ask.args(["--print", "target-libdir", "--target", WASM_TARGET]));
    folder.is_ok_and(|folder| has_core(Path::new(folder.trim())))
}

/// Whether a target's folder contains the `core` library.
fn has_core(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_children_are_known() {
        assert!(is_debian(
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"
        ));
        assert!(is_debian("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_debian("ID=fedora\n"));
        assert!(!is_debian(""));
    }

    #[test]
    fn a_loader_is_found_in_the_folder_of_a_machine_type() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!has_loader(folder.path()));
        let inner = folder.path().join("x86_64-linux-gnu");
        std::fs::create_dir(&inner).expect("a folder");
        std::fs::write(inner.join("libvulkan.so.1"), "").expect("a file");
        assert!(has_loader(folder.path()));
    }

    #[test]
    fn the_major_version_of_node_is_read() {
        assert_eq!(major_version("v20.20.2"), Some(20));
        assert_eq!(major_version("v8.1"), Some(8));
        assert_eq!(major_version("20"), None);
        assert_eq!(major_version("vx.1"), None);
    }

    #[test]
    fn a_target_counts_as_installed_by_its_core() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!has_core(folder.path()));
        assert!(!has_core(&folder.path().join("absent")));
        std::fs::write(folder.path().join("libcore-0123.rlib"), "").expect("a file");
        assert!(has_core(folder.path()));
    }

    #[test]
    fn what_is_missing_is_told_with_the_command_that_brings_it() {
        let workspace = Workspace {
            root: std::env::temp_dir(),
        };
        let need = Need {
            what: "thing",
            packages: &["a", "b"],
            find: || None,
        };
        let reason = provide(&workspace, &need, false).expect_err("it is missing");
        assert!(
            reason.ends_with("sudo apt-get install --yes a b"),
            "{reason}"
        );
    }
}
