//! A program that is spoken to over its standard streams, with a limit of time and size for each answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// How much of the end of the standard error is kept, in bytes.
const MAX_ERROR: usize = 2048;
/// How long the standard error of an ended program is waited for: a child of its own may hold it open.
const ERROR_END: Duration = Duration::from_millis(300);
/// Pause between two looks at whether the program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What can go wrong with a program. The sentences begin with its name.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It cannot be started.
    #[error("{program} cannot be started: {source}. Check that it is installed and executable")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It does not answer in time.
    #[error("{program} did not answer within {seconds} s. Check it by hand, or allow more time")]
    Silent {
        /// The program.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// It ended although an answer was expected, or with an error.
    #[error("{program} ended ({how}){said}. Check it by hand with one line of input")]
    Ended {
        /// The program.
        program: String,
        /// Its exit status in words.
        how: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// What it wrote is no text, or too long.
    #[error(
        "{program} wrote what is no line of text: {reason}. Check it by hand with one line of input"
    )]
    Output {
        /// The program.
        program: String,
        /// What is wrong.
        reason: String,
    },
}

/// A running program. It is killed on drop.
pub struct Program {
    name: String,
    child: Child,
    input: Option<Sender<String>>,
    output: Receiver<Result<String, String>>,
    errors: Arc<Mutex<Vec<u8>>>,
    errors_end: JoinHandle<()>,
    limit: Duration,
}

impl Program {
    /// Starts a program; `limit` is the time for each line of its output and for its end.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut command: Command, limit: Duration) -> Result<Self, ProgramError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |source| ProgramError::Start {
            program: name.clone(),
            source,
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (input, texts) = channel::<String>();
        let (lines, output) = channel();
        let errors = Arc::new(Mutex::new(vec![]));
        let collected = errors.clone();
        // The streams are read and written by threads, so that none of them can block the caller. They end with the streams.
        let writer = move || {
            let Some(mut stdin) = stdin else { return };
            for text in texts {
                // A program that does not read any more is noticed by its output.
                let written = stdin.write_all(text.as_bytes());
                if written.and_then(|()| stdin.flush()).is_err() {
                    return;
                }
            }
        };
        let reader = move || {
            let Some(stdout) = stdout else { return };
            let mut stdout = BufReader::new(stdout);
            while let Some(line) = read_line(&mut stdout) {
                let last = line.is_err();
                if lines.send(line).is_err() || last {
                    return;
                }
            }
        };
        let listener = move || {
            let Some(mut stderr) = stderr else { return };
            let mut bytes = [0; 1024];
            while let Ok(n @ 1..) = stderr.read(&mut bytes) {
                let mut kept = collected.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(bytes.get(..n).unwrap_or_default());
                let surplus = kept.len().saturating_sub(MAX_ERROR);
                kept.drain(..surplus);
            }
        };
        let spawned = || {
            thread::Builder::new().spawn(writer)?;
            thread::Builder::new().spawn(reader)?;
            thread::Builder::new().spawn(listener)
        };
        match spawned() {
            Ok(errors_end) => Ok(Self {
                name,
                child,
                input: Some(input),
                output,
                errors,
                errors_end,
                limit,
            }),
            Err(source) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(failed(source))
            }
        }
    }

    /// Writes to its standard input. A program that does not read is noticed by [`Program::line`].
    pub fn write(&mut self, text: String) {
        if let Some(input) = &self.input {
            let _ = input.send(text);
        }
    }

    /// Closes its standard input.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// The next line of its standard output, without the line break; `None` at the end of the output.
    ///
    /// # Errors
    /// If there is none in time, or it is no text.
    pub fn line(&mut self) -> Result<Option<String>, ProgramError> {
        match self.output.recv_timeout(self.limit) {
            Ok(Ok(line)) => Ok(Some(line)),
            Ok(Err(reason)) => Err(ProgramError::Output {
                program: self.name.clone(),
                reason,
            }),
            Err(RecvTimeoutError::Timeout) => Err(self.silent()),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    /// As [`Program::line`], where the end of the output is an error.
    ///
    /// # Errors
    /// As there, or if the program has ended.
    pub fn answer(&mut self) -> Result<String, ProgramError> {
        match self.line()? {
            Some(line) => Ok(line),
            None => {
                let status = self.status()?;
                Err(self.ended(status))
            }
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in time, or ends with an error.
    pub fn finish(mut self) -> Result<(), ProgramError> {
        self.close();
        let status = self.status()?;
        match status.success() {
            true => Ok(()),
            false => Err(self.ended(status)),
        }
    }

    fn status(&mut self) -> Result<ExitStatus, ProgramError> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if start.elapsed() < self.limit => thread::sleep(LOOK),
                Ok(None) | Err(_) => return Err(self.silent()),
            }
        }
    }

    fn silent(&self) -> ProgramError {
        ProgramError::Silent {
            program: self.name.clone(),
            seconds: self.limit.as_secs_f64().ceil() as u64,
        }
    }

    fn ended(&self, status: ExitStatus) -> ProgramError {
        let start = Instant::now();
        while !self.errors_end.is_finished() && start.elapsed() < ERROR_END {
            thread::sleep(LOOK);
        }
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&errors);
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        ProgramError::Ended {
            program: self.name.clone(),
            how: status.to_string(),
            said: last.map_or_else(String::new, |line| {
                format!(": {}", line.trim_end_matches('.'))
            }),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next line, or why it is none; `None` at the end.
fn read_line(reader: &mut impl BufRead) -> Option<Result<String, String>> {
    let mut bytes = vec![];
    match reader.take(MAX_LINE + 1).read_until(b'\n', &mut bytes) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) => return Some(Err(error.to_string())),
    }
    if bytes.len() as u64 > MAX_LINE {
        return Some(Err(format!("it is longer than {MAX_LINE} bytes")));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => return Some(Err("it is not UTF-8".to_owned())),
    };
    Some(Ok(text.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, seconds: f64) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start(command, Duration::from_secs_f64(seconds)).expect("sh")
    }

    #[test]
    fn lines_go_back_and_forth() {
        let mut program = sh("while read -r line; do echo \"<$line>\"; done", 20.0);
        for word in ["one", "zwölf", ""] {
            program.write(format!("{word}\n"));
            assert_eq!(program.answer().expect("answer"), format!("<{word}>"));
        }
        program.close();
        assert_eq!(program.line().expect("end"), None);
        program.finish().expect("ended well");
    }

    #[test]
    fn more_than_a_pipe_holds_does_not_block() {
        let mut program = sh("sleep 0.2; wc -c; echo done", 20.0);
        program.write("x".repeat(1 << 20));
        program.close();
        assert_eq!(program.answer().expect("count").trim(), "1048576");
        assert_eq!(program.answer().expect("done"), "done");
    }

    #[test]
    fn silence_ends_and_bad_output_are_told_apart() {
        let start = Instant::now();
        let error = sh("exec sleep 60", 0.3).answer().expect_err("silent");
        assert!(
            matches!(error, ProgramError::Silent { seconds: 1, .. }),
            "{error}"
        );
        let error = sh("echo first >&2; echo 'no model.' >&2; exit 3", 20.0)
            .answer()
            .expect_err("ended");
        let text = error.to_string();
        assert!(
            text.contains("sh ended (exit status: 3): no model. Check"),
            "{text}"
        );
        let error = sh("printf '\\377\\n'", 20.0).answer().expect_err("no text");
        assert!(error.to_string().contains("not UTF-8"), "{error}");
        let error = sh("yes | tr -d '\\n'", 20.0).answer().expect_err("endless");
        assert!(error.to_string().contains("longer than"), "{error}");
        let error = sh("echo 1; exit 4", 20.0).finish().expect_err("exit code");
        assert!(error.to_string().contains("exit status: 4"), "{error}");
        let error = Program::start(Command::new("/nowhere/judge"), Duration::ZERO).err();
        let text = error.expect("not there").to_string();
        assert!(text.contains("/nowhere/judge cannot be started"), "{text}");
        assert!(
            start.elapsed() < Duration::from_secs(50),
            "the sleeping program was waited for"
        );
    }
}
