//! What the program can be asked.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use emu_kernels::device::DeviceChoice;
use emu_model::diffusion::SchedulerKind;

pub use crate::assemble::AssembleArgs;
pub use crate::part::PartArgs;

/// Emu in Rust: a model that reads pictures and text in any order and answers with both.
#[derive(Debug, Parser)]
#[command(name = "emu", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Threads that compute on the CPU; all that the machine has without it.
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// More threads than any machine has processors are a mistake.
const MAX_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=MAX_THREADS) => Ok(n),
        _ => Err(format!(
            "give a whole number from 1 to {MAX_THREADS}, at best no more than there are processors"
        )),
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a prompt that may hold pictures; without a prompt, a conversation.
    Chat(ChatArgs),
    /// Describe pictures, one line each.
    Caption(CaptionArgs),
    /// Draw what a prompt of texts and pictures asks for.
    Imagine(ImagineArgs),
    /// Turn a published checkpoint into a pack.
    Convert(ConvertArgs),
    /// Make a model that sees of a language model, an encoder and heads that name what it sees.
    Assemble(AssembleArgs),
    /// Keep the weights of a training run, in 16 bits and without what resuming needs: what `assemble` takes.
    Part(PartArgs),
    /// Say what a pack holds, what it needs, and whether this machine can run it.
    Inspect(InspectArgs),
    /// Compare with the original implementation's numbers, or a pack with its checkpoint.
    Parity(ParityArgs),
    /// Train a stage.
    Train(TrainArgs),
    /// Build training data.
    Data(DataArgs),
    /// Measure a model on held-out data.
    Eval(EvalArgs),
    /// Count and time what running a model costs here.
    Bench(BenchArgs),
    /// List what this machine can compute on.
    Devices(DevicesArgs),
}

/// `emu devices`
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What to measure.
    #[arg(value_enum, default_value_t = BenchPart::Lm)]
    pub part: BenchPart,
    /// For lm: tokens of a prompt.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub prompt: usize,
    /// For lm: tokens to decode at least.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub tokens: usize,
    /// For lm: beams of a search that is measured beside; 0 for none.
    #[arg(long, default_value_t = 5)]
    pub beams: usize,
    /// For image: denoising steps.
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub steps: usize,
    /// For kernels: within a minute on a software adapter, without the largest shapes.
    #[arg(long)]
    pub quick: bool,
    /// For kernels: only those whose name holds this.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub kernel: String,
}

/// Parts of a model that `emu bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchPart {
    /// The language model: a prompt, then token after token.
    Lm,
    /// Encoder and causal former, on one picture.
    Vision,
    /// A denoising step.
    Image,
    /// Our GPU kernels one by one, beside the fastest copy and the fastest product of matrices. Takes no model, and any
    /// adapter: a software one where there is no other.
    Kernels,
}

/// `emu eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What to measure.
    #[arg(value_enum)]
    pub task: EvalTask,
    /// Folder of a split: scenes for caption and vqa, few-shot documents, requests to draw.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Samples at most.
    #[arg(long, default_value_t = 500, value_parser = positive)]
    pub limit: usize,
    /// For agree: the pack whose answers are taken as right.
    #[arg(long, value_name = "PACK")]
    pub against: Option<PathBuf>,
    /// For draw: the run of the judge.
    #[arg(long, value_name = "RUN")]
    pub judge: Option<PathBuf>,
    /// For draw: where a contact sheet of the drawings goes.
    #[arg(long, value_name = "PNG")]
    pub sheet: Option<PathBuf>,
}

/// Tasks of `emu eval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EvalTask {
    /// Captions of scenes.
    Caption,
    /// Questions about scenes, and captions.
    Vqa,
    /// Whether the most likely next token is that of another pack, over captions and questions of scenes.
    Agree,
    /// Completion of few-shot documents, against the last picture alone.
    Fewshot,
    /// Whether a picture begins, unprompted, after a request to draw.
    Follow,
    /// Drawings of requests, judged by a classifier.
    Draw,
}

/// What every command that runs a model takes.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Folder of the pack, or smol for the assembled emu-smol; the built-in emu-mini without it. `chat` also takes a language
    /// model as a GGUF file.
    #[arg(long, value_name = "PACK")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Decides everything that is random.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Where to compute.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// auto: a hardware GPU if there is one, else the CPU; gpu: any adapter, a software one too; cpu; or one of `emu devices`
    /// by its number, as gpu:1, or by a part of its name.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl DeviceArgs {
    /// What was asked for.
    pub fn choice(&self) -> DeviceChoice {
        self.device.clone()
    }
}

/// How tokens are chosen.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Beams of a search; 1 takes one token after the other.
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub beams: usize,
    /// Tokens at most.
    #[arg(long, default_value_t = 128, value_parser = positive)]
    pub max_new_tokens: usize,
    /// 0 takes the most likely token; above it, chance.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Only the most likely tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Only this many of the most likely tokens; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Above 1 makes tokens that were used before less likely; as the model wants it, or 1.
    #[arg(long, allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// No sequence of so many tokens twice; 0 for no ban.
    #[arg(long, default_value_t = 0)]
    pub no_repeat_ngram: usize,
    /// Exponent of the length in a beam's score; below 0 favours short answers.
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub length_penalty: f32,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number of at least 1".into()),
        Ok(n) => Ok(n),
    }
}

/// `emu chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A picture; <image> marks in the prompt are filled in order, with none the pictures come first. \<image> is no mark
    /// but these letters.
    #[arg(long, value_name = "P")]
    pub image: Vec<PathBuf>,
    /// A video (MP4, GIF, WebP, or a folder of frames; others through an ffmpeg on the PATH); <video> marks likewise.
    #[arg(long, value_name = "P")]
    pub video: Vec<PathBuf>,
    /// Put before everything, in place of the model's own.
    #[arg(long)]
    pub system: Option<String>,
    /// Where pictures that the model draws in its answer go; without it, it does not draw.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub text: TextArgs,
    /// What to say. Without it, a conversation: one line is one turn.
    pub prompt: Option<String>,
}

/// `emu caption`
#[derive(Debug, Args)]
pub struct CaptionArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Pictures.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
}

/// `emu imagine`
#[derive(Debug, Args)]
pub struct ImagineArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The PNG to write.
    #[arg(short, long, value_name = "OUT.png")]
    pub out: PathBuf,
    /// A picture; <image> marks in the prompt are filled in order, with none the pictures come first. \<image> is no mark
    /// but these letters.
    #[arg(long, value_name = "P")]
    pub image: Vec<PathBuf>,
    /// Steps of the sampler.
    #[arg(long, value_parser = positive)]
    pub steps: Option<usize>,
    /// The sampler.
    #[arg(long, value_enum)]
    pub scheduler: Option<SchedulerName>,
    /// How closely to follow the prompt; 1 follows it without contrast, at half the price.
    #[arg(long, allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// What the picture should not be.
    #[arg(long)]
    pub negative: Option<String>,
    /// Width and height in pixels, as 512x512.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: Option<(usize, usize)>,
    /// Also write the picture as it is after each step, into this folder; blurred where the pack has a safety checker, which
    /// sees the finished picture only.
    #[arg(long, value_name = "DIR")]
    pub previews: Option<PathBuf>,
    /// What to draw.
    pub prompt: String,
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once(['x', 'X'])
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed.ok_or_else(|| "give width and height as 512x512".into())
}

/// `--scheduler`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchedulerName {
    /// The released one.
    Pndm,
    /// Deterministic, one evaluation a step.
    Ddim,
    /// Second-order multistep; good in few steps.
    #[value(name = "dpm++")]
    DpmSolver,
}

impl From<SchedulerName> for SchedulerKind {
    fn from(name: SchedulerName) -> Self {
        match name {
            SchedulerName::Pndm => Self::Pndm,
            SchedulerName::Ddim => Self::Ddim,
            SchedulerName::DpmSolver => Self::DpmSolver,
        }
    }
}

/// `emu convert`
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A folder of published parts, a file of Emu's weights (PyTorch or safetensors), the folder of a training run, or
    /// another pack.
    pub source: PathBuf,
    /// The pack to write.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// none, f16, q8, q4, or a TOML file with a precision for each tensor.
    #[arg(long, default_value = "none")]
    pub quantize: String,
    /// Bytes of a shard at most, as 32MiB.
    #[arg(long, default_value = "32MiB", value_parser = bytes)]
    pub max_shard: u64,
    /// Emu's configuration, where it is not beside the weights.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of LLaMA's configuration and tokenizer, where it is not beside the weights.
    #[arg(long, value_name = "DIR")]
    pub llama: Option<PathBuf>,
    /// The tokenizer.json of the training data, where the source is a run.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// The folder with unet, vae and scheduler, where it is not the source; for a training run the run of the decoder, or a pack to
    /// take the decoder from.
    #[arg(long, value_name = "DIR")]
    pub decoder: Option<PathBuf>,
    /// Leave out everything that draws.
    #[arg(long)]
    pub no_decoder: bool,
    /// Name of the model; that of the source without it.
    #[arg(long)]
    pub name: Option<String>,
    /// Licence of the weights; that of the source, if it is a pack, without it.
    #[arg(long)]
    pub license: Option<String>,
    /// Whom to credit; as the source says, if it is a pack, without it.
    #[arg(long)]
    pub attribution: Option<String>,
    /// Where a table of every tensor's error goes, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    pub errors: Option<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "give a size as 32MiB, 100MB or a number of bytes".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(factor)
        .filter(|n| *n > 0)
        .ok_or_else(wrong)
}

/// `emu inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The pack, or smol; the built-in emu-mini without it.
    pub pack: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Check every byte of it too.
    #[arg(long)]
    pub verify: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu parity`
#[derive(Debug, Args)]
pub struct ParityArgs {
    /// A folder laid out like the reference; with --against, a pack.
    pub folder: PathBuf,
    /// The checkpoint that the pack came from, or another pack of the same model.
    #[arg(long, value_name = "SRC")]
    pub against: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu train`
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The stage as a TOML file.
    pub config: PathBuf,
    /// Go on from the newest checkpoint of the run's folder.
    #[arg(long)]
    pub resume: bool,
    /// The run's folder, in place of the configuration's.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Lines in place of the dashboard.
    #[arg(long)]
    pub plain: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu data`
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Which data set.
    #[command(subcommand)]
    pub builder: Builder,
}

/// The data sets that can be built.
#[derive(Debug, Subcommand)]
pub enum Builder {
    /// Scenes composed of emoji drawings, with captions, questions and documents.
    Emoji(EmojiArgs),
    /// A checkpoint of random weights with the keys, shapes and types of the released model, for trying conversions.
    #[command(hide = true)]
    Checkpoint(CheckpointArgs),
}

/// `emu data checkpoint`
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// The folder to write; it must not exist.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder with keys-emu-14b.json, keys-sd15-unet.json, keys-sd15-vae.json and keys-safety-checker.json.
    #[arg(long, value_name = "DIR", default_value = "tests/fixtures/reference")]
    pub keys: PathBuf,
    /// Layers of encoder, causal former and language model at most.
    #[arg(long, value_parser = positive)]
    pub layers: Option<usize>,
    /// Leave out everything that draws.
    #[arg(long)]
    pub no_decoder: bool,
    /// The weights follow from this.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu data emoji`
#[derive(Debug, Args)]
pub struct EmojiArgs {
    /// Where the data go.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where the drawings' packages are kept between builds.
    #[arg(long, value_name = "DIR", default_value = "target/emoji-sources")]
    pub sources: PathBuf,
    /// A TOML file with what differs from the default: sizes and counts.
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// Another list of concepts than the shipped one.
    #[arg(long, value_name = "FILE")]
    pub concepts: Option<PathBuf>,
    /// Everything that is random follows from this.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Replace a finished data set.
    #[arg(long)]
    pub overwrite: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_refused() {
        assert_eq!(bytes("32MiB"), Ok(32 << 20));
        assert_eq!(bytes("1000"), Ok(1000));
        assert_eq!(bytes("2 GB"), Ok(2_000_000_000));
        for wrong in [
            "",
            "MiB",
            "0",
            "3 furlongs",
            "99999999999999999999",
            "99999999999GiB",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(size("64x32"), Ok((64, 32)));
        for wrong in ["64", "x", "64x", "-1x3"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert!(positive("0").is_err() && positive("-1").is_err());
        assert_eq!(threads("1"), Ok(1));
        for wrong in ["0", "-1", "1025", "all", ""] {
            assert!(threads(wrong).is_err(), "{wrong}");
        }
    }
}
