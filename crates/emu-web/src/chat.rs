//! Text generation, with interleaved pictures.

use emu_model::config::{EmuConfig, LmConfig};
use emu_model::generate::{BeamSearch, Cost, Finish, Prompt, TextEvent, TextMachine};
use emu_model::{Emu, pack};
use wasm_bindgen::JsValue;

use crate::draw;
use crate::engine::{Engine, usage};
use crate::error::Failure;
use crate::events::{Listener, event};
use crate::request::{Draw, Text};

/// Answers a prompt. If the model begins a picture, it is drawn with the options `drawing`; without them it ends the text.
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
    let length = prompt.ids.len();
    // Positions reserved after the prompt.
    let room = match drawing {
        Some(_) if config.requests.is_none() => config.lm.context,
        _ => search.max_new_tokens.min(config.lm.context),
    };
    let most = engine.binding();
    fits(&config.lm, length, room, search.beams, most)?;
    if searches {
        let search = BeamSearch::new(emu, config, prompt, search).map_err(Failure::from)?;
        return search_answer(engine, listener, search, length).await;
    }
    let options = text.options(&config.generation, seed, drawing.is_some())?;
    let mut machine = TextMachine::new(emu, config, prompt, options).map_err(Failure::from)?;
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
                let piece = decoder.push(id).map_err(Failure::from)?;
                say(listener, &piece).await?;
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
                engine.ensure_loaded(listener, pack::DECODER).await?;
                let draw = drawing.cloned().unwrap_or_default();
                let seed = seed.wrapping_add(pictures);
                draw::walk(engine, listener, condition, None, &draw, seed).await?;
                pictures += 1;
            }
            TextEvent::Words(words) => say(listener, &words).await?,
            TextEvent::Done(finish) => break finish,
        }
    };
    say(listener, &decoder.finish()).await?;
    tell_usage(listener, length, tokens, finish, machine.cost()).await
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
    listener: &Listener<'_>,
    mut search: BeamSearch<'_>,
    length: usize,
) -> Result<(), JsValue> {
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
    say(listener, &text).await?;
    tell_usage(
        listener,
        length,
        best.len().saturating_sub(1),
        Finish::End,
        cost,
    )
    .await
}

async fn say(listener: &Listener<'_>, text: &str) -> Result<(), JsValue> {
    match text {
        "" => Ok(()),
        text => {
            listener
                .tell(&event("text", &[("text", text.into())]))
                .await
        }
    }
}

async fn tell_usage(
    listener: &Listener<'_>,
    prompt: usize,
    tokens: usize,
    finish: Finish,
    cost: Cost,
) -> Result<(), JsValue> {
    let finish = match finish {
        Finish::End => "end",
        Finish::Length => "length",
    };
    listener.tell(&usage(prompt, tokens, finish, cost)).await
}
