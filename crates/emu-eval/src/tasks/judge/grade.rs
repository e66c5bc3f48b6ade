//! The grades of all answers, stored as they come.

use std::path::Path;

use serde_json::json;

use super::{Case, Judge, prompt};
use crate::tasks::error::EvalError;
use crate::tasks::files::sha256;
use crate::tasks::journal::{Journal, Line};
use crate::tasks::progress::{Progress, Stage};

/// Grades of a judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Graded {
    /// Name of the judge.
    pub judge: String,
    /// For each run the grade of each answer, from 0 to 1.
    pub runs: Vec<Vec<f64>>,
    /// Replies without a grade, in all runs: they count as 0, as in the official scorer.
    pub without: usize,
}

impl Graded {
    /// The mean grade of each answer over the runs.
    pub fn means(&self) -> Vec<f64> {
        let answers = self.runs.first().map_or(0, Vec::len);
        let mean = |at: usize| {
            let grades = self.runs.iter().filter_map(|run| run.get(at));
            grades.sum::<f64>() / self.runs.len() as f64
        };
        (0..answers).map(mean).collect()
    }

    /// The mean grade of each run.
    pub fn totals(&self) -> Vec<f64> {
        let total = |run: &Vec<f64>| run.iter().sum::<f64>() / run.len().max(1) as f64;
        self.runs.iter().map(total).collect()
    }
}

/// Has a judge grade answers. Each run has a file `judged-N.jsonl` in `out`, which an interrupted run continues.
///
/// # Errors
/// If the judge cannot be asked, a file was written with another judge or other answers, or the caller stops.
pub fn grades(
    judge: &Judge,
    cases: &[Case],
    out: &Path,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Graded, EvalError> {
    let failed = |at: &str| {
        let at = at.to_owned();
        move |source| EvalError::Judge { at, source }
    };
    let mut grader = judge.grader().map_err(EvalError::JudgeSettings)?;
    let items: Vec<String> = cases.iter().map(|case| case.id.to_owned()).collect();
    let texts =
        { cases.iter() }.flat_map(|case| [case.id, case.question, case.answer, case.prediction]);
    let answers = sha256(texts);
    let mut graded = Graded {
        judge: judge.name(),
        runs: vec![],
        without: 0,
    };
    let total = cases.len() * judge.runs.max(1);
    for run in 1..=judge.runs.max(1) {
        let settings = json!({
            "stage": Stage::Grades,
            "judge": judge.name(),
            "prompt_sha256": judge.prompt().map(|prompt| sha256([prompt.text()])),
            "answers_sha256": answers,
            "run": run,
        });
        let path = out.join(format!("judged-{run}.jsonl"));
        let mut journal = Journal::open(&path, &settings, &items, 1)?;
        while let Some(case) = cases.get(journal.lines.len()) {
            let done = (run - 1) * cases.len() + journal.lines.len();
            let stage = Stage::Grades;
            if !progress(Progress { stage, done, total }) {
                return Err(EvalError::Stopped);
            }
            let tries = grader.tries().max(1);
            let (mut reply, mut found) = (String::new(), None);
            for attempt in 0..tries {
                let case = Case {
                    attempt,
                    ..case.clone()
                };
                reply = grader.reply(&case).map_err(failed(case.id))?;
                found = prompt::grade(&reply);
                if found.is_some() {
                    break;
                }
            }
            let error = found
                .is_none()
                .then(|| format!("no number from 0 to 1 in {tries} replies"));
            if let (Some(error), 1) = (&error, tries) {
                let shown: String = reply.chars().take(80).collect();
                let source = format!("{error}, but {shown:?}. Have it write the number only");
                return Err(failed(case.id)(source.into()));
            }
            journal.append(vec![Line {
                id: case.id.to_owned(),
                text: Some(reply),
                scores: Some(vec![found.unwrap_or(0.0)]),
                error,
                examples: vec![],
            }])?;
        }
        let lines = journal.lines;
        graded.without += lines.iter().filter(|line| line.error.is_some()).count();
        let grade = |line: &Line| {
            let grade = line.scores.as_ref().and_then(|scores| scores.first());
            grade.copied().unwrap_or(0.0)
        };
        graded.runs.push(lines.iter().map(grade).collect());
    }
    Ok(graded)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::{Script, Who};
    use super::*;

    fn judge(folder: &Path, script: &str, runs: usize) -> Judge {
        let path = folder.join("judge.sh");
        fs::write(&path, script).expect("script");
        let line = format!("sh {}", path.display());
        let script = Script::new(&line, Duration::from_secs(20)).expect("command");
        Judge {
            who: Who::Script(script),
            runs,
        }
    }

    fn cases<'a>(predictions: &[&'a str]) -> Vec<Case<'a>> {
        let ids = ["v1_0", "v1_1", "v1_2", "v1_3"];
        let case = |(id, prediction): (&'a str, &&'a str)| Case {
            id,
            question: "what?",
            answer: "a kite",
            prediction,
            attempt: 0,
        };
        ids.into_iter().zip(predictions).map(case).collect()
    }

    /// Grades 1 where the prediction is the truth, else 0.25; counts its calls; fails at "break" until there is a file `mended`.
    const SCRIPT: &str = "cd \"$(dirname \"$0\")\"; echo x >> calls; read -r line
case $line in
  *'\"prediction\":\"a kite\"'*) echo 1;;
  *break*) if [ -e mended ]; then echo 0.5; else exit 1; fi;;
  *) echo 0.25;;
esac
";

    #[test]
    fn an_interrupted_run_continues_and_asks_nothing_twice() {
        let folder = tempfile::tempdir().expect("folder");
        let (root, out) = (folder.path(), folder.path().join("out"));
        let judge = judge(root, SCRIPT, 2);
        let cases = cases(&["a kite", "a boat", "break", "a kite"]);
        let calls =
            || fs::read_to_string(root.join("calls")).map_or(0, |text| text.lines().count());
        let error = grades(&judge, &cases, &out, &mut |_| true).expect_err("it breaks");
        let text = error.to_string();
        assert!(
            text.contains("v1_2") && text.contains("sh ended") && text.contains("kept"),
            "{text}"
        );
        assert_eq!(calls(), 3);
        fs::write(root.join("mended"), "").expect("mended");
        let mut seen = vec![];
        let graded = grades(&judge, &cases, &out, &mut |at| {
            seen.push((at.done, at.total));
            true
        })
        .expect("graded");
        assert_eq!(calls(), 3 + 2 + 4);
        assert_eq!(seen, [2, 3, 4, 5, 6, 7].map(|done| (done, 8)));
        assert_eq!(graded.runs, vec![vec![1.0, 0.25, 0.5, 1.0]; 2]);
        assert_eq!(graded.means(), [1.0, 0.25, 0.5, 1.0]);
        assert_eq!((graded.totals(), graded.without), (vec![0.6875; 2], 0));
        assert_eq!(
            grades(&judge, &cases, &out, &mut |_| true).expect("again"),
            graded
        );
        assert_eq!(calls(), 9);

        // Other answers are not given the stored grades.
        let others = self::cases(&["a kite", "a boat", "broken", "a kite"]);
        let error = grades(&judge, &others, &out, &mut |_| true).expect_err("changed");
        assert!(error.to_string().contains("answers_sha256"), "{error}");
        let stop = grades(&judge, &cases, &folder.path().join("new"), &mut |_| false);
        assert!(matches!(stop, Err(EvalError::Stopped)));
    }

    #[test]
    fn a_program_must_write_a_number() {
        let folder = tempfile::tempdir().expect("folder");
        let judge = judge(folder.path(), "echo 'quite right'\n", 1);
        let error = grades(&judge, &cases(&["a"]), folder.path(), &mut |_| true)
            .expect_err("no number")
            .to_string();
        assert!(
            error.contains("\"quite right\"") && error.contains("v1_0"),
            "{error}"
        );
    }
}
