//! Starting other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// A program to be started in `folder`, without a way to ask questions.
pub fn new(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// The Cargo that runs this program, in the root of the workspace.
pub fn cargo(workspace: &Workspace) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = new(program, &workspace.root);
    // Set for this program by the Cargo that started it; they would mislead the next one.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
    ] {
        command.env_remove(name);
    }
    command
}

/// Builds the `emu` program with the dependencies that the tests have, so that nothing is built twice, and finds it.
pub fn build_emu(workspace: &Workspace) -> Result<PathBuf> {
    if !succeeds(cargo(workspace).args(["build", "--workspace", "--bin", "emu"]))? {
        bail!("`emu` did not build; the compiler's message is above");
    }
    Ok(emu(workspace))
}

/// Where Cargo puts the `emu` program.
pub fn emu(workspace: &Workspace) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace
        .root
        .join(target)
        .join("debug")
        .join(format!("emu{}", std::env::consts::EXE_SUFFIX))
}

/// Runs to the end with its output passed through; whether it succeeded.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| cannot_start(command))?;
    Ok(status.success())
}

/// Runs to the end in silence; whether it started and succeeded.
pub fn quietly_succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs to the end and returns what it printed on stdout; an error when it fails.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!(
            "`{}` failed with {}; its own message is above",
            line(command),
            output.status
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", line(command)))
}

/// Runs to the end, handing over each line of stdout as it comes; stderr passes through.
pub fn lines(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = reader
                .read_until(b'\n', &mut bytes)
                .with_context(|| format!("the output of `{}` broke off", line(command)))?;
            if read == 0 {
                break;
            }
            each(String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']));
        }
    }
    child
        .wait()
        .with_context(|| format!("`{}` could not be waited for", line(command)))
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let quote = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '<', '>', '"', '\'', '$', '*']) {
            format!("'{}'", word.replace('\'', r"'\''"))
        } else {
            word.into_owned()
        }
    };
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quote)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where `program` stands on the search path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| [folder.join(program), folder.join(format!("{program}.exe"))])
        .find(|file| file.is_file())
}

fn cannot_start(command: &Command) -> String {
    format!(
        "`{}` cannot be started; is it installed and on the search path?",
        command.get_program().to_string_lossy()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = capture(&mut new("no-such-program-here", Path::new(".")))
            .expect_err("it does not exist");
        assert!(format!("{error:#}").contains("no-such-program-here"));
    }

    #[test]
    fn a_line_is_quoted_as_typed() {
        let mut command = Command::new("emu");
        command.args(["chat", "what is <image>?", ""]);
        assert_eq!(line(&command), "emu chat 'what is <image>?' ''");
    }
}
