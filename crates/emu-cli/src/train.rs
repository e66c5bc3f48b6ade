//! `emu train`

use std::io::IsTerminal;

use anyhow::{Context, Result};
use emu_train::{BAD_SAMPLES, RunOptions, StopFlag, TrainConfig, TrainEvent, stages};
use serde_json::json;

use crate::args::TrainArgs;
use crate::dashboard::Dashboard;
use crate::dry_run;
use crate::output::{bytes, json_line, print_now};
use crate::signals;

/// Trains the stage of a configuration. `threads` overrides the configuration's.
pub fn run(args: &TrainArgs, threads: Option<usize>) -> Result<()> {
    let mut config = TrainConfig::read_with(&args.config, &args.settings)?;
    config.threads = threads.or(config.threads);
    if let Some(out) = &args.out {
        config.out.clone_from(out);
    }
    if args.dry_run {
        return dry_run::run(&config, args.memory, args.json);
    }
    if args.check {
        return check(config, args.json);
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
            ..RunOptions::default()
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

/// Steps of a check. The first includes the compilation of kernels; the last is the one that is timed.
const CHECK_STEPS: u64 = 3;

/// `emu train --check`: a few steps in a temporary folder. Reports what the run needs and writes nothing.
fn check(mut config: TrainConfig, json: bool) -> Result<()> {
    let folder = tempfile::tempdir()
        .context("no temporary folder can be created; check TMPDIR and the space left there")?;
    folder.path().clone_into(&mut config.out);
    let mut started = None;
    let mut seconds = 0.0;
    let mut before = 0.0;
    let mut losses = vec![];
    let mut bad = vec![];
    let mut on_event = |event: TrainEvent<'_>| match event {
        TrainEvent::Started {
            parameters,
            trainable,
            samples,
            ..
        } => started = Some((parameters, trainable, samples)),
        TrainEvent::Step(metrics) => {
            seconds = metrics.seconds - before;
            before = metrics.seconds;
            losses.push(metrics.loss);
        }
        TrainEvent::BadSample(sample) => bad.push(sample.to_string()),
        _ => {}
    };
    stages::run(
        &config,
        RunOptions {
            check: Some(CHECK_STEPS.min(config.steps)),
            on_event: Some(&mut on_event),
            ..RunOptions::default()
        },
    )?;
    let (parameters, trainable, samples) = started.unwrap_or_default();
    let per_step = config.samples_per_step();
    let epochs = samples.map(|n| config.steps as f64 * per_step / n.max(1) as f64);
    let peak = emu_kernels::adapters::peak_memory();
    if json {
        return json_line(&json!({
            "stage": config.stage, "parameters": parameters, "trainable": trainable, "samples": samples,
            "samples_per_step": per_step, "epochs": epochs, "seconds_per_step": seconds, "steps": config.steps,
            "peak_bytes": peak, "losses": losses, "bad_samples": bad,
        }));
    }
    let mut lines = vec![
        format!("stage         {}", config.stage),
        format!("parameters    {parameters}, {trainable} of them learn"),
    ];
    if let (Some(samples), Some(epochs)) = (samples, epochs) {
        lines.push(format!(
            "data          {samples} samples; {} steps of {per_step} read them {epochs:.2} times",
            config.steps
        ));
    }
    lines.push(format!(
        "step          {seconds:.2} s, {:.1} samples/s; {} steps take {}",
        per_step / seconds.max(1e-9),
        config.steps,
        duration(seconds * config.steps as f64)
    ));
    if let Some(peak) = peak {
        lines.push(format!(
            "memory        {} at most, of the host",
            bytes(peak)
        ));
    }
    let losses: Vec<String> = losses.iter().map(|loss| format!("{loss:.4}")).collect();
    lines.push(format!("loss          {}", losses.join(", ")));
    lines.extend(bad.iter().map(|bad| format!("left out      {bad}")));
    print_now(&(lines.join("\n") + "\n"))
}

/// "3 h 20 min", "5 min", "40 s".
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds:.0} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// Maximum number of skipped samples that are reported one by one. The run's folder has the full list.
const TOLD: u64 = 10;

/// Shows the events of a run and prints warnings to stderr.
struct Screen {
    view: View,
    /// Number of skipped samples, including those of earlier runs in the folder.
    bad: u64,
    told: u64,
    /// Warnings held back until the dashboard releases the terminal.
    waiting: Vec<String>,
}

/// Where events are shown.
enum View {
    Json,
    /// A line at intervals.
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
        // A closed stdout must not end a run of hours. The metrics also go to a file.
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
            // Warnings are printed as JSON lines on stdout.
            View::Json => {}
            View::Lines => eprintln!("warning: {message}"),
            View::Dashboard(_) => self.waiting.push(message),
        }
    }

    /// Releases the terminal and prints held-back warnings and the summary.
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
            samples,
        } => json_line(&json!({
            "type": "started", "step": step, "steps": steps, "parameters": parameters, "trainable": trainable,
            "samples": samples,
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
        TrainEvent::EarlyStop { step, figure, best } => json_line(&json!({
            "type": "early-stop", "step": step, "figure": figure,
            "best": best.map(|(step, value)| json!({"step": step, "value": value})),
        })),
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
            ..
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
        TrainEvent::EarlyStop { step, figure, best } => {
            let best = best.map_or(String::new(), |(step, value)| {
                format!(" since {value:.4} at step {step}")
            });
            print_now(&format!(
                "step {step:6}  {figure} has not improved{best}: the run ends here\n"
            ))
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
