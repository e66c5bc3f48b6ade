//! The engine: a model whose weights are streamed shard by shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use emu_kernels::count::Meter;
use emu_kernels::device::Opened;
use emu_kernels::packed::keeps_halves;
use emu_model::Emu;
use emu_model::config::EmuConfig;
use emu_model::generate::{Cost, PrefixCache};
use emu_model::pack::{self, LoadError};
use emu_model::pictures::PictureCache;
use emu_model::prompt::Prompter;
use emu_model::streamed::Streamed;
use emu_tokenizer::EmuTokenizer;
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::events::{Listener, event};
use crate::object::object;

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
    pub(crate) busy: Cell<bool>,
    /// Counts the work of its requests.
    pub(crate) meter: Meter,
    /// Whether the request is a rehearsal. What it computes is void: it neither uses nor leaves anything that is kept.
    pub(crate) rehearses: Cell<bool>,
    /// Sequences of earlier conversations, which later ones continue.
    prefix: RefCell<PrefixCache>,
    /// Visual embeddings of the pictures read before.
    pictures: PictureCache,
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
            meter: Meter::default(),
            rehearses: Cell::new(false),
            prefix: RefCell::default(),
            pictures: PictureCache::default(),
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

    /// Drops a component's weights, and what was computed with them.
    ///
    /// # Errors
    /// `no-component` if the pack has no such component.
    pub fn unload(&self, component: &str) -> Result<(), JsValue> {
        if [pack::VISION, pack::LM].contains(&component) {
            self.prefix.take();
            self.pictures.clear();
        }
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

    /// Weight traffic in bytes: read by matrix products of this engine's requests so far, and read per token of the language
    /// model (0 if it is not loaded).
    pub fn weights(&self) -> JsValue {
        let model = self.model.borrow();
        let token = model.emu().map_or(0, |(emu, _)| emu.lm.weight_bytes());
        let moved = self.meter.weight_bytes();
        object(&[
            ("moved", (moved as f64).into()),
            ("token", (token as f64).into()),
        ])
    }
}

impl Engine {
    /// A shared handle to the model; a running request keeps it, whatever happens to the engine meanwhile.
    pub(crate) fn emu(&self) -> Result<(Emu, EmuConfig), Failure> {
        let model = self.model.borrow();
        let (emu, config) = model.emu()?;
        Ok((emu.clone(), config.clone()))
    }

    pub(crate) fn vision(&self) -> Result<(Emu, EmuConfig), Failure> {
        let model = self.model.borrow();
        let (emu, config) = model.vision()?;
        Ok((emu.clone(), config.clone()))
    }

    pub(crate) fn prompter<'a>(&'a self, emu: &'a Emu, config: &'a EmuConfig) -> Prompter<'a> {
        Prompter {
            emu,
            config,
            tokenizer: &self.tokenizer,
            device: &self.opened.device,
            pictures: (!self.rehearses.get()).then_some(&self.pictures),
        }
    }

    /// Takes the sequences of earlier conversations.
    pub(crate) fn take_prefix(&self) -> PrefixCache {
        match self.rehearses.get() {
            true => PrefixCache::default(),
            false => self.prefix.take(),
        }
    }

    /// Keeps the sequences for later conversations, if the language model is still loaded.
    pub(crate) fn keep_prefix(&self, prefix: PrefixCache) {
        if !self.rehearses.get() && self.loaded(pack::LM) {
            self.prefix.replace(prefix);
        }
    }

    /// Frees large sequences, before work that does not continue them.
    pub(crate) fn make_room(&self) {
        self.prefix.borrow_mut().make_room();
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
            ("cachedTokens", cost.cached_tokens.into()),
            ("prefillTokens", cost.prefill_tokens.into()),
        ],
    )
}
