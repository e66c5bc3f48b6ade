//! `emu chat` with a language model alone: a GGUF file instead of a pack.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::read_sync;
use emu_kernels::device::open;
use emu_model::TextModel;
use emu_model::config::GenerationConfig;
use emu_model::generate::{Cost, PrefixCache, Prompt};
use emu_model::text::{Message, Speaker};
use emu_pack::convert::GgufFile;

use super::answer::{answers, follow};
use super::dialogue::{Partner, Printer, speak_with};
use super::usage::Usage;
use crate::args::ChatArgs;
use crate::output::spinner;
use crate::text_options::{beam_options, text_options};

/// Generation defaults: a GGUF file has none.
const PLAIN: GenerationConfig = GenerationConfig {
    repetition_penalty: None,
};

/// Answers one prompt, or runs a conversation.
pub(super) fn run(args: &ChatArgs, path: &Path) -> Result<()> {
    let pictures = [
        ("--image", !args.image.is_empty()),
        ("--video", !args.video.is_empty()),
        ("--out", args.out.is_some()),
    ];
    if let Some((option, _)) = pictures.iter().find(|(_, given)| *given) {
        bail!(
            "{} is a language model alone, which neither sees nor draws pictures. Leave out {option}, or name a pack with --model.",
            path.display()
        );
    }
    let opened = open(args.model.device.choice())?;
    let waiting = spinner("loading the language model");
    let file = GgufFile::open(path)?;
    let model = TextModel::from_gguf(file.metadata(), &file, &opened.device)
        .with_context(|| path.display().to_string())?;
    waiting.finish_and_clear();
    let system = args.system.iter().map(|text| Message {
        speaker: Speaker::System,
        text: text.clone(),
    });
    let mut talker = Talker {
        args,
        model: &model,
        device: &opened.name,
        messages: system.collect(),
        prefix: PrefixCache::default(),
    };
    speak_with(&mut talker, args)
}

struct Talker<'a> {
    args: &'a ChatArgs,
    model: &'a TextModel,
    /// Human-readable device name.
    device: &'a str,
    /// Messages so far, starting with the user's system message if there is one.
    messages: Vec<Message>,
    /// Sequence of the turns before, which the next one continues.
    prefix: PrefixCache,
}

impl Partner for Talker<'_> {
    fn hear(&mut self, text: &str, pictures: &[PathBuf], videos: &[PathBuf]) -> Result<()> {
        if !pictures.is_empty() || !videos.is_empty() {
            bail!(
                "This is a language model alone, which sees no pictures. Ask in words, or name a pack with --model."
            );
        }
        let text = text.to_owned();
        let speaker = Speaker::User;
        self.messages.push(Message { speaker, text });
        match self.answer() {
            Ok(text) => {
                let speaker = Speaker::Assistant;
                self.messages.push(Message { speaker, text });
                Ok(())
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    fn forget(&mut self) {
        self.messages.retain(|m| m.speaker == Speaker::System);
    }
}

impl Talker<'_> {
    /// Streams the answers to stdout. Returns the text of the first.
    fn answer(&mut self) -> Result<String> {
        let prompt = self.model.chat(&self.messages)?;
        let (args, device) = (self.args, self.device);
        answers(
            args,
            &prompt,
            device,
            Usage::start(),
            |index, usage| match args.text.beams {
                1 => self.stream(&prompt, index, usage),
                _ => self.search(&prompt, usage),
            },
        )
    }

    /// Streams answer `index`. Returns its text and cost.
    fn stream(&mut self, prompt: &Prompt, index: u64, usage: &mut Usage) -> Result<(String, Cost)> {
        let seed = self.args.model.seed.wrapping_add(index);
        let mut options = text_options(&self.args.text, &PLAIN, seed, false);
        options.logprobs = self.args.logprobs;
        let (model, prefix) = (self.model, &mut self.prefix);
        let mut machine = model.generate_with_prefix(prompt, options, prefix)?;
        let decoder = model.tokenizer.decode_stream();
        // A language model alone produces no pictures.
        let told = follow(&mut machine, decoder, self.args, usage, None, |_, _, _| {
            Ok(())
        });
        let cost = machine.cost();
        self.prefix = machine.into_prefix();
        Ok((told?, cost))
    }

    fn search(&self, prompt: &Prompt, usage: &mut Usage) -> Result<(String, Cost)> {
        let waiting = spinner("searching");
        let options = beam_options(&self.args.text, &PLAIN);
        let search = self.model.search(prompt, options)?;
        let cost = search.cost();
        let found = read_sync(search.run())?;
        waiting.finish_and_clear();
        // Drops the BOS token at the start of every sequence.
        let best = found.first().and_then(|best| best.tokens.get(1..));
        let best = best.unwrap_or_default();
        let text = self.model.tokenizer.decode(best)?;
        usage.tokens = best.len();
        let mut printer = Printer::new(self.args);
        printer.say(&text, None)?;
        printer.flush()?;
        Ok((printer.text, cost))
    }
}
