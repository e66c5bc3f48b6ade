//! `emu chat`

mod alone;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_kernels::sample::{Processors, Sampling};
use emu_model::config::GenerationConfig;
use emu_model::generate::{BeamOptions, BeamSearch, Prompt, TextEvent, TextMachine, TextOptions};
use emu_model::prompt::{Conversation, Marked, Turn};
use emu_pack::convert::GgufFile;
use serde_json::json;

use crate::args::{ChatArgs, TextArgs};
use crate::imagine::{self, Drawing};
use crate::media;
use crate::output::{json_line, print_now, spinner};
use crate::runtime::Runtime;

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

/// A model that answers in a conversation.
trait Partner {
    /// Answers a user message with picture and video files. On error the conversation stays unchanged.
    fn hear(&mut self, text: &str, pictures: &[PathBuf], videos: &[PathBuf]) -> Result<()>;

    /// Clears the conversation.
    fn forget(&mut self);
}

/// Answers the prompt, or each line of stdin without one.
fn speak_with(partner: &mut dyn Partner, args: &ChatArgs) -> Result<()> {
    match &args.prompt {
        Some(prompt) => partner.hear(prompt, &args.image, &args.video),
        None => converse(partner, (args.image.clone(), args.video.clone())),
    }
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

/// Reads lines until the input ends. Pictures are queued until the next message.
fn converse(
    partner: &mut dyn Partner,
    (mut pictures, mut videos): (Vec<PathBuf>, Vec<PathBuf>),
) -> Result<()> {
    let stdin = std::io::stdin();
    let terminal = stdin.is_terminal();
    if terminal {
        eprintln!(
            "/image FILE and /video FILE add to what you say next, /reset forgets, /quit leaves."
        );
    }
    let mut lines = stdin.lock().lines();
    loop {
        if terminal {
            eprint!("> ");
        }
        let Some(line) = lines.next() else {
            return Ok(());
        };
        let line = line.context("The input cannot be read. Give text in UTF-8")?;
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("", _) => {}
            ("/quit", _) => return Ok(()),
            ("/reset", _) => partner.forget(),
            ("/image", path) => pictures.push(path.trim().into()),
            ("/video", path) => videos.push(path.trim().into()),
            _ => {
                let taken = (std::mem::take(&mut pictures), std::mem::take(&mut videos));
                let said = partner.hear(line.trim(), &taken.0, &taken.1);
                // At a terminal, an error ends the turn and not the conversation.
                match said {
                    Err(error) if terminal => eprintln!("error: {}", crate::message(&error)),
                    other => other?,
                }
            }
        }
    }
}

/// Prints a piece of an answer.
fn print_part(text: &str, json: bool) -> Result<()> {
    match (text.is_empty(), json) {
        (true, _) => Ok(()),
        (false, true) => json_line(&json!({"type": "text", "text": text})),
        (false, false) => print_now(text),
    }
}

/// Logits processors from the arguments; the model's defaults fill the gaps.
fn processors(args: &TextArgs, model: &GenerationConfig) -> Processors {
    let penalty = args.repetition_penalty.or(model.repetition_penalty);
    Processors {
        repetition_penalty: penalty.unwrap_or(1.0),
        no_repeat_ngram: args.no_repeat_ngram,
        min_length: 0,
    }
}

/// Validates the text arguments before a model is loaded.
///
/// # Errors
/// Where an argument is out of range.
pub fn check(args: &TextArgs) -> Result<()> {
    let plain = GenerationConfig::default();
    text_options(args, &plain, 0, false).validate()?;
    Ok(beam_options(args, &plain).validate()?)
}

/// Beam search options from the arguments; the model's defaults fill the gaps.
pub fn beam_options(args: &TextArgs, model: &GenerationConfig) -> BeamOptions {
    BeamOptions {
        beams: args.beams,
        max_new_tokens: args.max_new_tokens,
        length_penalty: args.length_penalty,
        processors: processors(args, model),
        ban_images: true,
    }
}

/// Generation options from the arguments; the model's defaults fill the gaps.
pub fn text_options(
    args: &TextArgs,
    model: &GenerationConfig,
    seed: u64,
    images: bool,
) -> TextOptions {
    TextOptions {
        max_new_tokens: args.max_new_tokens,
        processors: processors(args, model),
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
        },
        seed,
        images,
        // Image tokens are not banned: without drawing, the caller ends the text there.
        ban_images: false,
        ..Default::default()
    }
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
