//! `emu chat`

mod alone;
mod dialogue;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_model::generate::{BeamSearch, Prompt, TextEvent, TextMachine};
use emu_model::prompt::{Conversation, Marked, Turn};
use emu_pack::convert::GgufFile;
use serde_json::json;

use crate::args::ChatArgs;
use crate::imagine::{self, Drawing};
use crate::media;
use crate::output::{json_line, print_now, spinner};
use crate::runtime::Runtime;
use crate::text_options::{beam_options, check, text_options};
use dialogue::{Partner, print_part, speak_with};

/// Answers one prompt, or runs a conversation.
pub fn run(args: &ChatArgs) -> Result<()> {
    check(&args.text)?;
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
    };
    if args.out.is_some() {
        // Loads the decoder now, so that an error does not interrupt an answer.
        runtime.decoder()?;
    }
    speak_with(&mut speaker, args)
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
    /// Streams the answer to stdout. Returns its text.
    fn answer(&mut self) -> Result<String> {
        let clock = Instant::now();
        let prompt = self.runtime.prompter()?.conversation(&self.conversation)?;
        let (text, tokens) = match self.args.text.beams {
            1 => self.stream(&prompt)?,
            _ => self.search(&prompt)?,
        };
        if self.args.model.json {
            json_line(&json!({
                "type": "usage", "prompt_tokens": prompt.ids.len(), "tokens": tokens,
                "seconds": clock.elapsed().as_secs_f64(), "device": self.runtime.opened.name,
            }))?;
        } else {
            print_now("\n")?;
        }
        Ok(text)
    }

    fn say(&self, text: &str) -> Result<()> {
        print_part(text, self.args.model.json)
    }

    fn stream(&mut self, prompt: &Prompt) -> Result<(String, usize)> {
        let runtime = self.runtime;
        let config = runtime.emu_config();
        let (draws, image) = (self.args.out.is_some(), config.special.img);
        let seed = self.args.model.seed;
        // A request reader runs even without --out, so that a drawing request is not answered in words.
        let asks = draws || config.requests.is_some();
        let options = text_options(&self.args.text, &config.generation, seed, asks);
        let mut machine = TextMachine::new(runtime.emu()?, config, prompt, options)?;
        let mut decoder = runtime.tokenizer.decode_stream();
        let (mut text, mut tokens) = (String::new(), 0);
        loop {
            let piece = match read_sync(machine.step())? {
                // Without --out, an image token ends the answer.
                TextEvent::Token(id) if id == image && !draws => {
                    let rest = decoder.finish();
                    self.say(&rest)?;
                    return Ok((text + &rest, tokens));
                }
                TextEvent::Token(id) => {
                    tokens += 1;
                    decoder.push(id)?
                }
                TextEvent::Embedding(..) => String::new(),
                TextEvent::Image(embeddings) => {
                    self.draw(embeddings)?;
                    String::new()
                }
                TextEvent::Words(words) if draws => words,
                TextEvent::Words(_) => {
                    eprintln!("A picture is asked for. Give a folder for pictures with --out.");
                    String::new()
                }
                TextEvent::Done(_) => {
                    let rest = decoder.finish();
                    self.say(&rest)?;
                    return Ok((text + &rest, tokens));
                }
            };
            self.say(&piece)?;
            text += &piece;
        }
    }

    fn search(&self, prompt: &Prompt) -> Result<(String, usize)> {
        let runtime = self.runtime;
        let waiting = spinner("searching");
        let config = runtime.emu_config();
        let options = beam_options(&self.args.text, &config.generation);
        let search = BeamSearch::new(runtime.emu()?, config, prompt, options)?;
        let found = read_sync(search.run())?;
        waiting.finish_and_clear();
        let best = found.first().map_or(&[][..], |best| &best.tokens);
        let text = runtime.tokenizer.decode(best, true)?;
        self.say(&text)?;
        Ok((text, best.len().saturating_sub(1)))
    }

    /// Draws a picture that occurs in an answer.
    fn draw(&mut self, embeddings: Tensor<3>) -> Result<()> {
        let Some(folder) = &self.args.out else {
            return Ok(());
        };
        self.drawn += 1;
        let seed = self.args.model.seed.wrapping_add(self.drawn - 1);
        let path = unused(folder, self.drawn)?;
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
            print_now(&format!(" [{}] ", path.display()))
        }
    }
}

fn unused(folder: &Path, number: u64) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "{} cannot be created; choose another --out",
            folder.display()
        )
    })?;
    Ok(folder.join(format!("emu-{number}.png")))
}
