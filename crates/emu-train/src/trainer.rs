//! The training loop: micro-batches, gradients, update, and all output of a run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use emu_kernels::device::Opened;
use emu_pack::TensorData;

use crate::TrainError;
use crate::checkpoint::{self, Checkpoint, RunState, Tensors};
use crate::config::{Differences, TrainConfig};
use crate::divergence::Divergence;
use crate::events::{Outcome, RunOptions, TrainEvent};
use crate::lock::lock;
use crate::metrics::{MetricsFile, StepMetrics};
use crate::optim::{AdamW, GradientSum};
use crate::parts::Rates;
use crate::plot;
use crate::readback::read_back;
use crate::schedule::Schedule;
use crate::skipped::BadList;
use crate::stage::{Source, Stage, StepContext};
use crate::tensorboard::EventFile;
use crate::watch::Watch;

impl TrainConfig {
    /// Opens the configured device and sets the size of the thread pool (only the first run of a process can set it).
    ///
    /// # Errors
    /// If there is no such device.
    pub fn open_device(&self) -> Result<Opened, TrainError> {
        if let Some(threads) = self.threads
            && rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build_global()
                .is_err()
            && rayon::current_num_threads() != threads
        {
            tracing::warn!(
                "the number of threads stays {}: it was set before",
                rayon::current_num_threads()
            );
        }
        emu_kernels::device::open_to_train(self.device.clone())
            .map_err(|e| TrainError::other(e.code(), e))
    }

    /// The same device with autodiff, and with activation checkpointing if the configuration enables it.
    pub fn training_device(&self, device: &Device) -> Device {
        let device = device.clone().autodiff();
        if self.activation_checkpointing {
            device.gradient_checkpointing()
        } else {
            device
        }
    }
}

/// Trains `model` according to the configuration and returns it. All output goes into the folder `out`. However the run
/// ends, the last checkpoint there is intact.
///
/// `device` holds the model and its batches ([`TrainConfig::training_device`]).
///
/// # Errors
/// Those of the configuration, the folder and the stage; [`TrainError::NotFinite`] and [`TrainError::Collapsed`] if
/// continuing is pointless.
pub fn run<S: Stage>(
    config: &TrainConfig,
    stage: &mut S,
    model: S::Model,
    device: &Device,
    mut options: RunOptions,
) -> Result<Outcome<S::Model>, TrainError> {
    config.validate()?;
    fs::create_dir_all(&config.out).map_err(TrainError::io("create", &config.out))?;
    let _lock = lock(&config.out)?;
    checkpoint::sweep(&config.out)?;
    let mut run = Run::new(config, stage, model, device, &mut options)?;
    let result = run.train();
    match result {
        Ok(stopped) => run.finish(stopped),
        Err(error) => {
            // The curve up to the failure helps to diagnose it.
            let _ = run.draw_curve();
            Err(error)
        }
    }
}

struct Run<'a, 'b, S: Stage> {
    config: &'a TrainConfig,
    stage: &'a mut S,
    device: Device,
    options: &'a mut RunOptions<'b>,
    /// `None` only during the optimiser step.
    model: Option<S::Model>,
    optimiser: AdamW,
    rates: Rates,
    schedule: Schedule,
    metrics: MetricsFile,
    bad_list: BadList,
    history: plot::History,
    divergence: Divergence,
    events: Option<EventFile>,
    best: Option<Watch>,
    early_stop: Option<Watch>,
    state: RunState,
    /// Start of training in this process. `seconds_before` is the training time of earlier processes.
    began: Instant,
    seconds_before: f64,
    last_save: (u64, Instant),
    last_path: PathBuf,
}

impl<'a, 'b, S: Stage> Run<'a, 'b, S> {
    fn new(
        config: &'a TrainConfig,
        stage: &'a mut S,
        model: S::Model,
        device: &Device,
        options: &'a mut RunOptions<'b>,
    ) -> Result<Self, TrainError> {
        let (found, skipped) = Checkpoint::newest(&config.out)?;
        for skipped in &skipped {
            tracing::warn!(
                "{} is passed over: {}",
                skipped.path.display(),
                skipped.reason
            );
            emit(options, TrainEvent::Skipped(skipped));
        }
        if let (Some(found), false) = (&found, options.resume) {
            return Err(TrainError::RunExists {
                out: config.out.clone(),
                step: found.state.step,
            });
        }
        let mut state = RunState::new(0, config.seed, stage.name(), config.fingerprint());
        let mut optimiser = AdamW::new(
            &model,
            config.optimiser.clone(),
            config.ema.map(|ema| ema.decay),
        );
        let rates = Rates::new(config, optimiser.names())?;
        let mut model = model;
        if let Some(found) = &found {
            let differences = Differences::new(&found.state.config, &state.config);
            if !differences.forbidden.is_empty() {
                return Err(TrainError::ConfigChanged {
                    out: config.out.clone(),
                    differences: differences.forbidden.join("; "),
                });
            }
            if !differences.allowed.is_empty() {
                let changes = differences.allowed.join("; ");
                note_changes(&config.out, found.state.step, &changes)?;
                let message = format!(
                    "The run goes on with other settings ({changes}). It no longer equals a run without an interruption. \
                     {CHANGES} records this."
                );
                warn(options, found.state.step, &message);
            }
            model = restore(model, &mut optimiser, found)?;
            (state.step, state.samples, state.seconds) =
                (found.state.step, found.state.samples, found.state.seconds);
        } else if options.resume {
            tracing::info!(
                "{} holds no checkpoint: the run starts at the beginning",
                config.out.display()
            );
        }
        let model = rates.prepare(model, device);
        let (metrics, kept) = MetricsFile::open(&config.out.join("metrics.jsonl"), state.step)?;
        let parameters: Vec<usize> = emu_model::weights::parameters(&model)
            .iter()
            .map(|(_, shape)| shape.iter().product())
            .collect();
        let trainable = parameters
            .iter()
            .zip(rates.frozen())
            .filter(|(_, frozen)| !frozen)
            .map(|(n, _)| n)
            .sum();
        let parameters = parameters.iter().sum();
        emit(
            options,
            TrainEvent::Started {
                step: state.step,
                steps: config.steps,
                parameters,
                trainable,
                samples: stage.samples(Source::Training),
            },
        );
        tracing::info!(
            "stage {}: {trainable} of {parameters} parameters learn, step {} of {}",
            stage.name(),
            state.step,
            config.steps
        );
        for (i, set) in config.validation.iter().enumerate() {
            if stage.samples(Source::Validation(i)).is_none() {
                let message = format!(
                    "the stage {} has no loss on validation sets such as {}",
                    stage.name(),
                    set.path.display()
                );
                return Err(TrainError::config(format!("validation[{i}]"), message));
            }
        }
        let mut best = config.checkpoint.best.as_ref().map(Watch::best);
        let mut early_stop = config.early_stop.as_ref().map(Watch::early_stop);
        for metrics in kept.iter().filter(|metrics| !metrics.eval.is_empty()) {
            for watch in [&mut best, &mut early_stop].into_iter().flatten() {
                watch.push(metrics.step + 1, &metrics.eval)?;
            }
        }
        // The process may have ended between the checkpoint and the mark.
        if let Some((step, _)) = best.as_ref().and_then(Watch::found)
            && step == state.step
        {
            checkpoint::mark_best(&config.out, step)?;
        }
        let events = match config.log.tensorboard && options.check.is_none() {
            true => Some(EventFile::create(&config.out, state.step)?),
            false => None,
        };
        let schedule = config.schedule.build(config.steps)?;
        if rates.idle(&schedule, config.steps) {
            let message = "Nothing learns: the rate of every part is 0 at every step. \
                           Set `optimiser.lr`, or a rate in [[rates]], above 0.";
            warn(options, state.step, message);
        }
        let now = Instant::now();
        Ok(Self {
            schedule,
            bad_list: BadList::open(&config.out, state.step * config.accumulate as u64)?,
            divergence: Divergence::new(kept.iter().map(|metrics| metrics.loss)),
            events,
            best,
            early_stop,
            device: device.clone(),
            history: plot::History::new(&kept),
            seconds_before: state.seconds,
            last_save: (
                if found.is_some() {
                    state.step
                } else {
                    u64::MAX
                },
                now,
            ),
            last_path: found.map(|found| found.path).unwrap_or_default(),
            began: now,
            model: Some(model),
            config,
            stage,
            options,
            optimiser,
            rates,
            metrics,
            state,
        })
    }

    /// Runs the remaining steps. Returns whether it was asked to stop.
    fn train(&mut self) -> Result<bool, TrainError> {
        let first = self.state.step;
        while self.state.step < self.config.steps {
            if self.options.stop.is_set() {
                return Ok(true);
            }
            if (self.options.check).is_some_and(|steps| self.state.step - first >= steps) {
                return Ok(true);
            }
            if let (Some(watch), Some(config)) = (&self.early_stop, &self.config.early_stop)
                && watch.stale() >= config.patience
            {
                let (step, best, figure) = (self.state.step, watch.found(), watch.figure());
                tracing::info!("step {step}: `{figure}` has stopped improving, the run ends");
                let event = TrainEvent::EarlyStop { step, figure, best };
                emit(self.options, event);
                return Ok(false);
            }
            let metrics = self.step()?;
            self.after(metrics)?;
        }
        Ok(false)
    }

    /// One optimiser step.
    fn step(&mut self) -> Result<StepMetrics, TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        let model = self
            .model
            .take()
            .ok_or_else(|| TrainError::Stage("The model was lost.".into()))?;

        // 1. gradients, averaged over the micro-batches
        let mut gradients = GradientSum::new();
        let mut losses = Vec::with_capacity(self.config.accumulate);
        for micro_step in 0..self.config.accumulate {
            let context = StepContext {
                seed: self.config.seed,
                step,
                micro_step,
                accumulate: self.config.accumulate,
                steps: self.config.steps,
                source: Source::Training,
                device: self.device.clone(),
                train: true,
            };
            self.device.seed(context.device_seed());
            let loss = match self.stage.loss(&model, &context) {
                Err(TrainError::BadSamples(error)) => {
                    self.bad_list.append(&error.found)?;
                    return Err(TrainError::BadSamples(error));
                }
                loss => loss?,
            };
            self.bad_list.append(&loss.bad)?;
            for found in &loss.bad {
                emit(self.options, TrainEvent::BadSample(&found.sample));
                tracing::info!("left out: {}", found.sample);
            }
            if !loss.loss.is_tracked() {
                return Err(TrainError::Stage(format!(
                    "The loss of stage {} does not depend on anything that learns. Unfreeze a part that it uses.",
                    self.stage.name()
                )));
            }
            gradients.add(&model, loss.loss.backward(), loss.samples as f64);
            losses.push(loss);
        }

        // 2. one read-back of all figures; the parameters change only if everything is finite
        let (loss, terms, norm) = read_back(&losses, &gradients);
        let not_finite = |what: String| {
            let batch = losses
                .iter()
                .flat_map(|loss| loss.keys.clone())
                .collect::<Vec<_>>()
                .join(", ");
            TrainError::NotFinite { step, what, batch }
        };
        if !loss.is_finite() {
            return Err(not_finite("a loss".into()));
        }
        if !norm.is_finite() {
            let name = gradients
                .first_not_finite()
                .and_then(|i| self.optimiser.names().get(i));
            return Err(not_finite(name.map_or("gradients".into(), |name| {
                format!("a gradient of `{name}`")
            })));
        }

        // 3. the update
        let factor = self.schedule.factor(step);
        let scale = self.optimiser.clip_scale(norm);
        self.model = Some(
            self.optimiser
                .step(model, gradients, scale, &self.rates.at(factor)),
        );

        let samples: usize = losses.iter().map(|loss| loss.samples).sum();
        self.state.step += 1;
        self.state.samples += samples as u64;
        self.state.seconds = self.seconds_before + self.began.elapsed().as_secs_f64();
        Ok(StepMetrics {
            step,
            loss: loss as f32,
            terms,
            grad_norm: norm as f32,
            lr: self.rates.by_part(factor),
            samples_per_s: (samples as f64 / started.elapsed().as_secs_f64().max(1e-9)) as f32,
            seconds: self.state.seconds,
            bad_samples: losses.last().map_or(0, |loss| loss.total_bad),
            warning: self.divergence.push(loss as f32),
            eval: vec![],
        })
    }

    /// Work after a step: evaluation, metrics, samples, curve, checkpoint.
    fn after(&mut self, mut metrics: StepMetrics) -> Result<(), TrainError> {
        let (step, log) = (self.state.step, self.config.log);
        let checked = self.options.check.is_some();
        let due = |every: u64| {
            every > 0 && !checked && (step.is_multiple_of(every) || step == self.config.steps)
        };
        let mut improved = false;
        let monitored = self.stage.monitor(metrics.step, &metrics.terms);

        if due(log.eval_every) && monitored.is_ok() {
            let model = self.showing();
            let mut figures = self.validate(&model)?;
            figures.extend(self.stage.evaluate(&model, step)?);
            if let Some(watch) = &mut self.best {
                improved = watch.push(step, &figures)?;
            }
            if let Some(watch) = &mut self.early_stop {
                watch.push(step, &figures)?;
            }
            emit(
                self.options,
                TrainEvent::Evaluated {
                    step,
                    figures: &figures,
                },
            );
            tracing::info!("step {step}: {}", list(&figures));
            metrics.eval = figures;
        }
        self.metrics.write(&metrics)?;
        if let Some(events) = &mut self.events {
            events.write(&metrics)?;
        }
        self.history.push(&metrics);
        if let Some(message) = &metrics.warning {
            warn(self.options, step, message);
        }
        emit(self.options, TrainEvent::Step(&metrics));
        if due(log.every) {
            tracing::info!(
                "step {step}/{}: loss {:.4}, {}, norm {:.3}, {:.1} samples/s",
                self.config.steps,
                metrics.loss,
                list(&metrics.terms),
                metrics.grad_norm,
                metrics.samples_per_s
            );
        }
        monitored?;

        if due(log.sample_every) {
            let dir = self.config.out.join("samples").join(format!("{step:08}"));
            fs::create_dir_all(&dir).map_err(TrainError::io("create", &dir))?;
            self.stage.sample(&self.showing(), step, &dir)?;
            emit(self.options, TrainEvent::Sampled { step, dir: &dir });
        }
        if due(log.curve_every) {
            self.draw_curve()?;
        }
        let save = &self.config.checkpoint;
        let waited = self.last_save.1.elapsed() >= Duration::from_secs_f64(save.minutes * 60.0);
        let due = (save.steps > 0 && step.is_multiple_of(save.steps))
            || (save.minutes > 0.0 && waited)
            || improved;
        if due && !checked {
            self.save()?;
        }
        if improved {
            checkpoint::mark_best(&self.config.out, step)?;
        }
        Ok(())
    }

    /// Loss and terms on each validation set: the mean over the same samples every time.
    fn validate(&mut self, model: &S::Model) -> Result<Vec<(String, f32)>, TrainError> {
        let mut figures = vec![];
        for (i, set) in self.config.validation.iter().enumerate() {
            let source = Source::Validation(i);
            let samples = self.stage.samples(source).unwrap_or(0);
            let batches = (samples / self.config.batch).clamp(1, set.batches);
            let mut losses = Vec::with_capacity(batches);
            for batch in 0..batches as u64 {
                let context = StepContext {
                    seed: self.config.seed,
                    step: batch,
                    micro_step: 0,
                    accumulate: 1,
                    steps: self.config.steps,
                    source,
                    device: self.device.clone().inner(),
                    train: false,
                };
                context.device.seed(context.device_seed());
                losses.push(self.stage.loss(model, &context)?);
            }
            let (loss, terms, _) = read_back(&losses, &GradientSum::new());
            let name = set.name();
            figures.push((format!("{name}.loss"), loss as f32));
            figures.extend(
                terms
                    .into_iter()
                    .map(|(term, value)| (format!("{name}.{term}"), value)),
            );
        }
        Ok(figures)
    }

    fn save(&mut self) -> Result<(), TrainError> {
        if self.last_save.0 == self.state.step {
            return Ok(());
        }
        self.state.metrics_bytes = self.metrics.sync()?;
        self.state.seconds = self.seconds_before + self.began.elapsed().as_secs_f64();
        let mut tensors = Tensors {
            optimiser: self.optimiser.export()?,
            average: self.optimiser.export_average()?,
            model: vec![],
        };
        if let Some(model) = &self.model {
            emu_model::weights::export(model, |tensor: TensorData| {
                tensors.model.push(tensor);
                Ok::<_, TrainError>(())
            })?;
        }
        self.last_path = checkpoint::write(
            &self.config.out,
            self.state.clone(),
            &tensors,
            &checkpoint::create_file,
        )?;
        let best = self.best.as_ref().and_then(Watch::found);
        let best = best.map(|(step, _)| step);
        checkpoint::prune(&self.config.out, self.config.checkpoint.keep, best)?;
        self.last_save = (self.state.step, Instant::now());
        emit(
            self.options,
            TrainEvent::Saved {
                step: self.state.step,
                path: &self.last_path,
            },
        );
        tracing::info!("saved {}", self.last_path.display());
        Ok(())
    }

    fn draw_curve(&self) -> Result<(), TrainError> {
        plot::draw(&self.history, &self.config.out.join("loss.png"))
    }

    /// The model for samples and evaluation: the EMA weights if the run keeps them, without autodiff.
    fn showing(&self) -> S::Model {
        // `None` only inside `step`.
        let Some(model) = &self.model else {
            unreachable!("the model is only away during a step")
        };
        self.optimiser
            .averaged(model)
            .unwrap_or_else(|| model.clone())
            .valid()
    }

    fn finish(mut self, stopped: bool) -> Result<Outcome<S::Model>, TrainError> {
        if self.options.check.is_none() {
            self.save()?;
            self.draw_curve()?;
        }
        let step = self.state.step;
        if stopped {
            tracing::info!("stopped after step {step}; go on with --resume");
        }
        emit(self.options, TrainEvent::Finished { step, stopped });
        let Some(model) = self.model else {
            unreachable!("the model is only away during a step")
        };
        let averaged = self.optimiser.averaged(&model).map(|model| model.valid());
        Ok(Outcome {
            model,
            averaged,
            step,
            stopped,
            checkpoint: self.last_path,
        })
    }
}

/// Lists the settings that were changed by a resumed run, in the run's folder.
const CHANGES: &str = "changes.jsonl";

fn note_changes(out: &Path, step: u64, changes: &str) -> Result<(), TrainError> {
    let path = out.join(CHANGES);
    let line = serde_json::json!({ "step": step, "changes": changes }).to_string() + "\n";
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(TrainError::io("open", &path))?;
    file.write_all(line.as_bytes())
        .map_err(TrainError::io("write", &path))
}

fn emit(options: &mut RunOptions, event: TrainEvent) {
    if let Some(on_event) = &mut options.on_event {
        on_event(event);
    }
}

/// Reports a warning, to the log if there is no event handler.
fn warn(options: &mut RunOptions, step: u64, message: &str) {
    match options.on_event {
        Some(_) => emit(options, TrainEvent::Warning { step, message }),
        None => tracing::warn!("step {step}: {message}"),
    }
}

fn list(figures: &[(String, f32)]) -> String {
    figures
        .iter()
        .map(|(name, value)| format!("{name} {value:.4}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Restores weights and optimiser state from a checkpoint.
fn restore<M: Module>(
    model: M,
    optimiser: &mut AdamW,
    found: &Checkpoint,
) -> Result<M, TrainError> {
    let broken = |reason: String| TrainError::Checkpoint {
        path: found.path.clone(),
        reason,
    };
    let tensors = found.tensors()?;
    let mut weights: std::collections::BTreeMap<String, TensorData> = tensors
        .model
        .into_iter()
        .map(|tensor| (tensor.info.name.clone(), tensor))
        .collect();
    let inner = Device::flex();
    let device = burn::module::Module::devices(&model)
        .into_iter()
        .next()
        .unwrap_or(inner);
    let model = emu_model::weights::load(model, &device, |name| {
        weights
            .remove(name)
            .ok_or_else(|| emu_pack::PackError::MissingTensor {
                file: found.path.display().to_string(),
                tensor: name.into(),
            })
    })?;
    if let Some(name) = weights.keys().next() {
        return Err(broken(format!("`{name}` is no parameter of the model")));
    }
    optimiser
        .import(&model, tensors.optimiser, tensors.average)
        .map_err(broken)?;
    Ok(model)
}
