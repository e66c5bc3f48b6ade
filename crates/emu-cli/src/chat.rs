//! `emu chat`

mod alone;
mod answer;
mod dialogue;
mod usage;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_model::generate::{
    BeamSearch, Cost, PrefixCache, Prompt, TextEvent, TextMachine, TextOptions,
};
use emu_model::prompt::{Conversation, Marked, Turn};
use emu_pack::convert::GgufFile;
use serde_json::json;

use crate::args::ChatArgs;
use crate::imagine::{self, Drawing};
use crate::media;
use crate::output::{json_line, spinner};
use crate::runtime::Runtime;
use crate::text_options::{beam_options, check, text_options};
use answer::{NOWHERE, answers, follow};
use dialogue::{Partner, Printer, speak_with};
use usage::Usage;

/// Answers one prompt, or runs a conversation.
pub fn run(args: &ChatArgs) -> Result<()> {
    check(&args.text)?;
    check_answers(args)?;
    if let Some(file) = args
        .model
        .model
        .as_deref()
        .filter(|path| GgufFile::is_one(path))
    {
        return alone::run(args, file);
    }
    if args.out.is_some() && args.text.beams > 1 {
        bail!("A beam search cannot draw. Leave out --out or --beams.");
    }
    let runtime = Runtime::open(&args.model)?;
    let mut speaker = Speaker {
        runtime: &runtime,
        args,
        conversation: Conversation {
            system: args.system.clone(),
            turns: vec![],
        },
        drawn: 0,
        prefix: PrefixCache::default(),
    };
    if args.out.is_some() {
        // Loads the decoder now, so that an error does not interrupt an answer.
        runtime.decoder()?;
    }
    speak_with(&mut speaker, args)
}

/// Refuses what a beam search does not give, and a number of log-probabilities that is out of range.
fn check_answers(args: &ChatArgs) -> Result<()> {
    let beams = args.text.beams > 1;
    if beams && args.logprobs.is_some() {
        bail!("A beam search gives no log-probabilities. Leave out --logprobs or --beams.");
    }
    if beams && args.n > 1 {
        bail!("A beam search gives one answer. Leave out -n or --beams.");
    }
    let options = TextOptions {
        logprobs: args.logprobs,
        ..TextOptions::default()
    };
    Ok(options.validate()?)
}

fn marked(text: &str, pictures: &[PathBuf], videos: &[PathBuf]) -> Result<Marked> {
    let pictures = pictures
        .iter()
        .map(|p| media::picture(p))
        .collect::<Result<_>>()?;
    let videos = videos
        .iter()
        .map(|p| Ok(media::video(p)?.frames))
        .collect::<Result<_>>()?;
    media::marked(text, pictures, videos)
}

struct Speaker<'a> {
    runtime: &'a Runtime,
    args: &'a ChatArgs,
    conversation: Conversation,
    /// Number of pictures drawn so far.
    drawn: u64,
    /// Sequences of earlier turns, which the next one continues.
    prefix: PrefixCache,
}

impl Partner for Speaker<'_> {
    fn hear(&mut self, text: &str, pictures: &[PathBuf], videos: &[PathBuf]) -> Result<()> {
        let user = marked(text, pictures, videos)?;
        self.conversation.turns.push(Turn {
            user,
            answer: String::new(),
        });
        match self.answer() {
            Ok(answer) => {
                if let Some(turn) = self.conversation.turns.last_mut() {
                    turn.answer = answer;
                }
                Ok(())
            }
            Err(error) => {
                self.conversation.turns.pop();
                Err(error)
            }
        }
    }

    fn forget(&mut self) {
        self.conversation.turns.clear();
    }
}

impl Speaker<'_> {
    /// Streams the answers to stdout. Returns the text of the first.
    fn answer(&mut self) -> Result<String> {
        let usage = Usage::start();
        let prompt = self.runtime.prompter()?.conversation(&self.conversation)?;
        let (args, device) = (self.args, &self.runtime.opened.name);
        answers(args, &prompt, device, usage, |index, usage| {
            match args.text.beams {
                1 => self.stream(&prompt, index, usage),
                _ => self.search(&prompt, usage),
            }
        })
    }

    /// Streams answer `index`. Returns its text and cost.
    fn stream(&mut self, prompt: &Prompt, index: u64, usage: &mut Usage) -> Result<(String, Cost)> {
        let runtime = self.runtime;
        let config = runtime.emu_config();
        let draws = self.args.out.is_some();
        let seed = self.args.model.seed.wrapping_add(index);
        // A request reader runs even without --out, so that a drawing request is not answered in words.
        let asks = draws || config.requests.is_some();
        let mut options = text_options(&self.args.text, &config.generation, seed, asks);
        options.logprobs = self.args.logprobs;
        let (emu, prefix) = (runtime.emu()?, &mut self.prefix);
        let mut machine = TextMachine::with_prefix(emu, config, prompt, options, prefix)?;
        let told = self.follow(&mut machine, usage);
        let cost = machine.cost();
        self.prefix = machine.into_prefix();
        Ok((told?, cost))
    }

    /// Prints what the machine generates, and draws its pictures. Returns the text.
    fn follow(&mut self, machine: &mut TextMachine<'_>, usage: &mut Usage) -> Result<String> {
        let (runtime, args) = (self.runtime, self.args);
        let draws = args.out.is_some();
        let image = (!draws).then_some(runtime.emu_config().special.img);
        let decoder = runtime.tokenizer.decode_stream();
        let show = |event: TextEvent, printer: &mut Printer, usage: &mut Usage| {
            match event {
                TextEvent::Image(embeddings) => {
                    printer.flush()?;
                    self.draw(embeddings, printer)?;
                    usage.skip();
                }
                TextEvent::Words(words) if draws => printer.say(&words, None)?,
                TextEvent::Words(_) => eprintln!("{NOWHERE}"),
                TextEvent::Token(_) | TextEvent::Embedding(..) | TextEvent::Done(_) => {}
            }
            Ok(())
        };
        follow(machine, decoder, args, usage, image, show)
    }

    fn search(&self, prompt: &Prompt, usage: &mut Usage) -> Result<(String, Cost)> {
        let runtime = self.runtime;
        let waiting = spinner("searching");
        let config = runtime.emu_config();
        let options = beam_options(&self.args.text, &config.generation);
        let search = BeamSearch::new(runtime.emu()?, config, prompt, options)?;
        let cost = search.cost();
        let found = read_sync(search.run())?;
        waiting.finish_and_clear();
        let best = found.first().map_or(&[][..], |best| &best.tokens);
        let text = runtime.tokenizer.decode(best, true)?;
        usage.tokens = best.len().saturating_sub(1);
        let mut printer = Printer::new(self.args);
        printer.say(&text, None)?;
        printer.flush()?;
        Ok((printer.text, cost))
    }

    /// Draws a picture that occurs in an answer.
    fn draw(&mut self, embeddings: Tensor<3>, printer: &mut Printer) -> Result<()> {
        let Some(folder) = &self.args.out else {
            return Ok(());
        };
        self.drawn += 1;
        let seed = self.args.model.seed.wrapping_add(self.drawn - 1);
        let path = unused(folder)?;
        let config = self.runtime.decoder_config()?;
        let drawing = Drawing {
            options: emu_model::diffusion::DrawOptions::new(config, seed),
            negative: None,
            previews: None,
        };
        let picture = imagine::draw(self.runtime, embeddings, &drawing)?;
        imagine::save(&picture.image, &path)?;
        if self.args.model.json {
            json_line(&json!({
                "type": "image", "image": path, "seed": seed, "flagged": picture.flagged,
            }))
        } else {
            printer.picture(&path)
        }
    }
}

/// The path of the next picture in a folder, which is created if need be. Pictures that are there stay.
fn unused(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "{} cannot be created; choose another --out",
            folder.display()
        )
    })?;
    let mut paths = (1u64..).map(|number| folder.join(format!("emu-{number}.png")));
    let free = paths.find(|path| !path.exists());
    free.context("The folder is full of pictures. Choose another --out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_are_there_stay() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("new");
        for name in ["emu-1.png", "emu-2.png", "emu-3.png"] {
            let path = unused(&folder).expect("a path");
            assert_eq!(path, folder.join(name));
            std::fs::write(path, "").expect("written");
        }
        std::fs::remove_file(folder.join("emu-2.png")).expect("removed");
        assert_eq!(unused(&folder).expect("a path"), folder.join("emu-2.png"));
    }
}
