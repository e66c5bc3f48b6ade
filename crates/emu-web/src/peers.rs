//! A language model alone, from a GGUF file in memory: what `tests/peers/wllama.mjs` measures. No part of the package.

use std::io::Cursor;

use emu_model::TextModel;
use emu_model::generate::{TextEvent, TextOptions};
use emu_model::text::{Message, Speaker};
use emu_pack::convert::GgufFile;
use js_sys::Function;
use wasm_bindgen::prelude::*;

use crate::engine;
use crate::error::Failure;

/// A language model.
#[wasm_bindgen]
#[derive(Debug)]
pub struct TextPeer(TextModel);

#[wasm_bindgen]
impl TextPeer {
    /// From the bytes of a GGUF file, on the device that [`open`](crate::open) opened.
    ///
    /// # Errors
    /// Where the file is damaged or of a kind that is not supported.
    #[wasm_bindgen(constructor)]
    pub fn new(file: Vec<u8>) -> Result<TextPeer, JsValue> {
        let device = engine::device()?.device;
        let said = |code, error: &dyn std::fmt::Display| Failure::new(code, error.to_string());
        let file = GgufFile::from_reader("the model", Cursor::new(file))
            .map_err(|e| said(e.code(), &e))?;
        let model = TextModel::from_gguf(file.metadata(), &file, &device);
        Ok(Self(model.map_err(|e| said(e.code(), &e))?))
    }

    /// Answers a question with at most so many of the most likely tokens, and calls `on_token` after each. Returns the
    /// number of the prompt's tokens.
    ///
    /// # Errors
    /// Where the question does not fit the context.
    pub async fn answer(
        &self,
        question: String,
        tokens: usize,
        on_token: Function,
    ) -> Result<usize, JsValue> {
        let said = |code, error: &dyn std::fmt::Display| Failure::new(code, error.to_string());
        let (speaker, text) = (Speaker::User, question);
        let prompt = self.0.chat(&[Message { speaker, text }]);
        let prompt = prompt.map_err(|e| said(e.code(), &e))?;
        let options = TextOptions {
            max_new_tokens: tokens,
            ..Default::default()
        };
        let mut machine = { self.0.generate(&prompt, options) }.map_err(Failure::from)?;
        while let TextEvent::Token(id) = machine.step().await.map_err(Failure::from)? {
            on_token.call1(&JsValue::NULL, &id.into())?;
        }
        Ok(prompt.ids.len())
    }
}
