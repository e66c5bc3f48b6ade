//! `emu bench`: the cost of running a model, as counts that are the same on any machine and as times of this machine.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use emu_kernels::burn::tensor::{Device, Tensor, read_sync};
use emu_kernels::count::{self, Launches, LiveBytes};
use emu_kernels::device::{Opened, open, runs_behind};
use emu_kernels::packed::keeps_halves;
use emu_kernels::random::{Philox, Stream};
use emu_model::config::LmConfig;
use emu_model::diffusion::{Denoise, DrawOptions, Preview};
use emu_model::generate::{
    BeamOptions, BeamSearch, GenerateError, Prompt, TextEvent, TextMachine, TextOptions,
};
use emu_model::lm::Lm;
use emu_model::pack::{DECODER, VISION};
use emu_model::text::TextModel;
use emu_pack::Manifest;
use emu_pack::convert::GgufFile;
use serde_json::{Value, json};

use crate::args::{BenchArgs, BenchPart};
use crate::output::{json_line, print_now, spinner};
use crate::runtime::Runtime;
use bandwidth::copy_bandwidth;

mod bandwidth;
mod kernels;

/// Benchmarks a part of a model, or the kernels.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.part == BenchPart::Kernels {
        return kernels::run(args);
    }
    let alone = { args.model.model.as_deref() }.filter(|path| GgufFile::is_one(path));
    let (name, found) = match (args.part, alone) {
        (BenchPart::Lm, Some(path)) => ("lm", alone_lm(path, args)?),
        (_, Some(_)) => {
            bail!("This is a language model alone. Measure lm, or name a pack with --model.")
        }
        (part, None) => {
            let runtime = Runtime::open(&args.model)?;
            match part {
                BenchPart::Lm => ("lm", pack_lm(&runtime, args)?),
                BenchPart::Vision => ("vision", vision(&runtime)?),
                BenchPart::Image | BenchPart::Kernels => ("image", image(&runtime, args)?),
            }
        }
    };
    if args.model.json {
        return json_line(&json!({ name: found }));
    }
    for (what, value) in found.as_object().into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(n) if n.is_f64() => format!("{:.3}", n.as_f64().unwrap_or_default()),
            Value::Object(kernels) => {
                let list = kernels.iter().map(|(k, n)| format!("\n    {n:>7}  {k}"));
                list.collect()
            }
            other => other.to_string(),
        };
        print_now(&format!("{:<28} {value}\n", what.replace('_', " ")))?;
    }
    Ok(())
}

/// Snapshot of the clock and the counters.
struct Mark {
    time: Instant,
    launches: u64,
    submits: Option<u64>,
    weights: u64,
    reads: (u64, u64),
}

/// Difference of two snapshots.
#[derive(Default)]
struct Spent {
    seconds: f64,
    launches: f64,
    submits: Option<f64>,
    weights: f64,
    reads: f64,
    read_bytes: f64,
}

impl Spent {
    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.launches += other.launches;
        self.submits = self
            .submits
            .map_or(other.submits, |a| Some(a + other.submits?));
        self.weights += other.weights;
        self.reads += other.reads;
        self.read_bytes += other.read_bytes;
    }
}

impl Mark {
    /// Takes a snapshot after the device has finished all pending work.
    fn now(device: &Device, launches: &Launches) -> Result<Self> {
        if let Err(error) = device.sync() {
            bail!("The device failed: {error}. Try again, or use --device cpu.");
        }
        count::flushed();
        Ok(Self {
            submits: runs_behind(device).then(|| launches.meter().submits()),
            ..Self::counts(launches)
        })
    }

    /// Takes a snapshot of the work requested so far, without waiting for the device.
    fn counts(launches: &Launches) -> Self {
        Self {
            submits: None,
            launches: launches.total(),
            weights: launches.meter().weight_bytes(),
            reads: launches.meter().reads(),
            time: Instant::now(),
        }
    }

    /// Difference to an earlier snapshot.
    fn since(&self, earlier: &Self) -> Spent {
        let submits = self.submits.zip(earlier.submits);
        Spent {
            seconds: self.time.duration_since(earlier.time).as_secs_f64(),
            launches: (self.launches - earlier.launches) as f64,
            submits: submits.map(|(a, b)| (a - b) as f64),
            weights: (self.weights - earlier.weights) as f64,
            reads: (self.reads.0 - earlier.reads.0) as f64,
            read_bytes: (self.reads.1 - earlier.reads.1) as f64,
        }
    }
}

/// Number of launches since `before`, by the kernel's short name.
fn kernels(launches: &Launches, before: &std::collections::BTreeMap<&'static str, u64>) -> Value {
    let mut list = serde_json::Map::new();
    for (name, count) in launches.by_kernel() {
        let new = count - before.get(name).copied().unwrap_or(0);
        if new > 0 {
            let short = name.split('<').next().unwrap_or(name);
            let short = short.rsplit("::").next().unwrap_or(short);
            let sum = list.get(short).and_then(Value::as_u64).unwrap_or(0) + new;
            list.insert(short.to_owned(), sum.into());
        }
    }
    Value::Object(list)
}

/// Bytes of tensors and of the runtime's memory pools; `None` where the device does not report them.
#[derive(Default)]
struct Memory {
    /// In use between two runs.
    resting: Option<u64>,
    /// Peak use during a run: the resting bytes plus the largest set of intermediate results.
    live: Option<u64>,
    /// Reserved by the pools, which is the peak over all runs so far.
    peak: Option<u64>,
}

impl Memory {
    /// Memory of `again`, which is run once.
    fn of(device: &Device, again: impl FnOnce() -> Result<()>) -> Result<Self> {
        let Some(resting) = device.memory_pool_usage() else {
            return Ok(Self::default());
        };
        let live = LiveBytes::watch(device);
        again()?;
        Ok(Self {
            resting: Some(resting.bytes_in_use),
            live: Some(live.most()),
            peak: device.memory_pool_usage().map(|usage| usage.bytes_reserved),
        })
    }
}

/// A language model, with functions that start generation and beam search.
struct Speaker<'a> {
    lm: &'a Lm,
    config: &'a LmConfig,
    bos: u32,
    /// Number of text token ids: ids below this are text.
    text: u32,
    opened: &'a Opened,
    start: &'a dyn Fn(&Prompt, TextOptions) -> Result<TextMachine<'a>, GenerateError>,
    search: &'a dyn Fn(&Prompt, BeamOptions) -> Result<BeamSearch<'a>, GenerateError>,
}

fn pack_lm(runtime: &Runtime, args: &BenchArgs) -> Result<Value> {
    let (emu, config) = (runtime.emu()?, runtime.emu_config());
    let speaker = Speaker {
        lm: &emu.lm,
        config: &config.lm,
        bos: config.special.bos,
        text: config.special.img,
        opened: &runtime.opened,
        start: &|prompt, options| TextMachine::new(emu, config, prompt, options),
        search: &|prompt, options| BeamSearch::new(emu, config, prompt, options),
    };
    lm(&speaker, args)
}

fn alone_lm(path: &Path, args: &BenchArgs) -> Result<Value> {
    let opened = open(args.model.device.choice())?;
    let file = GgufFile::open(path)?;
    let model = TextModel::from_gguf(file.metadata(), &file, &opened.device)?;
    let speaker = Speaker {
        lm: &model.lm,
        config: &model.config.lm,
        bos: model.config.bos.unwrap_or_default(),
        text: model.config.lm.vocab as u32,
        opened: &opened,
        start: &|prompt, options| model.generate(prompt, options),
        search: &|prompt, options| model.search(prompt, options),
    };
    lm(&speaker, args)
}

fn lm(speaker: &Speaker, args: &BenchArgs) -> Result<Value> {
    let (config, device) = (speaker.config, &speaker.opened.device);
    let waiting = spinner("measuring");
    let length = args.prompt.min(config.context / 2);
    let options = TextOptions {
        max_new_tokens: (args.tokens + 2).min(config.context - length - 1),
        ignore_ends: true,
        ..Default::default()
    };
    let mut random = Philox::new(args.model.seed, Stream::Tokens, 0);
    let mut prompt = || {
        let mut token = || (random.uniform() * speaker.text as f32) as u32;
        let mut ids = vec![speaker.bos];
        ids.extend((1..length).map(|_| token().max(3)));
        Prompt::text(ids)
    };
    // Warm-up: compiles the pipelines.
    let mut warm = (speaker.start)(&prompt(), options.clone())?;
    while !matches!(read_sync(warm.step())?, TextEvent::Done(_)) {}
    drop(warm);

    let launches = Launches::watch();
    let (mut prefill, mut decode) = (Spent::default(), Spent::default());
    let mut counted = Spent::default();
    let (mut prompts, mut tokens) = (0, 0);
    let mut by_kernel = Value::Null;
    // A model may end early, so new prompts are started until enough tokens are decoded.
    while tokens < args.tokens && prompts < 50 {
        let start = Mark::now(device, &launches)?;
        let mut machine = (speaker.start)(&prompt(), options.clone())?;
        prefill.add(&Mark::now(device, &launches)?.since(&start));
        // The first token comes from the prefill and needs no decoding step.
        read_sync(machine.step())?;
        let (first, before) = (Mark::now(device, &launches)?, launches.by_kernel());
        loop {
            let (counts, steps) = (Mark::counts(&launches), machine.cost().steps);
            let done = matches!(read_sync(machine.step())?, TextEvent::Done(_));
            // The last token of a prompt needs no decoding step either, so it would count for less than a full token.
            if machine.cost().steps > steps {
                counted.add(&Mark::counts(&launches).since(&counts));
                tokens += 1;
            }
            if done || tokens >= args.tokens {
                break;
            }
        }
        decode.add(&Mark::now(device, &launches)?.since(&first));
        by_kernel = kernels(&launches, &before);
        prompts += 1;
    }
    if tokens == 0 {
        bail!(
            "The model ended at once after every prompt, so that there is nothing to measure. Use another --seed."
        );
    }
    let per = |count: f64| count / tokens as f64;
    // Measured before the bandwidth copies, which are larger than the model.
    let memory = Memory::of(device, || {
        let mut machine = (speaker.start)(&prompt(), options.clone())?;
        while !matches!(read_sync(machine.step())?, TextEvent::Done(_)) {}
        Ok(())
    })?;
    let beams = match args.beams {
        0 => Value::Null,
        beams => search(speaker, &launches, &mut prompt, beams, args.tokens)?,
    };
    let bandwidth = copy_bandwidth(device)?;
    waiting.finish_and_clear();
    Ok(json!({
        "adapter": speaker.opened.name,
        "layers": config.layers,
        "launches_per_token": per(counted.launches),
        "submits_per_token": decode.submits.map(per),
        "readbacks_per_token": per(counted.reads),
        "readback_bytes_per_token": per(counted.read_bytes),
        "weight_bytes_per_token": per(counted.weights),
        "weight_bytes": speaker.lm.weight_bytes(),
        "prefill_tokens_per_s": (prompts * length) as f64 / prefill.seconds,
        "prefill_launches": prefill.launches / prompts as f64,
        "decode_tokens_per_s": tokens as f64 / decode.seconds,
        "copy_bandwidth_bytes_per_s": bandwidth,
        "copy_bandwidth_share": decode.weights / decode.seconds / bandwidth,
        "peak_bytes": memory.peak,
        "live_bytes": memory.live,
        "resting_bytes": memory.resting,
        "tokens": tokens,
        "prompts": prompts,
        "kernels_of_the_last_prompt": by_kernel,
        "beam_search": beams,
    }))
}

/// Benchmarks steps of beam search, over as many prompts as needed.
fn search(
    speaker: &Speaker,
    launches: &Launches,
    prompt: &mut dyn FnMut() -> Prompt,
    beams: usize,
    wanted: usize,
) -> Result<Value> {
    let options = BeamOptions {
        beams,
        ..Default::default()
    };
    let (mut spent, mut steps, mut prompts) = (Spent::default(), 0, 0);
    while steps < wanted && prompts < 50 {
        let mut search = (speaker.search)(&prompt(), options.clone())?;
        // Not counted: the first step of a search (from the prefill), its last call (no step), and the first search (warm-up).
        let mut counts = false;
        loop {
            let start = Mark::counts(launches);
            let goes_on = read_sync(search.step())?;
            if !goes_on {
                break;
            }
            if counts && prompts > 0 {
                spent.add(&Mark::counts(launches).since(&start));
                steps += 1;
            }
            counts = true;
        }
        prompts += 1;
    }
    let per = |count: f64| match steps {
        0 => Value::Null,
        steps => (count / steps as f64).into(),
    };
    Ok(json!({
        "beams": beams,
        "steps": steps,
        "launches_per_step": per(spent.launches),
        "readbacks_per_step": per(spent.reads),
        "readback_bytes_per_step": per(spent.read_bytes),
        "seconds_per_step": per(spent.seconds),
    }))
}

/// Bytes of a component's weights in device memory.
fn resident(manifest: &Manifest, component: &str, device: &Device) -> u64 {
    let halves = keeps_halves(device);
    let here = { manifest.tensors.iter() }.filter(|t| t.component == component);
    here.map(|t| manifest.resident_bytes(t, halves)).sum()
}

fn vision(runtime: &Runtime) -> Result<Value> {
    let (emu, config) = (runtime.emu()?, runtime.emu_config());
    let device = &runtime.opened.device;
    let side = config.vision.image_size;
    let look = || emu.embed_images(Tensor::zeros([1, 3, side, side], device));
    look();
    let launches = Launches::watch();
    let start = Mark::now(device, &launches)?;
    look();
    let spent = Mark::now(device, &launches)?.since(&start);
    let manifest = runtime.manifest();
    let resident = resident(manifest, VISION, device);
    let memory = Memory::of(device, || {
        look();
        Ok(())
    })?;
    Ok(json!({
        "adapter": runtime.opened.name,
        "seconds_per_picture": spent.seconds,
        "launches_per_picture": spent.launches,
        "submits_per_picture": spent.submits,
        "linear_weight_bytes_per_picture": spent.weights,
        "weight_bytes": resident,
        "peak_bytes": memory.peak,
        "live_bytes": memory.live,
        "resting_bytes": memory.resting,
        "kernels": kernels(&launches, &Default::default()),
    }))
}

fn image(runtime: &Runtime, args: &BenchArgs) -> Result<Value> {
    let (decoder, config) = runtime.decoder()?;
    let device = &runtime.opened.device;
    let condition = Tensor::zeros([1, config.tokens, config.unet.context_width], device);
    let options = DrawOptions::new(config, args.model.seed);
    let mut walk = Denoise::new(decoder, config, condition, None, &options)?;
    read_sync(walk.step(Preview::None))?;
    let launches = Launches::watch();
    let start = Mark::now(device, &launches)?;
    let steps = args.steps.min(walk.progress().1.saturating_sub(1)).max(1);
    for _ in 0..steps {
        read_sync(walk.step(Preview::None))?;
    }
    let spent = Mark::now(device, &launches)?.since(&start);
    let per = |n: f64| n / steps as f64;
    let by_kernel = kernels(&launches, &Default::default());
    let manifest = runtime.manifest();
    let resident = resident(manifest, DECODER, device);
    let memory = Memory::of(device, || {
        read_sync(walk.step(Preview::None))?;
        Ok(())
    })?;
    Ok(json!({
        "adapter": runtime.opened.name,
        "steps": steps,
        "seconds_per_step": per(spent.seconds),
        "launches_per_step": per(spent.launches),
        "submits_per_step": spent.submits.map(per),
        "readbacks_per_step": per(spent.reads),
        "linear_weight_bytes_per_step": per(spent.weights),
        "weight_bytes": resident,
        "peak_bytes": memory.peak,
        "live_bytes": memory.live,
        "resting_bytes": memory.resting,
        "kernels_of_all_steps": by_kernel,
    }))
}
