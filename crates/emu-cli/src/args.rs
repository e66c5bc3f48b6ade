//! Command-line arguments.

mod publish;
mod report;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use emu_eval::tasks::{Figure, Measured, Task};
use emu_kernels::device::DeviceChoice;
use emu_model::diffusion::SchedulerKind;

pub use crate::assemble::AssembleArgs;
use crate::data::build::{DocumentsArgs, InstructArgs, PairsArgs, StoryboardsArgs, VideosArgs};
use crate::data::show::ShowArgs;
pub use crate::part::PartArgs;
use crate::values::{bias, positive};
pub use publish::PublishArgs;
pub use report::ReportArgs;

/// Emu in Rust: a model that reads pictures and text in any order and answers with both.
#[derive(Debug, Parser)]
#[command(name = "emu", version, about)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Number of CPU compute threads; default: all that the machine has.
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
}

/// Upper bound of `--threads`: a larger number is a mistake.
const MAX_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..=MAX_THREADS) => Ok(n),
        _ => Err(format!(
            "give a whole number from 1 to {MAX_THREADS}, at best no more than there are processors"
        )),
    }
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer a prompt that may contain pictures; without a prompt, start a conversation.
    Chat(ChatArgs),
    /// Caption pictures, one line each.
    Caption(CaptionArgs),
    /// Draw a picture from a prompt of text and pictures.
    Imagine(ImagineArgs),
    /// Convert a published checkpoint into a pack.
    Convert(ConvertArgs),
    /// Assemble a model with vision from a language model, an encoder and classification heads.
    Assemble(AssembleArgs),
    /// Export the weights of a training run in 16 bits, without optimizer state, as input of `assemble`.
    Part(PartArgs),
    /// Write a folder with card, licence, pack and page, as hubs and static hosts want it.
    Publish(PublishArgs),
    /// Show what a pack or checkpoint contains, and what converting and running it takes on this machine, without fetching it.
    Inspect(InspectArgs),
    /// Compare with the reference implementation's outputs, or a pack with its checkpoint.
    Parity(ParityArgs),
    /// Train a stage.
    Train(TrainArgs),
    /// Write a page of a training run, or of two: curves, figures, samples, settings.
    Report(ReportArgs),
    /// Build training data.
    Data(DataArgs),
    /// Evaluate a model on held-out data.
    Eval(EvalArgs),
    /// Benchmark a model on this machine: counts and times.
    Bench(BenchArgs),
    /// List the compute devices of this machine.
    Devices(DevicesArgs),
    /// Fetch a model from the Hugging Face Hub: resumable, verified, into the hub's cache.
    Fetch(FetchArgs),
    /// Serve a model over HTTP, in the shape of OpenAI's API.
    Serve(ServeArgs),
}

/// `emu fetch`
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// What to fetch: hf://OWNER/NAME[@REVISION][/PATH].
    pub address: String,
    /// Folder for the files; by default they stay in the hub's cache.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only files that match this pattern, instead of what a conversion or a run needs. Repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// No files that match this pattern. Repeatable.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `emu serve`. Keys of clients are in the environment variable EMU_API_KEY, separated by commas.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Address to listen on. Any other than that of this machine needs a key in EMU_API_KEY.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub port: u16,
    /// Name of the model for clients; default: the pack's.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Maximum number of waiting calls; further ones are told to come back later.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    pub queue: usize,
    /// Fetch pictures that clients name by http or https addresses of the public network.
    #[arg(long)]
    pub fetch: bool,
    /// Also serve the page in this folder, with the pack at model/.
    #[arg(long, value_name = "DIR")]
    pub page: Option<PathBuf>,
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
    /// For lm: prompt length in tokens.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub prompt: usize,
    /// For lm: minimum number of tokens to decode.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub tokens: usize,
    /// For lm: beams of an additional beam search benchmark; 0 skips it.
    #[arg(long, default_value_t = 5)]
    pub beams: usize,
    /// For image: denoising steps.
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub steps: usize,
    /// For kernels: skip the largest shapes; takes under a minute on a software adapter.
    #[arg(long)]
    pub quick: bool,
    /// For kernels: only kernels whose name contains this.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub kernel: String,
}

/// Parts of a model that `emu bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchPart {
    /// The language model: prefill and decoding.
    Lm,
    /// Encoder and causal former, on one picture.
    Vision,
    /// One denoising step.
    Image,
    /// The GPU kernels one by one, next to the fastest copy and the fastest matrix product. Takes no model. Runs on any
    /// adapter, a software adapter if there is no other.
    Kernels,
}

/// `emu eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[arg(value_parser = eval_task, help = eval_help())]
    pub task: EvalTask,
    /// Folder of the data; the same as --data.
    #[arg(
        value_name = "DIR",
        conflicts_with = "data",
        required_unless_present = "data"
    )]
    pub folder: Option<PathBuf>,
    /// Folder of the data: a split of this project (scenes, few-shot documents or drawing requests), or the files of a task as
    /// they are downloaded.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Maximum number of samples or questions; default: 500 of this project's splits, all of a task.
    #[arg(long, value_parser = positive)]
    pub limit: Option<usize>,
    /// For agree: the pack that serves as reference. For frechet: the pictures, or file of features, to compare with.
    #[arg(long, value_name = "PATH")]
    pub against: Option<PathBuf>,
    /// For draw: the training run of the judge.
    #[arg(long, value_name = "RUN")]
    pub judge: Option<PathBuf>,
    /// For draw: write a contact sheet of the drawings to this file.
    #[arg(long, value_name = "PNG")]
    pub sheet: Option<PathBuf>,
    /// Folder for answers, submission file, result and report. An interrupted run of a task continues there.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Prompts and decoding: emu, emu-i, pack, or a TOML file.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "pack",
        help_heading = "The paper's tasks"
    )]
    pub preset: String,
    /// Number of few-shot examples.
    #[arg(
        long,
        value_name = "K",
        default_value_t = 0,
        help_heading = "The paper's tasks"
    )]
    pub shots: usize,
    /// Examples without their pictures.
    #[arg(long, help_heading = "The paper's tasks")]
    pub text_only: bool,
    /// The split; default: the one that the paper reports.
    #[arg(long, value_name = "NAME", help_heading = "The paper's tasks")]
    pub split: Option<String>,
    /// Folder of the annotation files, if they are elsewhere.
    #[arg(long, value_name = "DIR", help_heading = "The paper's tasks")]
    pub annotations: Option<PathBuf>,
    /// Folder of the pictures or videos, if they are elsewhere.
    #[arg(long, value_name = "DIR", help_heading = "The paper's tasks")]
    pub images: Option<PathBuf>,
    /// For visdial: only the rounds with dense relevance.
    #[arg(long, help_heading = "The paper's tasks")]
    pub dense: bool,
    /// File with features of the pictures, for the choice of similar examples; default: the model's own.
    #[arg(long, value_name = "FILE", help_heading = "The paper's tasks")]
    pub features: Option<PathBuf>,
    /// Folder of the index of features, to share it between runs.
    #[arg(long, value_name = "DIR", help_heading = "The paper's tasks")]
    pub index: Option<PathBuf>,
    /// For captions: meteor-1.5.jar, to have METEOR computed by Java; default: EMU_METEOR_JAR.
    #[arg(long, value_name = "JAR", help_heading = "The paper's tasks")]
    pub meteor_jar: Option<PathBuf>,
    /// For nextqa: folder of WordNet's database, to have WUPS computed; default: EMU_WORDNET.
    #[arg(long, value_name = "DIR", help_heading = "The paper's tasks")]
    pub wordnet: Option<PathBuf>,
    #[command(flatten)]
    pub judged: JudgeArgs,
}

/// Who grades the answers to MM-Vet.
#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// For mmvet: a program and its arguments, separated by spaces. It gets each answer as a line of JSON and writes a number
    /// from 0 to 1.
    #[arg(
        long,
        value_name = "PROGRAM",
        conflicts_with = "judge_url",
        help_heading = "The judge"
    )]
    pub judge_command: Option<String>,
    /// For mmvet: an address in the shape of OpenAI's API, such as https://api.openai.com/v1. Its key is taken from
    /// EMU_JUDGE_KEY.
    #[arg(long, value_name = "URL", help_heading = "The judge")]
    pub judge_url: Option<String>,
    /// Name of the model at that address.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "gpt-4-0613",
        help_heading = "The judge"
    )]
    pub judge_model: String,
    /// A file with another prompt for it, such as the official one, with the places {question}, {answer} (the truth) and
    /// {prediction}.
    #[arg(long, value_name = "FILE", help_heading = "The judge")]
    pub judge_prompt: Option<PathBuf>,
    /// How often every answer is graded; officially five times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive, help_heading = "The judge")]
    pub judge_runs: usize,
    /// Longest reply of the model, in tokens.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive, help_heading = "The judge")]
    pub judge_tokens: usize,
    /// Time for one reply, in seconds.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..), help_heading = "The judge")]
    pub judge_seconds: u64,
}

/// What `emu eval` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalTask {
    /// The scorers against recorded results of the original programs.
    Score,
    /// A measurement, which ends in a result.
    Measured(Measured),
}

/// Name of [`EvalTask::Score`].
const SCORE: &str = "score";

fn eval_task(name: &str) -> Result<EvalTask, String> {
    match name {
        SCORE => Ok(EvalTask::Score),
        name => match Measured::from_name(name) {
            Ok(measured) => Ok(EvalTask::Measured(measured)),
            Err(error) => Err(format!("{error}; and {SCORE}")),
        },
    }
}

/// Help about the tasks, with the names that exist.
fn eval_help() -> String {
    let figures = Figure::ALL.map(Figure::name).join(", ");
    let tasks = Task::ALL.map(Task::name).join(", ");
    format!(
        "What to measure. On this project's own splits: {figures}. From official files, or a table of your own: {tasks} \
         (docs/evaluation.md). Of two sets of pictures or features: {}. {SCORE}: the scorers themselves, against recorded results",
        Measured::Frechet
    )
}

/// Arguments of every command that runs a model.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Pack folder, or smol for the assembled emu-smol; default: the built-in emu-mini. `chat` also takes a language model as a
    /// GGUF file.
    #[arg(long, value_name = "PACK")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
    /// Random seed.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Device selection.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// auto: a hardware GPU if there is one, else the CPU; gpu: any adapter, including a software adapter; cpu; or an entry of
    /// `emu devices`, by number (gpu:1) or by part of its name.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl DeviceArgs {
    /// The requested device.
    pub fn choice(&self) -> DeviceChoice {
        self.device.clone()
    }
}

/// Sampling and beam search.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Number of beams; 1 decodes token by token without beam search.
    #[arg(long, default_value_t = 1, value_parser = positive)]
    pub beams: usize,
    /// Maximum number of new tokens.
    #[arg(long, default_value_t = 128, value_parser = positive)]
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 takes the most likely token.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Nucleus sampling: only the most likely tokens whose probabilities sum to this.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Only this many of the most likely tokens; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Only tokens that are at least this likely in relation to the most likely one; 0 for all.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Penalty on tokens that already occurred, above 1; default: the model's, else 1.
    #[arg(long, allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Subtracted once from the logit of each token of the answer so far, from -2 to 2.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Subtracted from the logit of each token of the answer so far, as many times as it occurs, from -2 to 2.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Added to the logit of a token, from -100 to 100, repeatable.
    #[arg(long, value_name = "ID=VALUE", value_parser = bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Text at which the answer ends, repeatable. Nothing of it is printed.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Forbid repeated n-grams of this many tokens; 0 disables this.
    #[arg(long, default_value_t = 0)]
    pub no_repeat_ngram: usize,
    /// Exponent of the length in a beam's score; below 0 favours short answers.
    #[arg(long, default_value_t = -1.0, allow_negative_numbers = true)]
    pub length_penalty: f32,
}

fn setting(text: &str) -> Result<emu_train::Setting, String> {
    text.parse()
}

/// `emu chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A picture, repeatable. Pictures fill the <image> marks of the prompt in order; without marks they come before it.
    /// \<image> is literal text, not a mark.
    #[arg(long, value_name = "P")]
    pub image: Vec<PathBuf>,
    /// A video (MP4, GIF, WebP or a folder of frames; other formats need ffmpeg on the PATH); fills <video> marks likewise.
    #[arg(long, value_name = "P")]
    pub video: Vec<PathBuf>,
    /// System message; default: the model's own.
    #[arg(long)]
    pub system: Option<String>,
    /// Folder for pictures that the model draws in its answer; those that are there stay. Without it, the model does not draw.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub text: TextArgs,
    /// With --json: the log-probability of each token, and those of this many of the most likely ones, at most 20. The logits of
    /// each token are then read back from the device.
    #[arg(long, value_name = "N", requires = "json")]
    pub logprobs: Option<usize>,
    /// Number of answers to the prompt, with consecutive seeds.
    #[arg(short, value_name = "N", default_value_t = 1, value_parser = positive, requires = "prompt")]
    pub n: usize,
    /// The prompt. Without it, a conversation: each input line is one turn.
    pub prompt: Option<String>,
}

/// `emu caption`
#[derive(Debug, Args)]
pub struct CaptionArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub text: TextArgs,
    /// Append a line of JSON per picture to this file. A run that was interrupted continues there; pictures that cannot be read
    /// are listed, and tried again by the next run.
    #[arg(short, long, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
    /// Also the pictures in folders of a folder.
    #[arg(short, long)]
    pub recursive: bool,
    /// Pictures, and folders of pictures.
    #[arg(required = true, value_name = "IMAGE|DIR")]
    pub images: Vec<PathBuf>,
}

/// `emu imagine`
#[derive(Debug, Args)]
pub struct ImagineArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The PNG to write; with --count, OUT-0001.png and so on.
    #[arg(short, long, value_name = "OUT.png")]
    pub out: PathBuf,
    /// Number of pictures, with the seeds SEED, SEED + 1 and so on. Each equals the one that its seed gives alone.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    pub count: usize,
    /// A picture, repeatable. Pictures fill the <image> marks of the prompt in order; without marks they come before it.
    /// \<image> is literal text, not a mark.
    #[arg(long, value_name = "P")]
    pub image: Vec<PathBuf>,
    /// Number of denoising steps.
    #[arg(long, value_parser = positive)]
    pub steps: Option<usize>,
    /// The sampler.
    #[arg(long, value_enum)]
    pub scheduler: Option<SchedulerName>,
    /// Classifier-free guidance scale; 1 disables guidance and halves the cost.
    #[arg(long, allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// Negative prompt: what the picture should not show.
    #[arg(long)]
    pub negative: Option<String>,
    /// Width and height in pixels, as 512x512.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub size: Option<(usize, usize)>,
    /// Also write a preview after each step into this folder, with --count into a folder of it for each picture. Previews are blurred if the pack has a safety checker, which only
    /// checks the finished picture.
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
    /// PNDM, the sampler of the released model.
    Pndm,
    /// DDIM: deterministic, one UNet evaluation per step.
    Ddim,
    /// DPM-Solver++: second-order multistep; good in few steps.
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
    /// A folder of published components, a file of Emu's weights (PyTorch or safetensors), the folder of a training run,
    /// another pack, or an address of the Hugging Face Hub (hf://OWNER/NAME[@REVISION][/PATH]).
    pub source: PathBuf,
    /// The pack to write.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Precision: none, f16, q8, q4, or a TOML file with a precision per tensor.
    #[arg(long, default_value = "none")]
    pub quantize: String,
    /// Maximum size of a shard, e.g. 32MiB.
    #[arg(long, default_value = "32MiB", value_parser = bytes)]
    pub max_shard: u64,
    /// Emu's configuration, if it is not next to the weights.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of LLaMA's configuration and tokenizer, if it is not next to the weights.
    #[arg(long, value_name = "DIR")]
    pub llama: Option<PathBuf>,
    /// For a training run: the tokenizer.json of its training data.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// The folder with unet, vae and scheduler, if it is not the source. For a training run: the run of the decoder, or a pack
    /// to take the decoder from.
    #[arg(long, value_name = "DIR")]
    pub decoder: Option<PathBuf>,
    /// Leave out the diffusion decoder and the safety checker.
    #[arg(long)]
    pub no_decoder: bool,
    /// For a pack: the training run whose LoRA adapters it gets.
    #[arg(long, value_name = "RUN")]
    pub adapter: Option<PathBuf>,
    /// Of the training run (of --adapter, if given), take the checkpoint that it kept as the best instead of the newest.
    #[arg(long)]
    pub best: bool,
    /// For a training run or a pack: add the LoRA adapters to the weights that they adapt. The model is then as large and as fast
    /// as without them.
    #[arg(long)]
    pub merge: bool,
    /// Name of the model; default: that of the source.
    #[arg(long)]
    pub name: Option<String>,
    /// Licence of the weights; default: that of the source, if it is a pack.
    #[arg(long)]
    pub license: Option<String>,
    /// Attribution; default: that of the source, if it is a pack.
    #[arg(long)]
    pub attribution: Option<String>,
    /// Write the quantization error of every tensor to this file, one JSON object per line.
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
    /// The folder of a pack, smol, a published checkpoint, or an address of the Hugging Face Hub, of which only headers and
    /// configurations are read; default: the built-in emu-mini.
    #[arg(value_name = "SRC")]
    pub source: Option<PathBuf>,
    /// For a checkpoint: Emu's configuration, if it is not next to the weights.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// For a checkpoint: the folder of LLaMA's configuration and tokenizer, if it is not next to the weights.
    #[arg(long, value_name = "DIR")]
    pub llama: Option<PathBuf>,
    /// For a checkpoint: leave out the diffusion decoder and the safety checker.
    #[arg(long)]
    pub no_decoder: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// For a pack: also verify the checksums of all files.
    #[arg(long)]
    pub verify: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu parity`
#[derive(Debug, Args)]
pub struct ParityArgs {
    /// A folder in the layout of the reference fixtures; with --against, a pack.
    pub folder: PathBuf,
    /// The checkpoint that the pack was converted from, or another pack of the same model.
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
    /// TOML file of the stage.
    pub config: PathBuf,
    /// Resume from the newest checkpoint in the run's folder.
    #[arg(long)]
    pub resume: bool,
    /// The run's folder; overrides the configuration.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override a value of the configuration, for example optimiser.lr=1e-4 or data[0].path=shards. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<emu_train::Setting>,
    /// Check configuration, data and device: make three steps, report memory and time, write nothing.
    #[arg(long, conflicts_with = "resume")]
    pub check: bool,
    /// Compute what the run needs from its configuration, without its data and without allocating it: weights, gradients, moments
    /// and activations of pretrain, instruct and decoder, and what would fit.
    #[arg(long, conflicts_with_all = ["resume", "check"])]
    pub dry_run: bool,
    /// For --dry-run: the memory that it has to fit, e.g. 80GB; default: what is free here.
    #[arg(long, value_name = "SIZE", value_parser = bytes, requires = "dry_run")]
    pub memory: Option<u64>,
    /// Print lines instead of the dashboard.
    #[arg(long)]
    pub plain: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu data`
#[derive(Debug, Args)]
pub struct DataArgs {
    /// The data set.
    #[command(subcommand)]
    pub builder: Builder,
}

/// Data sets that can be built.
#[derive(Debug, Subcommand)]
pub enum Builder {
    /// Pictures with captions: img2dataset, COCO, tables, folders, parquet.
    Pairs(PairsArgs),
    /// Interleaved documents: MMC4, OBELICS.
    Documents(DocumentsArgs),
    /// Videos with captions: WebVid, video2dataset, tables, folders.
    Videos(VideosArgs),
    /// Videos with subtitles: thumbnail sheets, frames, MP4.
    Storyboards(StoryboardsArgs),
    /// Conversations: LLaVA, ShareGPT, Alpaca, Video-ChatGPT, messages.
    Instruct(InstructArgs),
    /// Print samples of a shard.
    Show(ShowArgs),
    /// Scenes composed of emoji drawings, with captions, questions and documents.
    Emoji(EmojiArgs),
    /// A checkpoint of random weights with the keys, shapes and types of the released model, for testing conversions.
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
    /// Maximum number of layers of encoder, causal former and language model each.
    #[arg(long, value_parser = positive)]
    pub layers: Option<usize>,
    /// Leave out the diffusion decoder and the safety checker.
    #[arg(long)]
    pub no_decoder: bool,
    /// Random seed of the weights.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// `emu data emoji`
#[derive(Debug, Args)]
pub struct EmojiArgs {
    /// Output folder.
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Cache folder for the downloaded packages of drawings.
    #[arg(long, value_name = "DIR", default_value = "target/emoji-sources")]
    pub sources: PathBuf,
    /// A TOML file that overrides the default sizes and counts.
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,
    /// A list of concepts to use instead of the shipped one.
    #[arg(long, value_name = "FILE")]
    pub concepts: Option<PathBuf>,
    /// Random seed.
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
