//! Text generation, with interleaved pictures.

use emu_kernels::sample::Logprobs;
use emu_model::config::{EmuConfig, LmConfig};
use emu_model::generate::{BeamSearch, Cost, Finish, Prompt, TextEvent, TextMachine};
use emu_model::{Emu, pack};
use emu_tokenizer::{DecodeStream, StopStream};
use js_sys::Array;
use wasm_bindgen::JsValue;

use crate::draw;
use crate::engine::{Engine, usage};
use crate::error::Failure;
use crate::events::{Listener, event};
use crate::object::object;
use crate::request::{Draw, Text};

/// The text of an answer on its way to JavaScript: up to a stop string, with the log-probabilities of its tokens.
struct Voice<'a> {
    listener: &'a Listener<'a>,
    stream: StopStream<JsValue>,
}

impl<'a> Voice<'a> {
    fn new(listener: &'a Listener<'a>, text: &Text) -> Self {
        Self {
            listener,
            stream: StopStream::new(&text.stop),
        }
    }

    /// Whether a stop string was found: the answer is complete.
    fn stopped(&self) -> bool {
        self.stream.stopped()
    }

    /// Sends a piece, or holds back what may be the beginning of a stop string.
    async fn say(&mut self, piece: &str, logprobs: Option<JsValue>) -> Result<(), JsValue> {
        let said = self.stream.push(piece, logprobs);
        self.send(said).await
    }

    /// Sends what was held back, at the end or before a picture.
    async fn flush(&mut self) -> Result<(), JsValue> {
        let said = self.stream.finish();
        self.send(said).await
    }

    async fn send(&self, said: Option<(String, Vec<JsValue>)>) -> Result<(), JsValue> {
        let Some((text, logprobs)) = said else {
            return Ok(());
        };
        let mut entries: Vec<(&str, JsValue)> = vec![("text", text.into())];
        if !logprobs.is_empty() {
            let logprobs: Array = logprobs.into_iter().collect();
            entries.push(("logprobs", logprobs.into()));
        }
        self.listener.tell(&event("text", &entries)).await
    }
}

/// The log-probabilities of a token for JavaScript.
fn described(logprobs: &Logprobs, decoder: &DecodeStream) -> JsValue {
    let token = |id: u32, logprob: f32| -> Vec<(&'static str, JsValue)> {
        // Ids without text exist where a vocabulary is padded.
        let bytes = decoder.bytes(id).unwrap_or_default();
        let numbers: Array = bytes.iter().map(|&byte| JsValue::from(byte)).collect();
        vec![
            ("id", id.into()),
            ("token", JsValue::from(&*String::from_utf8_lossy(bytes))),
            ("bytes", numbers.into()),
            ("logprob", f64::from(logprob).into()),
        ]
    };
    let mut chosen = token(logprobs.token, logprobs.logprob);
    let top = logprobs.top.iter();
    let top: Array = top
        .map(|&(id, logprob)| object(&token(id, logprob)))
        .collect();
    chosen.push(("top", top.into()));
    object(&chosen)
}

/// Answers a prompt, as often as the options say, with consecutive seeds; each answer ends in the event `usage`. If the model
/// begins a picture, it is drawn with the options `drawing`; without them it ends the text.
pub async fn answer(
    engine: &Engine,
    listener: &Listener<'_>,
    (emu, config): (&Emu, &EmuConfig),
    prompt: &Prompt,
    text: &Text,
    drawing: Option<&Draw>,
    seed: u64,
) -> Result<(), JsValue> {
    let search = text.search(&config.generation)?;
    let searches = search.beams > 1;
    if searches && drawing.is_some() {
        let what = "A beam search cannot draw. Leave out beams, or set images to false.";
        return Err(Failure::new("bad-option", what).into());
    }
    let answers = text.answers()?;
    if searches && (answers > 1 || text.wants_logprobs()) {
        let what = "A beam search gives one answer, without log-probabilities. Leave out beams, or n and logprobs.";
        return Err(Failure::new("bad-option", what).into());
    }
    let length = prompt.ids.len();
    // Positions reserved after the prompt.
    let room = match drawing {
        Some(_) if config.requests.is_none() => config.lm.context,
        _ => search.max_new_tokens.min(config.lm.context),
    };
    let most = engine.binding();
    fits(&config.lm, length, room, search.beams, most)?;
    if searches {
        engine.make_room();
        let search = BeamSearch::new(emu, config, prompt, search).map_err(Failure::from)?;
        return search_answer(engine, Voice::new(listener, text), search, length).await;
    }
    for index in 0..answers as u64 {
        let seed = seed.wrapping_add(index);
        sample(engine, listener, (emu, config), prompt, text, drawing, seed).await?;
    }
    Ok(())
}

/// Gives one answer to a prompt, token by token.
async fn sample(
    engine: &Engine,
    listener: &Listener<'_>,
    (emu, config): (&Emu, &EmuConfig),
    prompt: &Prompt,
    text: &Text,
    drawing: Option<&Draw>,
    seed: u64,
) -> Result<(), JsValue> {
    let length = prompt.ids.len();
    let options = text.options(&config.generation, seed, drawing.is_some())?;
    let mut prefix = engine.take_prefix();
    let machine = TextMachine::with_prefix(emu, config, prompt, options, &mut prefix);
    let mut machine = match machine {
        Ok(machine) => machine,
        Err(error) => {
            engine.keep_prefix(prefix);
            return Err(Failure::from(error).into());
        }
    };
    let told = follow(
        engine,
        Voice::new(listener, text),
        &mut machine,
        config,
        length,
        drawing,
        seed,
    )
    .await;
    // An aborted answer is kept as far as it came.
    engine.keep_prefix(machine.into_prefix());
    told
}

/// Runs the machine to its end, or to a stop string, and sends what it generates.
async fn follow(
    engine: &Engine,
    mut voice: Voice<'_>,
    machine: &mut TextMachine<'_>,
    config: &EmuConfig,
    length: usize,
    drawing: Option<&Draw>,
    seed: u64,
) -> Result<(), JsValue> {
    let listener = voice.listener;
    listener
        .tell(&event("prefill", &[("tokens", length.into())]))
        .await?;
    let mut decoder = engine.tokenizer().decode_stream();
    let (mut tokens, mut pictures) = (0, 0);
    let finish = loop {
        match machine.step().await.map_err(Failure::from)? {
            // Without drawing, a picture ends the answer.
            TextEvent::Token(id) if id == config.special.img && drawing.is_none() => {
                break Finish::End;
            }
            TextEvent::Token(id) => {
                tokens += 1;
                let logprobs = machine.next_logprobs();
                let logprobs = logprobs.map(|of| described(&of, &decoder));
                let piece = decoder.push(id).map_err(Failure::from)?;
                voice.say(&piece, logprobs).await?;
                listener
                    .tell(&event("decode", &[("tokens", tokens.into())]))
                    .await?;
            }
            TextEvent::Embedding(..) => {
                listener
                    .tell(&event("decode", &[("tokens", tokens.into())]))
                    .await?;
            }
            TextEvent::Image(condition) => {
                voice.flush().await?;
                engine.ensure_loaded(listener, pack::DECODER).await?;
                let draw = drawing.cloned().unwrap_or_default();
                let seed = seed.wrapping_add(pictures);
                draw::walk(engine, listener, condition, None, &draw, seed).await?;
                pictures += 1;
            }
            TextEvent::Words(words) => voice.say(&words, None).await?,
            TextEvent::Done(finish) => break finish,
        }
        if voice.stopped() {
            break Finish::End;
        }
    };
    voice.say(&decoder.finish(), None).await?;
    end(voice, length, tokens, finish, machine.cost()).await
}

/// Checks that the keys and activations of a request fit a buffer binding. Each layer's keys are one buffer, as is the widest
/// product of the prompt. `most`: maximum binding size in bytes.
fn fits(lm: &LmConfig, prompt: usize, room: usize, beams: usize, most: f64) -> Result<(), Failure> {
    // In f64, since `usize` has 32 bits on this target.
    let f32s = |factors: &[usize]| factors.iter().map(|&n| n as f64).product::<f64>() * 4.0;
    let positions = (prompt + room).min(lm.context);
    let keys = f32s(&[beams, lm.kv_heads, positions, lm.head_size]);
    let activation = f32s(&[prompt, lm.widest()]);
    let mib = |bytes: f64| (bytes / (1024.0 * 1024.0)).ceil();
    let (what, bytes, advice) = if keys > most {
        let what = format!("The keys of {beams} beams over {positions} positions take");
        (what, keys, "Use fewer beams or fewer new tokens")
    } else if activation > most {
        let what = format!("A prompt of {prompt} tokens takes");
        (
            what,
            activation,
            "Shorten the prompt, or use fewer pictures",
        )
    } else {
        return Ok(());
    };
    let (bytes, most) = (mib(bytes), mib(most));
    Err(Failure::new(
        "too-large",
        format!(
            "{what} a buffer of {bytes} MiB, and this GPU binds {most} MiB at once. {advice}, or choose the CPU."
        ),
    ))
}

async fn search_answer(
    engine: &Engine,
    mut voice: Voice<'_>,
    mut search: BeamSearch<'_>,
    length: usize,
) -> Result<(), JsValue> {
    let listener = voice.listener;
    listener
        .tell(&event("prefill", &[("tokens", length.into())]))
        .await?;
    let mut steps = 0usize;
    while search.step().await.map_err(Failure::from)? {
        steps += 1;
        listener
            .tell(&event("decode", &[("tokens", steps.into())]))
            .await?;
    }
    let cost = search.cost();
    let found = search.into_found();
    let best = found.first().map_or(&[][..], |best| &best.tokens);
    let text = engine
        .tokenizer()
        .decode(best, true)
        .map_err(Failure::from)?;
    voice.say(&text, None).await?;
    let tokens = best.len().saturating_sub(1);
    end(voice, length, tokens, Finish::End, cost).await
}

/// Ends an answer: sends what was held back, and what it cost.
async fn end(
    mut voice: Voice<'_>,
    prompt: usize,
    tokens: usize,
    finish: Finish,
    cost: Cost,
) -> Result<(), JsValue> {
    voice.flush().await?;
    let finish = match finish {
        _ if voice.stopped() => "stop",
        Finish::End => "end",
        Finish::Length => "length",
    };
    let usage = usage(prompt, tokens, finish, cost);
    voice.listener.tell(&usage).await
}
