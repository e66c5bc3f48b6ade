//! The training stages, selected by their names in configurations.
//!
//! `vae`, then `vision` and `pretrain`, then `decoder` (or `brush`, which only needs the token embeddings of a language
//! model). `instruct` fine-tunes the result. `heads` fits a classifier of names to the features of a frozen encoder. On
//! a frozen language model, `reader` learns which picture is requested, and whether one is; `persona` learns a soft
//! prompt. `judge` trains the classifier that evaluates drawings; it is not part of the model. [`corpus`] holds the
//! data handling of all stages, [`sequence`] turns records into token sequences.

pub mod batches;
pub mod corpus;
pub mod sequence;

pub mod sheet;

mod brush;
mod decoder;
mod heads;
mod latents;
mod model_file;
mod persona;
mod pretrain;
mod reader;
mod readings;
mod sizes;
mod speller;
mod states;
mod trigger;
mod vae;
mod vision;

use burn::tensor::Device;
use emu_model::EmuConfig;
use emu_model::config::LmInit;

pub use brush::BrushStage;
pub use decoder::DecoderStage;
pub use heads::FILE as HEADS_FILE;
pub use model_file::{MODEL_FILE, PLAIN, load_emu, read_model_file};
pub use persona::{FILE as PERSONA, PersonaStage};
pub use pretrain::Pretrain;
pub use reader::ReaderStage;
pub use sizes::{emu_config, preset};
pub use trigger::TRIGGER;
pub use vae::VaeStage;
pub use vision::Vision;

use crate::judge::JudgeStage;
use crate::parts::load_parts;
use crate::{RunOptions, TrainConfig, TrainError};
use model_file::{read_sizes, write_model_file};

/// Outcome of a run of any stage.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Steps made.
    pub step: u64,
    /// Whether the run was stopped before its last step.
    pub stopped: bool,
    /// The last checkpoint.
    pub checkpoint: std::path::PathBuf,
}

/// Runs the stage that the configuration names.
///
/// # Errors
/// Those of the configuration, the data, the device and the training itself.
pub fn run(config: &TrainConfig, options: RunOptions) -> Result<Finished, TrainError> {
    config.validate()?;
    let opened = config.open_device()?;
    let device = config.training_device(&opened.device);
    let _sequence = emu_kernels::init::seed(config.seed);
    match config.stage.as_str() {
        "vision" => {
            let mut stage = Vision::new(config)?;
            train_emu(
                config,
                &mut stage,
                |stage| (stage.model_config().clone(), 0.0),
                &device,
                options,
            )
        }
        "pretrain" | "instruct" => {
            let mut stage = Pretrain::new(config)?;
            train_emu(
                config,
                &mut stage,
                |stage| (stage.model_config().clone(), stage.lora_dropout()),
                &device,
                options,
            )
        }
        "vae" => {
            let mut stage = VaeStage::new(config)?;
            let sizes = stage.model_config().clone();
            let model = sizes
                .init(&device)
                .map_err(|e| TrainError::other("config", e))?;
            let model = load_parts(model, config, &device)?;
            write_model_file(&config.out, &serde_json::json!({ "vae": sizes }))?;
            Ok(Finished::of(crate::run(
                config, &mut stage, model, &device, options,
            )?))
        }
        "decoder" => {
            let mut stage = DecoderStage::new(config, &opened.device)?;
            let sizes = stage.model_config().clone();
            let model = sizes
                .init(&opened.device)
                .map_err(|e| TrainError::other("config", e))?;
            let model = load_parts(model, config, &opened.device)?;
            let model = stage.measure(model)?;
            write_model_file(
                &config.out,
                &decoder::model_value(stage.emu_config(), stage.model_config()),
            )?;
            Ok(Finished::of(crate::run(
                config, &mut stage, model, &device, options,
            )?))
        }
        "brush" => {
            let mut stage = BrushStage::new(config, &opened.device)?;
            let sizes = stage.model_config().clone();
            let model = sizes
                .init(&opened.device)
                .map_err(|e| TrainError::other("config", e))?;
            let model = load_parts(model, config, &opened.device)?;
            let model = stage.measure(model)?;
            let value = serde_json::json!({
                "decoder": stage.model_config(), "spelling": stage.spelling(),
            });
            write_model_file(&config.out, &value)?;
            Ok(Finished::of(crate::run(
                config, &mut stage, model, &device, options,
            )?))
        }
        "heads" => {
            let mut options = options;
            let (checkpoint, names) = heads::run(config, &opened.device, &mut options)?;
            write_model_file(&config.out, &serde_json::json!({ "names": names }))?;
            Ok(Finished {
                step: 1,
                stopped: false,
                checkpoint,
            })
        }
        "reader" => {
            let mut options = options;
            let mut stage = ReaderStage::new(config, &opened.device, &mut options)?;
            let model = load_parts(stage.init(&device), config, &device)?;
            write_model_file(
                &config.out,
                &serde_json::json!({
                    "reader": stage.model_config(), "trigger": stage.trigger_config(),
                    "alone": stage.alone_config(),
                }),
            )?;
            Ok(Finished::of(crate::run(
                config, &mut stage, model, &device, options,
            )?))
        }
        "persona" => {
            let mut stage = PersonaStage::new(config, &opened.device, &device, &options)?;
            let model = load_parts(stage.init(&opened.device)?, config, &opened.device)?;
            let [length, width] = model.embeddings.dims();
            write_model_file(
                &config.out,
                &serde_json::json!({ "persona": { "length": length, "width": width } }),
            )?;
            let finished = Finished::of(crate::run(config, &mut stage, model, &device, options)?);
            Ok(Finished {
                stopped: finished.stopped && !stage.has_ended(),
                ..finished
            })
        }
        "judge" => {
            let mut stage = JudgeStage::new(config)?;
            let model = load_parts(stage.init(&device), config, &device)?;
            write_model_file(
                &config.out,
                &serde_json::json!({ "judge": stage.model_config() }),
            )?;
            Ok(Finished::of(crate::run(
                config, &mut stage, model, &device, options,
            )?))
        }
        other => Err(TrainError::config(
            "stage",
            format!(
                "there is no stage {other:?}, only vae, vision, pretrain, decoder, brush, heads, reader, persona, instruct and judge"
            ),
        )),
    }
}

fn train_emu<S: crate::Stage<Model = emu_model::Emu>>(
    config: &TrainConfig,
    stage: &mut S,
    sizes: impl Fn(&S) -> (EmuConfig, f64),
    device: &Device,
    options: RunOptions,
) -> Result<Finished, TrainError> {
    let (sizes, dropout) = sizes(stage);
    let start = LmInit {
        equal_query_key: config.init.equal_query_key,
    };
    start
        .validate(&sizes.lm)
        .map_err(|e| TrainError::config("init.equal_query_key", e.0))?;
    let model = sizes
        .init_with(&start, device)
        .map_err(|e| TrainError::other("config", e))?;
    let mut model = load_parts(model, config, device)?;
    model.lm = model.lm.with_lora_dropout(dropout);
    write_model_file(&config.out, &serde_json::json!({ "emu": sizes }))?;
    Ok(Finished::of(crate::run(
        config, stage, model, device, options,
    )?))
}

impl Finished {
    fn of<M>(outcome: crate::Outcome<M>) -> Self {
        Self {
            step: outcome.step,
            stopped: outcome.stopped,
            checkpoint: outcome.checkpoint,
        }
    }
}
