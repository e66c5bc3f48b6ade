//! The engine: a model whose weights are streamed shard by shard, and its requests.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use emu_kernels::count;
use emu_kernels::device::Opened;
use emu_kernels::packed::keeps_halves;
use emu_model::Emu;
use emu_model::config::{EmuConfig, GenerationConfig};
use emu_model::generate::Cost;
use emu_model::image::RgbImage;
use emu_model::pack::{self, LoadError};
use emu_model::prompt::{Conversation, Marked, Prompter, Turn};
use emu_model::streamed::Streamed;
use emu_model::tokenizer::EmuTokenizer;
use js_sys::{Array, Function};
use wasm_bindgen::prelude::*;

use crate::chat;
use crate::draw;
use crate::error::Failure;
use crate::events::{Listener, event, object, rows};
use crate::request::{self, Draw, Message, Part, Request, Role, Text};

thread_local! {
    static DEVICE: RefCell<Option<Opened>> = const { RefCell::new(None) };
}

/// Stores the opened device of the module.
pub fn set_device(opened: Opened) {
    DEVICE.with_borrow_mut(|device| *device = Some(opened));
}

/// The opened device of the module.
///
/// # Errors
/// `not-open` if there is none yet.
pub fn device() -> Result<Opened, Failure> {
    let opened = DEVICE.with_borrow(Clone::clone);
    opened.ok_or_else(|| {
        Failure::new(
            "not-open",
            "The device is not open yet. Await open() first.",
        )
    })
}

/// A model on the module's device.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Engine {
    model: RefCell<Streamed>,
    tokenizer: EmuTokenizer,
    opened: Opened,
    /// Only one request runs at a time.
    busy: Cell<bool>,
}

#[wasm_bindgen]
impl Engine {
    /// Creates a model without weights from the bytes of `emu.json` and `tokenizer.json`.
    ///
    /// # Errors
    /// One of them is invalid, or they do not match.
    #[wasm_bindgen(constructor)]
    pub fn new(manifest: &[u8], tokenizer: &[u8]) -> Result<Engine, JsValue> {
        Ok(Self::build(manifest, tokenizer)?)
    }

    fn build(manifest: &[u8], tokenizer: &[u8]) -> Result<Self, Failure> {
        let opened = device()?;
        let model = Streamed::new(manifest, &opened.device)?;
        model
            .manifest()
            .check_file(pack::TOKENIZER, tokenizer)
            .map_err(LoadError::Pack)?;
        let tokenizer = EmuTokenizer::from_json_bytes(tokenizer)?;
        let (has, wants) = (tokenizer.vocab_size(), model.config().emu.lm.vocab);
        if has > wants {
            let what = format!(
                "The pack's tokenizer has {has} tokens, its language model {wants}. Convert the model again with its own tokenizer."
            );
            return Err(Failure::new("bad-tokenizer", what));
        }
        Ok(Self {
            model: RefCell::new(model),
            tokenizer,
            opened,
            busy: Cell::new(false),
        })
    }

    /// Verifies a shard and uploads the tensors that it completes.
    ///
    /// # Errors
    /// Its hash, its length or a tensor is wrong.
    pub fn shard(&self, file: &str, bytes: &[u8]) -> Result<(), JsValue> {
        let taken = self.model.borrow_mut().shard(file, bytes);
        Ok(taken.map_err(Failure::from)?)
    }

    /// Checks that every tensor of a component is present.
    ///
    /// # Errors
    /// `missing-tensor` otherwise.
    pub async fn finish(&self, component: &str) -> Result<(), JsValue> {
        let finished = self.model.borrow_mut().finish(component);
        Ok(finished.map_err(Failure::from)?)
    }

    /// Drops a component's weights.
    ///
    /// # Errors
    /// `no-component` if the pack has no such component.
    pub fn unload(&self, component: &str) -> Result<(), JsValue> {
        let dropped = self.model.borrow_mut().unload(component);
        Ok(dropped.map_err(Failure::from)?)
    }

    /// Whether a component is loaded.
    pub fn loaded(&self, component: &str) -> bool {
        self.model.borrow().is_loaded(component)
    }

    /// Device memory of each component's weights once loaded, in bytes: quantized matrices stay packed, on a GPU f16 matrices
    /// stay f16, and the rest is widened to f32.
    pub fn resident(&self) -> JsValue {
        let model = self.model.borrow();
        let halves = keeps_halves(&self.opened.device);
        let mut bytes: BTreeMap<&str, f64> = BTreeMap::new();
        for tensor in &model.manifest().tensors {
            let size = model.manifest().resident_bytes(tensor, halves) as f64;
            *bytes.entry(pack::component(&tensor.name)).or_default() += size;
        }
        let entries: Vec<_> = bytes.into_iter().map(|(k, v)| (k, v.into())).collect();
        object(&entries)
    }

    /// Memory in bytes: allocated on the device (0 if the device does not count it), and of the WASM module.
    pub fn memory(&self) -> JsValue {
        let device = self.opened.device.memory_pool_usage();
        let device = device.map_or(0, |usage| usage.bytes_reserved) as f64;
        let wasm = core::arch::wasm32::memory_size(0) as f64 * 65_536.0;
        object(&[("device", device.into()), ("wasm", wasm.into())])
    }

    /// Weight traffic in bytes: read by matrix products since the module started, and read per token of the language model (0 if
    /// it is not loaded).
    pub fn weights(&self) -> JsValue {
        let model = self.model.borrow();
        let token = model.emu().map_or(0, |(emu, _)| emu.lm.weight_bytes());
        let moved = count::weight_bytes();
        object(&[
            ("moved", (moved as f64).into()),
            ("token", (token as f64).into()),
        ])
    }

    /// Runs a request. `on_event` is awaited after every step; the answer `false` aborts the request.
    ///
    /// # Errors
    /// `aborted`; `busy` while another request runs; any error of the request, the model or the device.
    pub async fn run(
        &self,
        request: JsValue,
        pictures: Array,
        on_event: Function,
    ) -> Result<(), JsValue> {
        if self.busy.replace(true) {
            let what = "Another request is running. Await its end, or use a second engine.";
            return Err(Failure::new("busy", what).into());
        }
        let listener = Listener::new(&on_event);
        let done = self.answer(&request, &pictures, &listener).await;
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
                let drawing = images.then_some(&draw);
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
                chat::answer(self, listener, (&emu, &config), &prompt, &text, None, seed).await
            }
            Request::Image { parts, draw, seed } => {
                self.check(&draw)?;
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
        let model = self.model.borrow();
        let config = model.config().decoder.as_ref();
        config.map_or(Ok(()), |config| draw.options(config, 0).map(drop))
    }

    /// A shared handle to the model; a running request keeps it, whatever happens to the engine meanwhile.
    fn emu(&self) -> Result<(Emu, EmuConfig), Failure> {
        let model = self.model.borrow();
        let (emu, config) = model.emu()?;
        Ok((emu.clone(), config.clone()))
    }

    fn vision(&self) -> Result<(Emu, EmuConfig), Failure> {
        let model = self.model.borrow();
        let (emu, config) = model.vision()?;
        Ok((emu.clone(), config.clone()))
    }

    fn prompter<'a>(&'a self, emu: &'a Emu, config: &'a EmuConfig) -> Prompter<'a> {
        Prompter {
            emu,
            config,
            tokenizer: &self.tokenizer,
            device: &self.opened.device,
        }
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> &EmuTokenizer {
        &self.tokenizer
    }

    /// Size in bytes of the largest buffer binding of a kernel on this device.
    pub(crate) fn binding(&self) -> f64 {
        self.opened
            .binding
            .map_or(f64::INFINITY, |bytes| bytes as f64)
    }

    /// The device.
    pub(crate) fn device(&self) -> &emu_kernels::burn::tensor::Device {
        &self.opened.device
    }

    /// The model, as far as it is loaded.
    pub(crate) fn model(&self) -> std::cell::Ref<'_, Streamed> {
        self.model.borrow()
    }

    /// Requests a component from JavaScript if it is not loaded.
    pub(crate) async fn ensure_loaded(
        &self,
        listener: &Listener<'_>,
        component: &str,
    ) -> Result<(), JsValue> {
        if !self.loaded(component) {
            listener
                .tell(&event("need", &[("component", component.into())]))
                .await?;
        }
        match self.loaded(component) {
            true => Ok(()),
            false => Err(Failure::from(LoadError::NotLoaded {
                component: component.into(),
            })
            .into()),
        }
    }
}

/// The cost of a generation, as an event.
pub fn usage(prompt_tokens: usize, tokens: usize, finish: &str, cost: Cost) -> JsValue {
    event(
        "usage",
        &[
            ("promptTokens", prompt_tokens.into()),
            ("tokens", tokens.into()),
            ("finish", finish.into()),
            ("prefills", cost.prefills.into()),
            ("steps", cost.steps.into()),
        ],
    )
}

/// Validates text options before anything is computed.
fn check(text: &Text) -> Result<(), Failure> {
    let plain = GenerationConfig::default();
    text.options(&plain, 0, false)?;
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
                // Pictures drawn by the model are not fed back to it.
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
