//! `emu train`

use std::io::IsTerminal;

use anyhow::Result;
use emu_train::dashboard::Dashboard;
use emu_train::{RunOptions, StopFlag, TrainConfig, TrainEvent, stages};
use serde_json::json;

use crate::args::TrainArgs;
use crate::output::{json_line, print_now};

/// Trains a stage as its configuration says. `threads`: in place of the configuration's.
pub fn run(args: &TrainArgs, threads: Option<usize>) -> Result<()> {
    let mut config = TrainConfig::read(&args.config)?;
    config.threads = threads.or(config.threads);
    if let Some(out) = &args.out {
        config.out.clone_from(out);
    }
    let stop = StopFlag::on_signals()?;
    let mut screen = Screen::new(args, &stop);
    let mut show = |event: TrainEvent<'_>| screen.show(&event);
    let finished = stages::run(
        &config,
        RunOptions {
            resume: args.resume,
            stop: stop.clone(),
            on_event: Some(&mut show),
        },
    )?;
    drop(screen);
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

/// Where events go.
enum Screen {
    Json,
    /// A line now and then.
    Lines,
    Dashboard(Box<Dashboard>),
}

impl Screen {
    fn new(args: &TrainArgs, stop: &StopFlag) -> Self {
        match (args.json, args.plain || !std::io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Lines,
            (false, false) => Self::Dashboard(Box::new(Dashboard::open(stop.clone()))),
        }
    }

    fn show(&mut self, event: &TrainEvent<'_>) {
        // A closed output is no reason to end a run of hours: its metrics are in a file as well.
        let _ = match self {
            Self::Dashboard(dashboard) => {
                dashboard.show(event);
                Ok(())
            }
            Self::Json => json(event),
            Self::Lines => line(event),
        };
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
