//! `cargo xtask release`: everything that a release is, in `release-files` of Cargo's target directory. Publishes nothing: the
//! workflow `release.yml` does, from these files.
//!
//! What depends on the commit alone is reproducible: time and version come from it.

mod archive;
mod graph;
mod notes;
mod notices;
mod part;
mod sbom;
mod tarballs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::check::one_version;
use crate::command;
use crate::docs;
use crate::setup::{self, Requirement};
use crate::wasm::WasmArgs;
use crate::web;
use crate::workspace::Workspace;

pub use part::Part;

/// Output folder, in Cargo's target directory.
const FILES: &str = "release-files";
/// Folder of what the files are packed from, in Cargo's target directory.
const STAGE: &str = "release-stage";
/// Files beside the program in its archive. emu-mini is inside the program, and its drawings want to be attributed.
const BESIDE: [(&str, &str); 5] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("models/emu-mini/ATTRIBUTION.md", "ATTRIBUTION-emu-mini.md"),
];
/// Name of the libraries' licence texts.
const NOTICES: &str = "THIRD-PARTY-LICENSES.txt";

/// Arguments of `cargo xtask release`.
pub struct ReleaseArgs {
    /// Any commit will do, with any changelog that says something.
    pub dry_run: bool,
    /// The parts to make.
    pub parts: Vec<Part>,
    /// Keep the files of other parts.
    pub keep: bool,
    /// Targets of `emu`; this machine's if empty.
    pub targets: Vec<String>,
}

/// What is released, and where its files go.
struct Release<'a> {
    workspace: &'a Workspace,
    args: &'a ReleaseArgs,
    version: String,
    files: PathBuf,
    stage: PathBuf,
    /// Address of the repository in a workflow of GitHub, which is where the checkout knows it from.
    repository: Option<String>,
}

/// Makes the parts. `false` if a package is incomplete, which only a dry run allows.
pub fn run(workspace: &Workspace, args: &ReleaseArgs) -> Result<bool> {
    let version = workspace.version()?;
    check_state(workspace, &version, args.dry_run)?;
    let target = command::target(workspace);
    let release = Release {
        workspace,
        args,
        version,
        files: target.join(FILES),
        stage: target.join(STAGE),
        repository: repository(),
    };
    setup::require(workspace, &requirements(&args.parts))?;
    let replaced = if args.keep {
        vec![&release.stage]
    } else {
        vec![&release.files, &release.stage]
    };
    for folder in replaced.into_iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder)
            .with_context(|| format!("{} is in the way", folder.display()))?;
    }
    for folder in [&release.files, &release.stage] {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    archive::forget_sums(&release.files)?;
    let mut gaps = Vec::new();
    for part in &args.parts {
        println!("\n== {}", part.argument());
        gaps.extend(release.make(*part)?);
    }
    println!("\nemu {} in {}:", release.version, release.files.display());
    for (name, bytes) in archive::listing(&release.files)? {
        println!("  {name:<52}{:>12}", archive::size(bytes));
    }
    for gap in &gaps {
        println!("not to be published: {gap}");
    }
    Ok(gaps.is_empty() || args.dry_run)
}

/// What the parts need on this machine.
fn requirements(parts: &[Part]) -> Vec<Requirement> {
    let mut needs = Vec::new();
    if parts.contains(&Part::Binaries) {
        needs.push(Requirement::CppCompiler);
    }
    if parts.contains(&Part::Wasm) {
        needs.push(Requirement::WasmTarget);
    }
    let with_node = [Part::Wasm, Part::Npm, Part::Docs, Part::Checksums];
    if parts.iter().any(|part| with_node.contains(part)) {
        needs.push(Requirement::Node);
    }
    needs
}

/// Refuses a checkout that is not what the release says it is.
///
/// # Errors
/// If files differ from the commit, or files name several versions; and, unless it is a dry run, if the commit does not have
/// the version's tag.
fn check_state(workspace: &Workspace, version: &str, dry_run: bool) -> Result<()> {
    let git = |args: &[&str]| command::capture(command::new("git", &workspace.root).args(args));
    let changed = git(&["status", "--porcelain"])?;
    if !changed.is_empty() {
        bail!(
            "these files differ from the commit; commit or remove them:\n{}",
            changed.trim_end()
        );
    }
    let findings = one_version(&workspace.tree()?);
    if !findings.is_empty() {
        let list: Vec<String> = findings.iter().map(ToString::to_string).collect();
        bail!(
            "a release has one version; mend these files:\n{}",
            list.join("\n")
        );
    }
    let tag = format!("v{version}");
    let tags = git(&["tag", "--points-at", "HEAD"])?;
    if !dry_run && !tags.lines().any(|known| known == tag) {
        bail!("the commit has no tag {tag}; set it, or use --dry-run");
    }
    Ok(())
}

/// Address of the repository, from the variables of GitHub's runners.
fn repository() -> Option<String> {
    let server = std::env::var("GITHUB_SERVER_URL").ok()?;
    let name = std::env::var("GITHUB_REPOSITORY").ok()?;
    Some(format!("{server}/{name}"))
}

impl Release<'_> {
    /// Makes a part. Returns a sentence for each thing that it lacks.
    fn make(&self, part: Part) -> Result<Vec<String>> {
        match part {
            Part::Binaries => self.binaries()?,
            Part::Wasm => {
                if !web::build(self.workspace, &WasmArgs::default())? {
                    bail!("a module is over its budget; the line above says by how much");
                }
            }
            Part::Npm => {
                web::compile(self.workspace, &[tarballs::PACKAGES[0].1])?;
                let repository = self.repository.as_deref();
                return tarballs::pack(self.workspace, &self.stage, &self.files, repository);
            }
            Part::Docs => {
                let name = format!("emu-docs-{}", self.version);
                if !docs::build(self.workspace, &self.stage.join(&name))? {
                    bail!("the documentation has dead links; they are listed above");
                }
                archive::pack(&self.stage, &name, &self.files)?;
            }
            Part::Sbom => self.bill()?,
            Part::Notes => self.notes()?,
            Part::Checksums => archive::sums(&self.files)?,
        }
        Ok(Vec::new())
    }

    /// Builds `emu` for each target and packs it with its licences.
    fn binaries(&self) -> Result<()> {
        let host = host(self.workspace)?;
        let notices = notices::notices(&graph::crates(self.workspace)?)?;
        let targets = match self.args.targets.as_slice() {
            [] => std::slice::from_ref(&host),
            targets => targets,
        };
        for target in targets {
            let program = self.program(target)?;
            if *target == host {
                self.try_out(&program)?;
            }
            let name = format!("emu-{}-{target}", self.version);
            let folder = self.stage.join(&name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("{} cannot be made", folder.display()))?;
            let file = program.file_name().context("the program has no name")?;
            copy(&program, &folder.join(file))?;
            for (from, to) in BESIDE {
                copy(&self.workspace.root.join(from), &folder.join(to))?;
            }
            write(&folder.join(NOTICES), &notices)?;
            archive::pack(&self.stage, &name, &self.files)?;
        }
        Ok(())
    }

    /// Builds `emu` for a target. Returns its path.
    fn program(&self, target: &str) -> Result<PathBuf> {
        let mut build = command::cargo(self.workspace);
        build.args(["build", "--release", "--locked", "--package", "emu-cli"]);
        if !command::succeeds(build.args(["--bin", "emu", "--target", target]))? {
            bail!("emu did not build for {target}; the compiler's message is above");
        }
        let end = if target.contains("windows") {
            ".exe"
        } else {
            ""
        };
        let folder = command::target(self.workspace).join(target);
        Ok(folder.join("release").join(format!("emu{end}")))
    }

    /// Runs the program once.
    fn try_out(&self, program: &Path) -> Result<()> {
        let mut emu = command::new(program, &self.workspace.root);
        let told = command::capture(emu.arg("--version"))?;
        if told.trim() != format!("emu {}", self.version) {
            bail!(
                "the program says {:?}, the release is {}; build it again",
                told.trim(),
                self.version
            );
        }
        Ok(())
    }

    /// Writes the bill of materials and the licence texts.
    fn bill(&self) -> Result<()> {
        let read = |path: &str| {
            fs::read_to_string(self.workspace.root.join(path))
                .with_context(|| format!("{path} cannot be read"))
        };
        let mut git = command::new("git", &self.workspace.root);
        let time = command::capture(git.args(["log", "-1", "--format=%cI"]))?;
        let crates = graph::crates(self.workspace)?;
        let bill = sbom::bill(&sbom::Sources {
            version: &self.version,
            time: time.trim(),
            crates: &crates,
            cargo_lock: &read("Cargo.lock")?,
            npm_lock: &read("web/package/package-lock.json")?,
            packages: &tarballs::PACKAGES.map(|(name, ..)| name),
        })?;
        write(
            &self.files.join(format!("emu-{}.cdx.json", self.version)),
            &bill,
        )?;
        write(&self.files.join(NOTICES), &notices::notices(&crates)?)
    }

    /// Writes the text of the release.
    fn notes(&self) -> Result<()> {
        let changelog = fs::read_to_string(self.workspace.root.join("CHANGELOG.md"))
            .context("CHANGELOG.md cannot be read")?;
        let mut text = notes::section(&changelog, &self.version, self.args.dry_run)?;
        if let Some(repository) = &self.repository {
            let base = format!("{repository}/blob/v{}/", self.version);
            text = notes::with_addresses(&text, &base);
        }
        write(
            &self.files.join(format!("CHANGELOG-{}.md", self.version)),
            &text,
        )
    }
}

/// The target that Rust compiles for on this machine.
fn host(workspace: &Workspace) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let about = command::capture(command::new(rustc, &workspace.root).arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("rustc -vV names no host; is it Rust's compiler?")?
        .to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("{} cannot be copied to {}", from.display(), to.display()))?;
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout of its own with the files that have the version.
    fn checkout() -> (tempfile::TempDir, Workspace) {
        let here = Workspace::find().expect("a checkout");
        let place = tempfile::tempdir().expect("a folder");
        let tree = here.tree().expect("its files");
        let versioned = |path: &str| {
            ["Cargo.toml", "CHANGELOG.md", "web/package/src/version.ts"].contains(&path)
                || (path.starts_with("web/") && path.ends_with(".json"))
                || path.ends_with("/index.js")
        };
        for file in tree.files.iter().filter(|file| versioned(&file.path)) {
            let to = place.path().join(&file.path);
            fs::create_dir_all(to.parent().expect("a folder")).expect("made");
            copy(&here.root.join(&file.path), &to).expect("copied");
        }
        let root = place.path().to_path_buf();
        let workspace = Workspace { root };
        git(&workspace, &["init", "--quiet"]);
        commit(&workspace);
        (place, workspace)
    }

    fn git(workspace: &Workspace, args: &[&str]) {
        let mut git = command::new("git", &workspace.root);
        git.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        git.args(["-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]);
        assert!(command::succeeds(git.args(args)).expect("git"), "{args:?}");
    }

    fn commit(workspace: &Workspace) {
        git(workspace, &["add", "--all"]);
        git(workspace, &["commit", "--quiet", "--message", "a"]);
    }

    fn refused(workspace: &Workspace, version: &str, dry_run: bool) -> String {
        match check_state(workspace, version, dry_run) {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn only_a_clean_and_tagged_commit_of_one_version_is_released() {
        let (place, workspace) = checkout();
        let version = workspace.version().expect("a version");
        assert_eq!(refused(&workspace, &version, true), "");
        assert!(refused(&workspace, &version, false).contains(&format!("no tag v{version}")));
        git(&workspace, &["tag", &format!("v{version}")]);
        assert_eq!(refused(&workspace, &version, false), "");

        fs::write(place.path().join("new.txt"), "x").expect("written");
        assert!(refused(&workspace, &version, true).contains("new.txt"));
        fs::remove_file(place.path().join("new.txt")).expect("removed");

        let file = place.path().join("web/mini/package.json");
        let text = fs::read_to_string(&file).expect("there");
        fs::write(&file, text.replacen(&version, "9.9.9", 1)).expect("written");
        assert!(refused(&workspace, &version, true).contains("differ from the commit"));
        commit(&workspace);
        let told = refused(&workspace, &version, true);
        assert!(
            told.contains("web/mini/package.json") && told.contains("9.9.9"),
            "{told}"
        );
    }

    #[test]
    fn a_part_asks_for_what_it_needs_and_no_more() {
        assert_eq!(requirements(&[Part::Notes, Part::Sbom]), []);
        assert_eq!(requirements(&[Part::Binaries]), [Requirement::CppCompiler]);
        assert_eq!(
            requirements(&[Part::Wasm]),
            [Requirement::WasmTarget, Requirement::Node]
        );
        assert_eq!(
            requirements(&[Part::Docs, Part::Checksums]),
            [Requirement::Node]
        );
    }

    #[test]
    fn the_files_beside_the_program_exist() {
        let workspace = Workspace::find().expect("a checkout");
        for (file, _) in BESIDE {
            assert!(workspace.root.join(file).is_file(), "{file}");
        }
    }

    #[test]
    fn the_host_is_a_target() {
        let workspace = Workspace::find().expect("a checkout");
        assert!(host(&workspace).expect("a target").split('-').count() >= 3);
    }
}
