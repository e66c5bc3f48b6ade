//! `emu train`

use std::io::IsTerminal;

use anyhow::Result;
use emu_train::{BAD_SAMPLES, RunOptions, StopFlag, TrainConfig, TrainEvent, stages};
use serde_json::json;

use crate::args::TrainArgs;
use crate::dashboard::Dashboard;
use crate::output::{json_line, print_now};
use crate::signals;

/// Trains a stage as its configuration says.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut config = TrainConfig::read(&args.config)?;
    if let Some(out) = &args.out {
        config.out.clone_from(out);
    }
    let stop = signals::stop_flag()?;
    let mut screen = Screen::new(args, &stop);
    let mut show = |event: TrainEvent<'_>| screen.show(&event);
    let finished = stages::run(
        &config,
        RunOptions {
            resume: args.resume,
            stop: stop.clone(),
            on_event: Some(&mut show),
        },
    );
    screen.close(&config);
    let finished = finished?;
    let (step, checkpoint) = (finished.step, &finished.checkpoint);
    if args.json {
        return json_line(&json!({
            "step": step, "stopped": finished.stopped, "checkpoint": checkpoint,
        }));
    }
    let how = match finished.stopped {
        true => "stopped; go on with --resume",
        false => "finished",
    };
    print_now(&format!("step {step}: {how}; {}\n", checkpoint.display()))
}

/// Samples left out that are told one by one; the others are in the list of the run's folder.
const TOLD: u64 = 10;

/// What shows a run, and what is told of it on stderr.
struct Screen {
    view: View,
    /// Samples left out, those of earlier runs in the folder among them.
    bad: u64,
    told: u64,
    /// Warnings that wait for the dashboard to give the terminal back.
    waiting: Vec<String>,
}

/// Where events go.
enum View {
    Json,
    /// A line now and then.
    Lines,
    Dashboard(Box<Dashboard>),
}

impl Screen {
    fn new(args: &TrainArgs, stop: &StopFlag) -> Self {
        let view = match (args.json, args.plain || !std::io::stdout().is_terminal()) {
            (true, _) => View::Json,
            (false, true) => View::Lines,
            (false, false) => View::Dashboard(Box::new(Dashboard::open(stop.clone()))),
        };
        Self {
            view,
            bad: 0,
            told: 0,
            waiting: vec![],
        }
    }

    fn show(&mut self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Warning { step, message } => self.warn(format!("step {step}: {message}")),
            TrainEvent::BadSample(bad) => {
                self.told += 1;
                if self.told <= TOLD {
                    self.warn(format!("{bad}; it is left out"));
                }
            }
            TrainEvent::Step(metrics) => self.bad = metrics.bad_samples,
            _ => {}
        }
        // A closed output is no reason to end a run of hours: its metrics are in a file as well.
        let _ = match &mut self.view {
            View::Dashboard(dashboard) => {
                dashboard.show(event);
                Ok(())
            }
            View::Json => json(event),
            View::Lines => line(event),
        };
    }

    fn warn(&mut self, message: String) {
        match &self.view {
            // As lines of JSON on stdout.
            View::Json => {}
            View::Lines => eprintln!("warning: {message}"),
            View::Dashboard(_) => self.waiting.push(message),
        }
    }

    /// Gives the terminal back and says what is worth knowing after the run.
    fn close(self, config: &TrainConfig) {
        let json = matches!(self.view, View::Json);
        drop(self.view);
        for message in self.waiting {
            eprintln!("warning: {message}");
        }
        if self.bad > 0 && !json {
            let list = config.out.join(BAD_SAMPLES);
            eprintln!(
                "warning: {} unusable samples were left out; {} lists them",
                self.bad,
                list.display()
            );
        }
    }
}

fn json(event: &TrainEvent<'_>) -> Result<()> {
    match event {
        TrainEvent::Started {
            step,
            steps,
            parameters,
            trainable,
        } => json_line(&json!({
            "type": "started", "step": step, "steps": steps, "parameters": parameters, "trainable": trainable,
        })),
        TrainEvent::Skipped(skipped) => {
            json_line(&json!({"type": "skipped", "checkpoint": format!("{skipped:?}")}))
        }
        TrainEvent::Warning { step, message } => {
            json_line(&json!({"type": "warning", "step": step, "message": message}))
        }
        TrainEvent::BadSample(bad) => {
            let mut value = serde_json::to_value(bad)?;
            value["type"] = json!("bad-sample");
            json_line(&value)
        }
        TrainEvent::Step(metrics) => {
            let mut value = serde_json::to_value(metrics)?;
            value["type"] = json!("step");
            json_line(&value)
        }
        TrainEvent::Evaluated { step, figures } => {
            let figures: serde_json::Map<_, _> = figures
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            json_line(&json!({"type": "evaluated", "step": step, "figures": figures}))
        }
        TrainEvent::Sampled { step, dir } => {
            json_line(&json!({"type": "sampled", "step": step, "folder": dir}))
        }
        TrainEvent::Saved { step, path } => {
            json_line(&json!({"type": "saved", "step": step, "checkpoint": path}))
        }
        _ => Ok(()),
    }
}

fn line(event: &TrainEvent<'_>) -> Result<()> {
    match event {
        TrainEvent::Started {
            step,
            steps,
            parameters,
            trainable,
        } => print_now(&format!(
            "{parameters} parameters, {trainable} of them learn; step {step} of {steps}\n"
        )),
        TrainEvent::Skipped(skipped) => {
            print_now(&format!("passed over a damaged checkpoint: {skipped:?}\n"))
        }
        TrainEvent::Step(metrics) if metrics.step.is_multiple_of(10) => print_now(&format!(
            "step {:6}  loss {:.4}  {:.1} samples/s\n",
            metrics.step, metrics.loss, metrics.samples_per_s
        )),
        TrainEvent::Evaluated { step, figures } => {
            let figures: Vec<String> = figures
                .iter()
                .map(|(name, value)| format!("{name} {value:.4}"))
                .collect();
            print_now(&format!("step {step:6}  {}\n", figures.join("  ")))
        }
        TrainEvent::Sampled { step, dir } => {
            print_now(&format!("step {step:6}  samples in {}\n", dir.display()))
        }
        TrainEvent::Saved { step, path } => {
            print_now(&format!("step {step:6}  saved {}\n", path.display()))
        }
        _ => Ok(()),
    }
}
