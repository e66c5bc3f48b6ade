//! Requests of an engine.

use emu_media::image::RgbImage;
use emu_model::config::GenerationConfig;
use emu_model::pack;
use emu_model::prompt::{Conversation, Marked, Turn};
use js_sys::{Array, Function};
use wasm_bindgen::prelude::*;

use crate::chat;
use crate::draw;
use crate::engine::Engine;
use crate::error::Failure;
use crate::events::{Listener, event, rows};
use crate::request::{self, Draw, Message, Part, Request, Role, Text};

#[wasm_bindgen]
impl Engine {
    /// Runs a request. `on_event` is awaited after every step; the answer `false` aborts the request. In a rehearsal the device
    /// computes nothing, so that nothing is kept for later requests.
    ///
    /// # Errors
    /// `aborted`; `busy` while another request runs; any error of the request, the model or the device.
    pub async fn run(
        &self,
        request: JsValue,
        pictures: Array,
        on_event: Function,
        rehearsal: Option<bool>,
    ) -> Result<(), JsValue> {
        if self.busy.replace(true) {
            let what = "Another request is running. Await its end, or use a second engine.";
            return Err(Failure::new("busy", what).into());
        }
        self.rehearses.set(rehearsal.unwrap_or(false));
        let listener = Listener::new(&on_event);
        let work = self.answer(&request, &pictures, &listener);
        let done = self.meter.during(work).await;
        self.rehearses.set(false);
        self.busy.set(false);
        done
    }
}

impl Engine {
    async fn answer(
        &self,
        request: &JsValue,
        pictures: &Array,
        listener: &Listener<'_>,
    ) -> Result<(), JsValue> {
        let request = request::parse(request)?;
        let pictures = request::pictures(pictures)?;
        match request {
            Request::Chat {
                messages,
                text,
                images,
                draw,
                seed,
            } => {
                check(&text)?;
                if images {
                    self.check(&draw)?;
                }
                let (emu, config) = self.emu()?;
                let prompter = self.prompter(&emu, &config);
                let conversation = conversation(&messages, &pictures)?;
                let prompt = prompter
                    .conversation(&conversation)
                    .map_err(Failure::from)?;
                let drawing = images.then_some(&*draw);
                chat::answer(
                    self,
                    listener,
                    (&emu, &config),
                    &prompt,
                    &text,
                    drawing,
                    seed,
                )
                .await
            }
            Request::Caption { text, seed } => {
                check(&text)?;
                let (emu, config) = self.emu()?;
                let picture = one(pictures)?;
                let prompt = self
                    .prompter(&emu, &config)
                    .caption(picture)
                    .map_err(Failure::from)?;
                // The conversation goes on after the caption, which no later prompt continues.
                self.make_room();
                let prefix = self.take_prefix();
                let told =
                    chat::answer(self, listener, (&emu, &config), &prompt, &text, None, seed).await;
                self.keep_prefix(prefix);
                told
            }
            Request::Image { parts, draw, seed } => {
                self.check(&draw)?;
                self.make_room();
                self.ensure_loaded(listener, pack::DECODER).await?;
                let (emu, config) = self.emu()?;
                let prompter = self.prompter(&emu, &config);
                let wanted = marked(&parts, &pictures)?;
                draw::imagine(self, listener, &prompter, &wanted, &draw, seed).await
            }
            Request::Embed {} => {
                let (emu, config) = self.vision()?;
                let picture = one(pictures)?;
                let prompter = self.prompter(&emu, &config);
                let embedded = prompter.embed(&[picture]).map_err(Failure::from)?;
                let Some(embedded) = embedded else {
                    return Ok(());
                };
                let width = embedded.dims()[2];
                let values = emu_model::generate::read(embedded)
                    .await
                    .map_err(Failure::from)?;
                listener
                    .tell(&event("embeddings", &[("rows", rows(&values, width))]))
                    .await
            }
        }
    }

    /// Validates drawing options before anything is fetched or computed.
    fn check(&self, draw: &Draw) -> Result<(), Failure> {
        let model = self.model();
        let config = model.config().decoder.as_ref();
        config.map_or(Ok(()), |config| draw.options(config, 0).map(drop))
    }
}

/// Validates text options before anything is computed.
fn check(text: &Text) -> Result<(), Failure> {
    let plain = GenerationConfig::default();
    text.options(&plain, 0, false)?;
    text.answers()?;
    text.search(&plain).map(drop)
}

fn one(pictures: Vec<RgbImage>) -> Result<RgbImage, Failure> {
    let what = "This call reads one picture. Give exactly one.";
    let [picture] =
        <[RgbImage; 1]>::try_from(pictures).map_err(|_| Failure::new("bad-request", what))?;
    Ok(picture)
}

fn taken(pictures: &[RgbImage], at: usize) -> Result<RgbImage, Failure> {
    let what = || {
        format!(
            "The request names picture {at} of {}. Count from 0.",
            pictures.len()
        )
    };
    pictures
        .get(at)
        .cloned()
        .ok_or_else(|| Failure::new("bad-request", what()))
}

/// Text and pictures of a message. Text is literal: pages have no picture marks.
fn marked(parts: &[Part], pictures: &[RgbImage]) -> Result<Marked, Failure> {
    let mut marked = Marked::default();
    for part in parts {
        let indices = match part {
            Part::Text(text) => {
                marked.say(text);
                continue;
            }
            Part::Image(at) => std::slice::from_ref(at),
            Part::Video(frames) => frames,
        };
        for &at in indices {
            marked.show(taken(pictures, at)?);
        }
    }
    Ok(marked)
}

/// The text of a message, without its pictures.
fn words(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text(text) => Some(text.clone()),
        Part::Image(_) | Part::Video(_) => None,
    };
    parts.iter().filter_map(text).collect()
}

/// Builds a conversation from messages: an optional `system` first, then user and assistant in turn.
fn conversation(messages: &[Message], pictures: &[RgbImage]) -> Result<Conversation, Failure> {
    let wrong = |what: &str| Failure::new("bad-request", what);
    let mut conversation = Conversation::default();
    for (at, message) in messages.iter().enumerate() {
        let said = marked(&message.parts, pictures)?;
        match message.role {
            Role::System if at > 0 => {
                return Err(wrong(
                    "A system message stands elsewhere than first. Put it first.",
                ));
            }
            Role::System if !said.pictures.is_empty() => {
                return Err(wrong(
                    "A system message has a picture. Give text alone there.",
                ));
            }
            Role::System => conversation.system = Some(words(&message.parts)),
            Role::User => conversation.turns.push(Turn {
                user: said,
                answer: String::new(),
            }),
            Role::Assistant => match conversation.turns.last_mut() {
                // Pictures that the model drew are not shown to it again.
                Some(turn) => turn.answer.push_str(&words(&message.parts)),
                None => {
                    return Err(wrong(
                        "The conversation starts with the assistant. Start with the user.",
                    ));
                }
            },
        }
    }
    match conversation.turns.last() {
        None => Err(wrong("The conversation has no user's message. Add one.")),
        Some(turn) if !turn.answer.is_empty() => Err(wrong(
            "The conversation ends with the assistant's message. End with the user's.",
        )),
        Some(_) => Ok(conversation),
    }
}
