//! METEOR by its original program, a jar for Java: the protocol of its option `-stdio`.
//!
//! A line `SCORE ||| reference ||| ... ||| hypothesis` is answered by a line of statistics; a line `EVAL ||| statistics ||| ...` by
//! the score of each, and then by that of all together, which is no mean: it is computed from the sums of the statistics.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use thiserror::Error;

use super::program::{Program, ProgramError};
use crate::score::{Caption, Scored};

/// Separates the fields of a line.
const FIELD: &str = " ||| ";
/// Time for each answer. The first takes seconds: tables of paraphrases are loaded before it.
const LIMIT: Duration = Duration::from_secs(300);

/// Where METEOR is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meteor {
    /// `meteor-1.5.jar`; its tables are in the folder `data` beside it.
    pub jar: PathBuf,
    /// The program `java`.
    pub java: PathBuf,
}

/// Why there is no METEOR.
#[derive(Debug, Error)]
pub enum MeteorError {
    /// There is no jar.
    #[error("there is no file {}. Name meteor-1.5.jar, as it is in the package pycocoevalcap", .0.display())]
    NoJar(PathBuf),
    /// Java or the jar failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// An answer is no number.
    #[error("{jar} answered {answer:?} where a score is expected. Check that it is METEOR 1.5", jar = .jar.display())]
    Answer {
        /// The jar.
        jar: PathBuf,
        /// The answer.
        answer: String,
    },
}

impl Meteor {
    /// Scores captions and references that are tokens separated by spaces, as fractions: published numbers are 100 times these.
    ///
    /// # Errors
    /// If Java cannot be started, or does not answer as METEOR does.
    pub fn score(&self, captions: &[Caption]) -> Result<Scored<f64>, MeteorError> {
        if !self.jar.is_file() {
            return Err(MeteorError::NoJar(self.jar.clone()));
        }
        let mut program = Program::start(self.command(), LIMIT)?;
        let mut eval = "EVAL".to_owned();
        for caption in captions {
            let fields: Vec<String> = { caption.references.iter() }
                .chain([&caption.hypothesis])
                .map(|text| field(text))
                .collect();
            program.write(format!("SCORE{FIELD}{}\n", fields.join(FIELD)));
            eval.push_str(FIELD);
            eval.push_str(program.answer()?.trim());
        }
        program.write(format!("{eval}\n"));
        let mut items = vec![];
        for _ in captions {
            items.push(self.number(&program.answer()?)?);
        }
        let corpus = self.number(&program.answer()?)?;
        Ok(Scored { corpus, items })
    }

    fn command(&self) -> Command {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let jar = absolute(&self.jar);
        let mut command = Command::new(&self.java);
        // The jar reads and writes by the defaults of the machine: other charsets would change words, other countries numbers.
        command
            .args([
                "-Dfile.encoding=UTF-8",
                "-Duser.language=en",
                "-Duser.country=US",
            ])
            .args(["-Xmx2G", "-jar"])
            .arg(&jar)
            .args(["-", "-", "-stdio", "-l", "en", "-norm"]);
        if let Some(folder) = jar.parent() {
            command.current_dir(folder);
        }
        command
    }

    fn number(&self, answer: &str) -> Result<f64, MeteorError> {
        let number = answer.trim().parse().ok().filter(|x: &f64| x.is_finite());
        number.ok_or_else(|| MeteorError::Answer {
            jar: self.jar.clone(),
            answer: answer.chars().take(80).collect(),
        })
    }
}

/// A text as a field: without separators, line breaks and double spaces.
fn field(text: &str) -> String {
    let text = text.replace("|||", "").replace(['\n', '\r'], " ");
    text.replace("  ", " ")
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program that speaks the protocol: the statistics are the numbers of words of hypothesis and first reference; the score
    /// is their quotient. It refuses other arguments.
    const FAKE: &str = r#"#!/bin/sh
case "$*" in *"-jar "*"/meteor-1.5.jar - - -stdio -l en -norm") ;; *) echo "bad arguments: $*" >&2; exit 2;; esac
set -f
while IFS= read -r line; do
  case $line in
  SCORE*) rest=${line#"SCORE ||| "}; first=${rest%%" ||| "*}; last=${rest##*" ||| "}
    set -- $last; n=$#; set -- $first; echo "$n $#";;
  EVAL*) echo "$line" | awk -F' [|][|][|] ' '{
    for (i = 2; i <= NF; i++) { split($i, s, " "); print s[1] / s[2]; a += s[1]; b += s[2] }
    print a / b }';;
  esac
done
"#;

    fn installed(script: &str) -> (tempfile::TempDir, Meteor) {
        let folder = tempfile::tempdir().expect("folder");
        let (jar, java) = (
            folder.path().join("meteor-1.5.jar"),
            folder.path().join("java"),
        );
        fs::write(&jar, "").expect("jar");
        fs::write(&java, script).expect("java");
        fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).expect("executable");
        (folder, Meteor { jar, java })
    }

    fn caption(hypothesis: &str, references: &[&str]) -> Caption {
        Caption {
            hypothesis: hypothesis.into(),
            references: references.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn the_protocol_gives_a_score_for_each_and_one_for_all() {
        let (_folder, meteor) = installed(FAKE);
        let set = [
            caption("a kite", &["one two three four", "x"]),
            caption("a  b ||| c\nd", &["a | b | c", "y"]),
        ];
        let scored = meteor.score(&set).expect("scores");
        assert_eq!(scored.items, [0.5, 0.8]);
        assert!(
            (scored.corpus - 6.0 / 9.0).abs() < 1e-5,
            "{}",
            scored.corpus
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let set = [caption("a kite", &["a kite"])];
        let (folder, mut meteor) =
            installed("#!/bin/sh\nread line; echo 'no statistics'; read line; echo NaN\n");
        let error = meteor.score(&set).expect_err("no number").to_string();
        assert!(error.contains("answered \"NaN\""), "{error}");
        meteor.java = folder.path().join("nothing");
        let error = meteor.score(&set).expect_err("no Java").to_string();
        assert!(error.contains("nothing cannot be started"), "{error}");
        let (_folder, meteor) = installed("#!/bin/sh\necho 'Error: no heap' >&2; exit 1\n");
        let error = meteor.score(&set).expect_err("it ends").to_string();
        assert!(error.contains("no heap"), "{error}");
        let meteor = Meteor {
            jar: folder.path().join("other.jar"),
            java: "java".into(),
        };
        let error = meteor.score(&set).expect_err("no jar").to_string();
        assert!(error.contains("other.jar"), "{error}");
    }
}
