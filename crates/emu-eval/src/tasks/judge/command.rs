//! A program as judge.

use std::process::Command;
use std::time::Duration;

use super::{Case, Grader};
use crate::tasks::error::ModelError;
use crate::tasks::program::Program;

/// Longest reply, in lines.
const MAX_LINES: usize = 100;

/// A program that gets a [`Case`] as one line of JSON on its standard input, and writes a number from 0 to 1 to its standard
/// output. It is started for each answer, without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Time for one answer.
    pub limit: Duration,
}

impl Script {
    /// A program and its arguments, separated by white space.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(line: &str, limit: Duration) -> Result<Self, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match words.is_empty() {
            true => Err(
                "The judge's command is empty. Name a program, and its arguments if it needs any"
                    .to_owned(),
            ),
            false => Ok(Self { words, limit }),
        }
    }

    /// Its name in results: without folders, so that it is the same on every machine.
    pub(super) fn name(&self) -> String {
        let program = self.words.first().map_or("", String::as_str);
        let file = program.rsplit(['/', '\\']).next().unwrap_or(program);
        let arguments = self.words.get(1..).unwrap_or_default();
        let words: Vec<&str> = std::iter::once(file)
            .chain(arguments.iter().map(String::as_str))
            .collect();
        format!("command {}", words.join(" "))
    }
}

impl Grader for Script {
    fn reply(&mut self, case: &Case) -> Result<String, ModelError> {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command.args(words);
        let mut program = Program::start(command, self.limit)?;
        program.write(format!("{}\n", serde_json::to_string(case)?));
        program.close();
        let mut lines = vec![];
        while let Some(line) = program.line()? {
            lines.push(line);
            if lines.len() > MAX_LINES {
                let name = self.name();
                return Err(format!("The judge, {name}, writes more than {MAX_LINES} lines. Have it write a number only").into());
            }
        }
        program.finish()?;
        Ok(lines.join("\n"))
    }

    // The same input gives the same output: asking again is of no use.
    fn tries(&self) -> usize {
        1
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn script(folder: &tempfile::TempDir, text: &str) -> Script {
        let path = folder.path().join("judge.sh");
        std::fs::write(&path, text).expect("script");
        let line = format!("sh {} --strict", path.display());
        Script::new(&line, Duration::from_secs(20)).expect("command")
    }

    const CASE: Case = Case {
        id: "v1_0",
        question: "what?",
        answer: "a \"kite\"",
        prediction: "a\nkite",
        attempt: 0,
    };

    #[test]
    fn it_gets_json_and_its_output_is_the_reply() {
        let folder = tempfile::tempdir().expect("folder");
        let mut judge = script(&folder, "cat; echo \"$1\"\n");
        let reply = judge.reply(&CASE).expect("reply");
        let (json, argument) = reply.split_once('\n').expect("two lines");
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(json["prediction"], "a\nkite");
        assert_eq!(json["answer"], "a \"kite\"");
        assert_eq!(argument, "--strict");
        assert!(judge.name().starts_with("command sh "), "{}", judge.name());
    }

    #[test]
    fn a_failing_or_slow_program_is_an_error() {
        let folder = tempfile::tempdir().expect("folder");
        let mut judge = script(&folder, "echo 0.5; echo 'no licence' >&2; exit 3\n");
        let error = judge.reply(&CASE).expect_err("failed").to_string();
        assert!(
            error.contains("no licence") && error.contains("3"),
            "{error}"
        );
        let mut judge = script(&folder, "exec sleep 60\n");
        judge.limit = Duration::from_millis(200);
        let error = judge.reply(&CASE).expect_err("slow").to_string();
        assert!(error.contains("did not answer"), "{error}");
        let error = script(&folder, "exec yes 0.5\n")
            .reply(&CASE)
            .expect_err("endless");
        assert!(error.to_string().contains("more than 100 lines"), "{error}");
        assert!(Script::new("  ", Duration::ZERO).is_err());
    }
}
