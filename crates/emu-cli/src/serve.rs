//! `emu serve`: an opened pack as the engine of the HTTP server.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use emu_kernels::burn::tensor::{Tensor, read_sync};
use emu_kernels::sample::{Logprobs, Processors, Sampling};
use emu_media::image::{Limits, RgbImage, decode, encode_png};
use emu_model::diffusion::{self, Denoise, Preview};
use emu_model::generate::{
    self, BeamOptions, BeamSearch, GenerateError, ImageEmbedder, PrefixCache, Prompt, TextEvent,
    TextMachine,
};
use emu_model::prompt::{Conversation, Marked, PromptError, Turn};
use emu_serve::engine::{
    Answer, Chat, DrawOptions, Drawing, Drawn, Embedding, Engine, EngineError, Event, Finish,
    Likelihood, Model, Part, Piece, Tell, TextOptions, TokenLogprob,
};
use emu_serve::{Config, Server};
use emu_tokenizer::DecodeStream;
use serde_json::json;

use crate::args::ServeArgs;
use crate::imagine;
use crate::models;
use crate::output::{json_line, print_now};
use crate::runtime::Runtime;
use crate::signals;

/// Name of the environment variable with the API keys, separated by commas.
const KEYS: &str = "EMU_API_KEY";

/// Serves a model until the program is told to stop.
pub fn run(args: &ServeArgs) -> Result<()> {
    let given = std::env::var(KEYS).unwrap_or_default();
    let keys = given
        .split(',')
        .map(str::trim)
        .filter(|key| !key.is_empty());
    let config = Config {
        address: std::net::SocketAddr::new(args.host, args.port),
        api_keys: keys.map(str::to_owned).collect(),
        queue: args.queue,
        fetch: args.fetch,
        page: args.page.clone(),
        pack: match (&args.page, &args.model.model) {
            (Some(_), Some(model)) => Some(models::resolve(model)?),
            _ => None,
        },
        ..Config::default()
    };
    // Before the model is loaded, so that a wrong setting or a taken address is told at once.
    let server = Server::bind(config)?;
    let stop = signals::stop_flag()?;
    let runtime = Runtime::open(&args.model)?;
    runtime.emu()?;
    let id = args.name.clone().unwrap_or(runtime.manifest().name.clone());
    let mut engine = PackEngine {
        runtime,
        id,
        prefix: RefCell::default(),
    };
    let (id, device) = (&engine.id, &engine.runtime.opened.name);
    let url = format!("http://{}/v1", server.address());
    match args.model.json {
        true => json_line(&json!({"model": id, "device": device, "url": url}))?,
        false => print_now(&format!("{id} on {device}: {url}\n"))?,
    }
    server
        .run(&mut engine, move || stop.is_set())
        .context("the server ended")
}

/// Default of `max_tokens`.
const TOKENS: usize = 512;
/// Largest side of a picture, in sides of the model's own size. The time of a denoising step grows with the square of the
/// number of pixels, and all other calls wait meanwhile.
const LARGEST: usize = 2;

struct PackEngine {
    runtime: Runtime,
    id: String,
    /// Sequences of the last call, which the next one continues.
    prefix: RefCell<PrefixCache>,
}

/// An error of the request, or of the model.
fn generation(error: GenerateError) -> EngineError {
    let code = match error {
        GenerateError::TooLong { .. } => "context_length_exceeded",
        GenerateError::Option { .. } => "invalid_value",
        GenerateError::Empty => "empty_prompt",
        _ => return failed(error.code(), error),
    };
    refused(code, error)
}

fn prompting(error: PromptError) -> EngineError {
    let code = match error.code() {
        // OpenAI's name, which clients look for.
        "prompt-too-long" => "context_length_exceeded",
        code => code,
    };
    refused(code, error)
}

fn refused(code: &str, error: impl ToString) -> EngineError {
    EngineError::Request {
        code: code.into(),
        message: error.to_string(),
    }
}

fn failed(code: &str, error: impl ToString) -> EngineError {
    EngineError::Failed {
        code: code.into(),
        message: error.to_string(),
    }
}

fn picture(bytes: &[u8]) -> Result<RgbImage, EngineError> {
    decode(bytes, &Limits::default()).map_err(|error| refused("invalid_image", error))
}

fn marked(parts: &[Part]) -> Result<Marked, EngineError> {
    let mut marked = Marked::default();
    for part in parts {
        match part {
            Part::Text(text) => marked.say(text),
            Part::Picture(bytes) => marked.show(picture(bytes)?),
        }
    }
    Ok(marked)
}

/// Log-probabilities with the texts of their tokens.
fn named(logprobs: Logprobs, decoder: &DecodeStream) -> TokenLogprob {
    let likelihood = |token: u32, logprob: f32| Likelihood {
        // Ids without text exist where a vocabulary is padded.
        bytes: decoder.bytes(token).unwrap_or_default().to_vec(),
        logprob,
    };
    let top = logprobs.top.into_iter();
    TokenLogprob {
        chosen: likelihood(logprobs.token, logprobs.logprob),
        top: top
            .map(|(token, logprob)| likelihood(token, logprob))
            .collect(),
    }
}

/// The engine's error, or the request to stop.
fn told(flow: ControlFlow<()>) -> Result<(), EngineError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(EngineError::Stopped),
    }
}

impl PackEngine {
    fn text_options(&self, options: &TextOptions, images: bool) -> generate::TextOptions {
        generate::TextOptions {
            max_new_tokens: options.max_new_tokens.unwrap_or(TOKENS),
            processors: self.processors(options),
            sampling: Sampling {
                temperature: options.temperature.unwrap_or(0.0),
                top_k: options.top_k.unwrap_or(0),
                top_p: options.top_p.unwrap_or(1.0),
                min_p: options.min_p.unwrap_or(0.0),
            },
            seed: options.seed,
            images,
            logprobs: options.logprobs,
            ..Default::default()
        }
    }

    fn processors(&self, options: &TextOptions) -> Processors {
        let own = self.runtime.emu_config().generation.repetition_penalty;
        Processors {
            repetition_penalty: options.repetition_penalty.or(own).unwrap_or(1.0),
            presence_penalty: options.presence_penalty,
            frequency_penalty: options.frequency_penalty,
            logit_bias: options.logit_bias.clone(),
            no_repeat_ngram: options.no_repeat_ngram.unwrap_or(0),
            min_length: 0,
        }
    }

    /// Generates the continuation of a prompt.
    ///
    /// # Arguments
    /// - `asks`: whether the prompt may ask for a picture
    fn generate(
        &self,
        prompt: &Prompt,
        options: &TextOptions,
        draw: Option<&DrawOptions>,
        asks: bool,
        tell: &mut Tell<'_>,
    ) -> Result<Answer, EngineError> {
        if options.beams.is_some_and(|beams| beams > 1) {
            return self.search(prompt, options, tell);
        }
        let config = self.runtime.emu_config();
        let emu = self.runtime.emu().map_err(|e| failed("load", e))?;
        let options = self.text_options(options, asks);
        let mut prefix = self.prefix.take();
        let machine = TextMachine::with_prefix(emu, config, prompt, options, &mut prefix);
        let told = match machine {
            Ok(mut machine) => {
                let told = self.follow(&mut machine, prompt, draw, tell);
                prefix = machine.into_prefix();
                told
            }
            Err(error) => Err(generation(error)),
        };
        self.prefix.replace(prefix);
        told
    }

    /// Runs the machine to its end, or until the client stops it.
    fn follow(
        &self,
        machine: &mut TextMachine<'_>,
        prompt: &Prompt,
        draw: Option<&DrawOptions>,
        tell: &mut Tell<'_>,
    ) -> Result<Answer, EngineError> {
        let runtime = &self.runtime;
        let config = runtime.emu_config();
        let mut decoder = runtime.tokenizer.decode_stream();
        let mut answer = Answer {
            finish: Finish::End,
            prompt_tokens: prompt.ids.len(),
            cached_tokens: machine.cost().cached_tokens,
            tokens: 0,
        };
        let mut pictures = 0;
        loop {
            let event = match read_sync(machine.step()).map_err(generation)? {
                // Without drawing, an image token ends the answer.
                TextEvent::Token(id) if id == config.special.img && draw.is_none() => break,
                TextEvent::Token(id) => {
                    answer.tokens += 1;
                    let logprob = machine.next_logprobs();
                    let logprob = logprob.map(|logprobs| named(logprobs, &decoder));
                    let text = decoder.push(id).map_err(|e| failed(e.code(), e))?;
                    Event::Text(Piece { text, logprob })
                }
                TextEvent::Embedding(..) => Event::Step,
                TextEvent::Image(condition) => match draw {
                    None => Event::Step,
                    Some(options) => {
                        let seed = options.seed.wrapping_add(pictures);
                        pictures += 1;
                        match self.paint(condition, None, options, seed, tell) {
                            Err(EngineError::Stopped) => return Ok(answer),
                            drawn => Event::Picture(drawn?),
                        }
                    }
                },
                TextEvent::Words(words) if draw.is_some() => Event::Text(Piece::text(words)),
                TextEvent::Words(_) => {
                    let what = "A picture is asked for, and pictures are switched off.";
                    Event::Text(Piece::text(what))
                }
                TextEvent::Done(finish) => {
                    if finish == generate::Finish::Length {
                        answer.finish = Finish::Length;
                    }
                    break;
                }
            };
            if tell(event).is_break() {
                return Ok(answer);
            }
        }
        let rest = decoder.finish();
        if !rest.is_empty() {
            let _ = tell(Event::Text(Piece::text(rest)));
        }
        Ok(answer)
    }

    fn search(
        &self,
        prompt: &Prompt,
        options: &TextOptions,
        tell: &mut Tell<'_>,
    ) -> Result<Answer, EngineError> {
        self.prefix.borrow_mut().make_room();
        let (runtime, most) = (&self.runtime, options.max_new_tokens.unwrap_or(TOKENS));
        let emu = runtime.emu().map_err(|e| failed("load", e))?;
        let beams = BeamOptions {
            beams: options.beams.unwrap_or(1),
            max_new_tokens: most,
            length_penalty: options.length_penalty.unwrap_or(-1.0),
            processors: self.processors(options),
            ban_images: true,
        };
        let config = runtime.emu_config();
        let mut search = BeamSearch::new(emu, config, prompt, beams).map_err(generation)?;
        let mut answer = Answer {
            finish: Finish::End,
            prompt_tokens: prompt.ids.len(),
            cached_tokens: 0,
            tokens: 0,
        };
        while read_sync(search.step()).map_err(generation)? {
            if tell(Event::Step).is_break() {
                return Ok(answer);
            }
        }
        let found = search.into_found();
        let best = found.first().map_or(&[][..], |best| &best.tokens);
        let text = runtime.tokenizer.decode(best, true);
        let text = text.map_err(|e| failed(e.code(), e))?;
        answer.tokens = best.len().saturating_sub(1);
        if answer.tokens >= most {
            answer.finish = Finish::Length;
        }
        let _ = tell(Event::Text(Piece::text(text)));
        Ok(answer)
    }

    /// Draws from embeddings.
    fn paint(
        &self,
        condition: Tensor<3>,
        negative: Option<Tensor<3>>,
        options: &DrawOptions,
        seed: u64,
        tell: &mut Tell<'_>,
    ) -> Result<Drawn, EngineError> {
        let (decoder, config) = self.runtime.decoder().map_err(|e| failed("load", e))?;
        let mut drawing = diffusion::DrawOptions::new(config, seed);
        if let Some((width, height)) = options.size {
            (drawing.width, drawing.height) = (width as usize, height as usize);
        }
        drawing.steps = options.steps.unwrap_or(drawing.steps);
        drawing.guidance = options.guidance.unwrap_or(drawing.guidance);
        let wrong = |e: diffusion::DrawError| refused(e.code(), e);
        let (width, height, factor) = (drawing.width, drawing.height, config.vae.factor());
        let largest = LARGEST * config.image_size;
        let fits = |side: usize| (1..=largest).contains(&side) && side.is_multiple_of(factor);
        if !fits(width) || !fits(height) {
            return Err(wrong(diffusion::DrawError::Size {
                width,
                height,
                factor,
                largest,
            }));
        }
        drawing.validate(config).map_err(wrong)?;
        let mut walk =
            Denoise::new(decoder, config, condition, negative, &drawing).map_err(wrong)?;
        while !walk.is_done() {
            read_sync(walk.step(Preview::None)).map_err(|e| failed(e.code(), e))?;
            told(tell(Event::Step))?;
        }
        let drawn = imagine::finish(&self.runtime, walk).map_err(|e| failed("draw", e))?;
        let png = encode_png(&drawn.image).map_err(|e| failed(e.code(), e))?;
        Ok(Drawn {
            png: png.into(),
            seed,
            flagged: drawn.flagged,
        })
    }

    /// Regresses the visual embeddings of a requested picture.
    fn regress(&self, wanted: &Marked, seed: u64) -> Result<Tensor<3>, EngineError> {
        let prompter = self.runtime.prompter().map_err(|e| failed("load", e))?;
        let prompt = prompter.picture(wanted).map_err(prompting)?;
        let embedder =
            ImageEmbedder::new(prompter.emu, prompter.config, &prompt, seed).map_err(generation)?;
        let (embeddings, _) = read_sync(embedder.run()).map_err(generation)?;
        Ok(embeddings)
    }
}

impl Engine for PackEngine {
    fn model(&self) -> Model {
        let config = &self.runtime.config;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Model {
            id: self.id.clone(),
            created: now.map_or(0, |now| now.as_secs()),
            owner: "emu".into(),
            sees: true,
            draws: config.decoder.is_some(),
            embeds: true,
            logprobs: true,
        }
    }

    fn chat(&mut self, chat: &Chat, tell: &mut Tell<'_>) -> Result<Answer, EngineError> {
        let prompter = self.runtime.prompter().map_err(|e| failed("load", e))?;
        let turns = { chat.conversation.turns.iter() }
            .map(|turn| {
                Ok(Turn {
                    user: marked(&turn.user)?,
                    answer: turn.answer.clone(),
                })
            })
            .collect::<Result<_, EngineError>>()?;
        let conversation = Conversation {
            system: chat.conversation.system.clone(),
            turns,
        };
        let prompt = prompter.conversation(&conversation).map_err(prompting)?;
        let draw = chat.draw.as_ref();
        // A request reader runs even without drawing, so that the model does not claim a drawing.
        let asks = draw.is_some() || prompter.config.requests.is_some();
        self.generate(&prompt, &chat.text, draw, asks, tell)
    }

    fn complete(
        &mut self,
        prompt: &str,
        options: &TextOptions,
        tell: &mut Tell<'_>,
    ) -> Result<Answer, EngineError> {
        let plain = self.runtime.tokenizer.encode_plain(prompt);
        let plain = plain.map_err(|e| refused(e.code(), e))?;
        let bos = self.runtime.emu_config().special.bos;
        let ids = std::iter::once(bos).chain(plain).collect();
        self.generate(&Prompt::text(ids), options, None, false, tell)
    }

    fn draw(&mut self, drawing: &Drawing, tell: &mut Tell<'_>) -> Result<Drawn, EngineError> {
        self.prefix.borrow_mut().make_room();
        let seed = drawing.options.seed;
        let condition = self.regress(&marked(&drawing.prompt)?, seed)?;
        told(tell(Event::Step))?;
        let negative = match &drawing.options.negative {
            None => None,
            Some(text) => Some(self.regress(&Marked::words(text), seed)?),
        };
        self.paint(condition, negative, &drawing.options, seed, tell)
    }

    fn embed(
        &mut self,
        pictures: &[bytes::Bytes],
        tell: &mut Tell<'_>,
    ) -> Result<Vec<Embedding>, EngineError> {
        let prompter = self.runtime.prompter().map_err(|e| failed("load", e))?;
        let mut embeddings = Vec::with_capacity(pictures.len());
        for file in pictures {
            let embedded = prompter.embed(&[picture(file)?]).map_err(prompting)?;
            let none = || {
                failed(
                    "embed",
                    "The encoder gave no embeddings. Try another picture.",
                )
            };
            let embedded = embedded.ok_or_else(none)?;
            let [_, _, width] = embedded.dims();
            let values = read_sync(generate::read(embedded)).map_err(generation)?;
            embeddings.push(Embedding { width, values });
            told(tell(Event::Step))?;
        }
        Ok(embeddings)
    }
}

#[cfg(test)]
mod tests;
