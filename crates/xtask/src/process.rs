//! Runs other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A command in `folder` without stdin, so that it cannot ask questions.
pub fn new(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    // Without this variable, Mesa complains on stderr whenever a program looks for a GPU.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    command
}

/// Runs a command with its output passed through. Returns whether it succeeded.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| cannot_start(command))?;
    Ok(status.success())
}

/// [`succeeds`] with a text on stdin.
pub fn succeeds_given(command: &mut Command, text: &str) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that exits early reports the reason itself.
        let _ = stdin.write_all(text.as_bytes());
    }
    Ok(child
        .wait()
        .with_context(|| cannot_start(command))?
        .success())
}

/// Runs a command without output. Returns whether it started and succeeded.
pub fn quietly_succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command and returns its stdout. Fails if the command fails.
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

/// How a program ended.
pub enum Ended {
    /// It exited.
    With(ExitStatus),
    /// It printed nothing for longer than allowed and was killed.
    Silent,
}

/// Runs a command and passes each line of stdout to `each` as it comes; stderr passes through.
///
/// A program that prints nothing for `patience` is killed, so that one hanging test does not block all others.
pub fn lines(
    command: &mut Command,
    patience: Duration,
    mut each: impl FnMut(&str),
) -> Result<Ended> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while reader
                .read_until(b'\n', &mut bytes)
                .is_ok_and(|read| read > 0)
            {
                let line = String::from_utf8_lossy(&bytes)
                    .trim_end_matches(['\n', '\r'])
                    .to_owned();
                bytes.clear();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    loop {
        match receiver.recv_timeout(patience) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // The program may have exited in the meantime, so killing it may fail.
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Ended::Silent);
            }
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("`{}` could not be waited for", line(command)))?;
    Ok(Ended::With(status))
}

/// The command line as a user would type it.
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

/// Path of `program` on the search path.
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

/// The Cargo that runs this program, in another folder.
pub fn cargo_in(folder: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = new(program, folder);
    // The calling Cargo sets these for this program. They would mislead the new one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = capture(&mut new("no-such-program-here", Path::new(".")))
            .expect_err("it does not exist");
        assert!(format!("{error:#}").contains("no-such-program-here"));
    }

    #[cfg(unix)]
    #[test]
    fn a_silent_program_is_killed_and_a_talking_one_heard() {
        let shell = |script: &str| {
            let mut command = new("sh", Path::new("."));
            command.args(["-c", script]);
            command
        };
        let mut heard = Vec::new();
        let ended = lines(
            &mut shell("echo one; echo two; exit 3"),
            Duration::from_secs(60),
            |line| heard.push(line.to_owned()),
        );
        assert!(matches!(ended, Ok(Ended::With(status)) if status.code() == Some(3)));
        assert_eq!(heard, ["one", "two"]);
        let ended = lines(
            &mut shell("echo one; exec sleep 60"),
            Duration::from_millis(200),
            |_| (),
        );
        assert!(matches!(ended, Ok(Ended::Silent)));
    }

    #[test]
    fn a_line_is_quoted_as_typed() {
        let mut command = Command::new("emu");
        command.args(["chat", "what is <image>?", ""]);
        assert_eq!(line(&command), "emu chat 'what is <image>?' ''");
    }
}
