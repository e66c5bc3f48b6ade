//! Runs the demo's steps through the `emu` program and collects the results.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::plan::{Item, Kind, Plan, Step};
use crate::command;

/// Settings of a demo run.
pub struct Stage<'a> {
    /// The root of the checkout: current directory of the commands, base of picture paths.
    pub root: &'a Path,
    /// The `emu` program.
    pub emu: &'a Path,
    /// `--device` of `emu`.
    pub device: &'a str,
    /// `--seed` of `emu`.
    pub seed: u64,
    /// Output folder of drawings.
    pub out: &'a Path,
}

/// All results, in the order of the plan's steps and items.
pub struct Performance {
    /// Per step, per item.
    pub steps: Vec<Vec<Run>>,
    /// Total time in seconds.
    pub seconds: f64,
}

/// One run of `emu`.
pub struct Run {
    /// The command line as a user would type it, with `emu` as the program.
    pub line: String,
    /// Time in seconds, including start-up and loading.
    pub seconds: f64,
    /// The output, or the error.
    pub outcome: Result<Outcome>,
}

/// Output of one run.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Text.
    Text(String),
    /// The file of a picture, and whether the safety checker flagged it.
    Picture { file: PathBuf, flagged: bool },
}

impl Performance {
    /// Number of failed runs.
    pub fn failures(&self) -> usize {
        self.steps
            .iter()
            .flatten()
            .filter(|run| run.outcome.is_err())
            .count()
    }
}

/// Runs the whole plan and prints each run as it ends. After a failed run the rest goes on.
pub fn perform(stage: &Stage, plan: &Plan) -> Result<Performance> {
    let clock = Instant::now();
    let mut steps = Vec::with_capacity(plan.steps.len());
    for (number, step) in (1..).zip(&plan.steps) {
        println!("{number}/{} {}", plan.steps.len(), step.title);
        let mut runs = Vec::with_capacity(step.items.len());
        for (position, item) in (1..).zip(&step.items) {
            let picture = stage.out.join(format!("demo-{number}-{position}.png"));
            let run = run_item(stage, step, item, picture);
            tell(item, &run);
            runs.push(run);
        }
        steps.push(runs);
    }
    Ok(Performance {
        steps,
        seconds: clock.elapsed().as_secs_f64(),
    })
}

fn tell(item: &Item, run: &Run) {
    let names: Vec<_> = item
        .images
        .iter()
        .filter_map(|image| image.file_name())
        .map(|name| name.to_string_lossy())
        .collect();
    let asked = [names.join(" + "), item.prompt.clone()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    let came = match &run.outcome {
        Ok(Outcome::Text(text)) => text.clone(),
        Ok(Outcome::Picture { file, .. }) => {
            format!("{}", file.file_name().unwrap_or_default().display())
        }
        Err(error) => format!("FAILED: {error:#}"),
    };
    println!("    {asked} -> {came}  ({:.1} s)", run.seconds);
}

fn run_item(stage: &Stage, step: &Step, item: &Item, picture: PathBuf) -> Run {
    let mut emu = emu_command(stage, step, item, &picture);
    let line = command::line(&emu).replacen(&stage.emu.to_string_lossy().into_owned(), "emu", 1);
    // A picture of an earlier demo must not count as this run's output.
    let _ = std::fs::remove_file(&picture);
    let clock = Instant::now();
    let printed = command::capture(&mut emu);
    let seconds = clock.elapsed().as_secs_f64();
    let outcome = printed.and_then(|printed| outcome(step.kind, &printed, picture));
    Run {
        line,
        seconds,
        outcome,
    }
}

/// Builds the command line of one item.
fn emu_command(stage: &Stage, step: &Step, item: &Item, picture: &Path) -> Command {
    let shown = |path: &Path| path.strip_prefix(stage.root).unwrap_or(path).to_path_buf();
    let mut emu = command::new(stage.emu, stage.root);
    let sub = match step.kind {
        Kind::Caption => "caption",
        Kind::Answer | Kind::Complete => "chat",
        Kind::Draw | Kind::Blend => "imagine",
    };
    emu.args([
        sub,
        "--json",
        "--device",
        stage.device,
        "--seed",
        &stage.seed.to_string(),
    ])
    .args(&step.arguments);
    match step.kind {
        Kind::Caption => {
            emu.args(item.images.iter().map(|image| shown(image)));
        }
        _ => {
            if matches!(step.kind, Kind::Draw | Kind::Blend) {
                emu.arg("-o").arg(shown(picture));
            }
            for image in &item.images {
                emu.arg("--image").arg(shown(image));
            }
            let marks_alone = step.kind == Kind::Blend && item.prompt.is_empty();
            emu.arg(if marks_alone {
                "<image>".repeat(item.images.len())
            } else {
                item.prompt.clone()
            });
        }
    }
    emu
}

/// Reads the result from the JSON lines that `emu` printed.
fn outcome(kind: Kind, printed: &str, picture: PathBuf) -> Result<Outcome> {
    let events = printed
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            serde_json::from_str::<Value>(line)
                .with_context(|| format!("`emu` printed a line that is not JSON: {line}"))
        })
        .collect::<Result<Vec<_>>>()?;
    match kind {
        Kind::Caption => {
            let caption = events.iter().find_map(|event| event["caption"].as_str());
            Ok(Outcome::Text(
                caption
                    .ok_or_else(|| anyhow!("`emu caption` printed no caption"))?
                    .trim()
                    .to_owned(),
            ))
        }
        Kind::Answer | Kind::Complete => {
            // Text is streamed in pieces.
            let text: String = events
                .iter()
                .filter(|event| event["type"] == "text")
                .filter_map(|event| event["text"].as_str())
                .collect();
            if text.trim().is_empty() {
                bail!("`emu chat` printed no text");
            }
            Ok(Outcome::Text(text.trim().to_owned()))
        }
        Kind::Draw | Kind::Blend => {
            if !picture.is_file() {
                bail!("`emu imagine` wrote no picture");
            }
            let flagged = events.iter().any(|event| event["flagged"] == true);
            Ok(Outcome::Picture {
                file: picture,
                flagged,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_text_are_joined() {
        let printed = "{\"type\":\"text\",\"text\":\"two \"}\n{\"type\":\"text\",\"text\":\"birds\"}\n{\"type\":\"usage\",\"tokens\":2}\n";
        assert_eq!(
            outcome(Kind::Answer, printed, PathBuf::new()).expect("text"),
            Outcome::Text("two birds".into())
        );
    }

    #[test]
    fn nothing_printed_or_drawn_is_an_error() {
        assert!(outcome(Kind::Caption, "", PathBuf::new()).is_err());
        assert!(outcome(Kind::Complete, "{\"type\":\"usage\"}", PathBuf::new()).is_err());
        assert!(outcome(Kind::Draw, "{}", PathBuf::from("no-such-picture.png")).is_err());
        assert!(outcome(Kind::Caption, "not json", PathBuf::new()).is_err());
    }

    #[test]
    fn commands_are_those_of_the_contract() {
        let root = Path::new("base");
        let stage = Stage {
            root,
            emu: Path::new("emu"),
            device: "cpu",
            seed: 7,
            out: root,
        };
        let step = |kind, arguments: &[&str]| Step {
            kind,
            title: String::new(),
            about: String::new(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            items: Vec::new(),
        };
        let item = |prompt: &str| Item {
            images: vec![root.join("a.png"), root.join("b.png")],
            prompt: prompt.into(),
            truth: None,
        };
        let line = |step: &Step, prompt: &str| {
            command::line(&emu_command(
                &stage,
                step,
                &item(prompt),
                &root.join("o.png"),
            ))
        };
        assert_eq!(
            line(&step(Kind::Blend, &["--steps", "20"]), ""),
            "emu imagine --json --device cpu --seed 7 --steps 20 -o o.png --image a.png --image b.png '<image><image>'"
        );
        assert_eq!(
            line(&step(Kind::Answer, &[]), "who?"),
            "emu chat --json --device cpu --seed 7 --image a.png --image b.png who?"
        );
        assert_eq!(
            line(&step(Kind::Caption, &[]), ""),
            "emu caption --json --device cpu --seed 7 a.png b.png"
        );
    }

    /// Uses a fake `emu` that draws an empty file and prints events.
    #[cfg(unix)]
    #[test]
    fn a_plan_is_performed_and_failures_are_kept() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let emu = folder.path().join("emu");
        let script = "#!/bin/sh\ncase \"$1\" in\n caption) exit 3;;\n chat) echo '{\"type\":\"text\",\"text\":\" blue\"}';;\n \
                      imagine) while [ \"$1\" != -o ]; do shift; done; : > \"$2\"; echo '{\"flagged\":true}';;\nesac\n";
        std::fs::write(&emu, script).expect("a script");
        std::fs::set_permissions(&emu, std::fs::Permissions::from_mode(0o755)).expect("executable");
        std::fs::write(folder.path().join("a.png"), "").expect("a picture");
        std::fs::write(
            folder.path().join("demo.json"),
            r#"{"title":"t","steps":[
                {"kind":"caption","title":"c","items":[{"images":["a.png"]}]},
                {"kind":"answer","title":"q","items":[{"images":["a.png"],"prompt":"what colour?"}]},
                {"kind":"draw","title":"d","items":[{"prompt":"a fish"}]}]}"#,
        )
        .expect("a plan");
        let plan = Plan::read(folder.path()).expect("a plan");
        let stage = Stage {
            root: folder.path(),
            emu: &emu,
            device: "auto",
            seed: 1,
            out: folder.path(),
        };
        let performance = perform(&stage, &plan).expect("performed");
        assert_eq!(performance.failures(), 1);
        assert!(
            matches!(&performance.steps[1][0].outcome, Ok(Outcome::Text(text)) if text == "blue")
        );
        assert!(matches!(
            &performance.steps[2][0].outcome,
            Ok(Outcome::Picture { flagged: true, .. })
        ));
        assert!(performance.steps[2][0].line.starts_with("emu imagine"));
        let html = super::super::page::render(&plan, &performance);
        assert!(html.contains("what colour?") && html.contains("did not work"));
    }
}
