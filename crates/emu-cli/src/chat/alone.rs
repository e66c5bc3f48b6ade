//! `emu chat` with a language model alone: a GGUF file instead of a pack.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::read_sync;
use emu_kernels::device::open;
use emu_model::TextModel;
use emu_model::config::GenerationConfig;
use emu_model::generate::{Prompt, TextEvent};
use emu_model::text::{Message, Speaker};
use emu_pack::convert::GgufFile;
use serde_json::json;

use super::{Partner, beam_options, print_part, speak_with, text_options};
use crate::args::ChatArgs;
use crate::output::{json_line, print_now, spinner};

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
}

/// An answer with its statistics.
struct Answer {
    text: String,
    tokens: usize,
    /// Time to first token in seconds.
    first: Option<f64>,
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
    /// Streams the answer to stdout. Returns its text.
    fn answer(&self) -> Result<String> {
        let prompt = self.model.chat(&self.messages)?;
        let clock = Instant::now();
        let answer = match self.args.text.beams {
            1 => self.stream(&prompt, clock)?,
            _ => self.search(&prompt)?,
        };
        if self.args.model.json {
            json_line(&json!({
                "type": "usage", "prompt_tokens": prompt.ids.len(), "tokens": answer.tokens,
                "first_token_seconds": answer.first, "seconds": clock.elapsed().as_secs_f64(), "device": self.device,
            }))?;
        } else {
            print_now("\n")?;
        }
        Ok(answer.text)
    }

    fn stream(&self, prompt: &Prompt, clock: Instant) -> Result<Answer> {
        let options = text_options(&self.args.text, &PLAIN, self.args.model.seed, false);
        let mut machine = self.model.generate(prompt, options)?;
        let mut decoder = self.model.tokenizer.decode_stream();
        let mut answer = Answer {
            text: String::new(),
            tokens: 0,
            first: None,
        };
        loop {
            let (piece, done) = match read_sync(machine.step())? {
                TextEvent::Token(id) => {
                    answer.tokens += 1;
                    let seconds = || clock.elapsed().as_secs_f64();
                    answer.first.get_or_insert_with(seconds);
                    (decoder.push(id)?, false)
                }
                TextEvent::Done(_) => (decoder.finish(), true),
                // A language model alone produces no pictures.
                TextEvent::Embedding(..) | TextEvent::Image(_) | TextEvent::Words(_) => continue,
            };
            print_part(&piece, self.args.model.json)?;
            answer.text += &piece;
            if done {
                return Ok(answer);
            }
        }
    }

    fn search(&self, prompt: &Prompt) -> Result<Answer> {
        let waiting = spinner("searching");
        let options = beam_options(&self.args.text, &PLAIN);
        let search = self.model.search(prompt, options)?;
        let found = read_sync(search.run())?;
        waiting.finish_and_clear();
        // Drops the BOS token at the start of every sequence.
        let best = found.first().and_then(|best| best.tokens.get(1..));
        let best = best.unwrap_or_default();
        let text = self.model.tokenizer.decode(best)?;
        print_part(&text, self.args.model.json)?;
        Ok(Answer {
            text,
            tokens: best.len(),
            first: None,
        })
    }
}
