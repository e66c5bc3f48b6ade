//! Benchmark entry points for `tests/peers` in browsers, not part of the package: a language model alone, from a GGUF file
//! in memory, and single kernels.

use std::io::Cursor;

use emu_kernels::burn::tensor::{Device, Distribution, Tensor};
use emu_kernels::ops::{self, AttentionOptions};
use emu_kernels::packed::{BLOCK, Packed, Scheme};
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
    /// Loads the model from the bytes of a GGUF file, on the device opened by [`open`](crate::open).
    ///
    /// # Errors
    /// The file is damaged or of an unsupported kind.
    #[wasm_bindgen(constructor)]
    pub fn new(file: Vec<u8>) -> Result<TextPeer, JsValue> {
        let device = engine::device()?.device;
        let said = |code, error: &dyn std::fmt::Display| Failure::new(code, error.to_string());
        let file = GgufFile::from_reader("the model", Cursor::new(file))
            .map_err(|e| said(e.code(), &e))?;
        let model = TextModel::from_gguf(file.metadata(), &file, &device);
        Ok(Self(model.map_err(|e| said(e.code(), &e))?))
    }

    /// Answers a question by greedy decoding of at most `tokens` tokens, and calls `on_token` after each. Returns the number of
    /// prompt tokens.
    ///
    /// # Errors
    /// The question exceeds the context.
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

/// Benchmarks of a product with a packed matrix and of attention, for `tests/peers/onnxruntime.mjs`.
#[wasm_bindgen]
#[derive(Debug)]
pub struct KernelPeer {
    work: Work,
    device: Device,
}

#[derive(Debug)]
enum Work {
    Product(Box<(Packed, Tensor<2>)>),
    Attention(Box<[Tensor<4>; 3]>),
}

#[wasm_bindgen]
impl KernelPeer {
    /// The product of a 4-bit matrix `size` x `size` with `rows` rows.
    ///
    /// # Errors
    /// No device is open, or `size` is not a multiple of 32.
    pub fn product(size: usize, rows: usize) -> Result<KernelPeer, JsValue> {
        let device = engine::device()?.device;
        let blocks = size * size / BLOCK;
        let words: Vec<u32> = (0..blocks as u32 * 4)
            .map(|i| i.wrapping_mul(0x9e37_79b9))
            .collect();
        // 1 / 64 in f16.
        let scales = vec![0x2400; blocks];
        let packed = Packed::new(Scheme::Q4, [size, size], &words, &scales, None, &device)
            .map_err(|e| Failure::new("peers", e.to_string()))?;
        let x = Tensor::random([rows, size], Distribution::Default, &device);
        let work = Work::Product(Box::new((packed, x)));
        Ok(Self { work, device })
    }

    /// Attention of `positions` queries over as many keys, without a mask.
    ///
    /// # Errors
    /// No device is open.
    pub fn attention(heads: usize, positions: usize, head: usize) -> Result<KernelPeer, JsValue> {
        let device = engine::device()?.device;
        let make = |_| {
            // The layout after a projection: heads interleaved per position.
            let shape = [1, positions, heads, head];
            Tensor::random(shape, Distribution::Default, &device).swap_dims(1, 2)
        };
        let work = Work::Attention(Box::new([0, 1, 2].map(make)));
        Ok(Self { work, device })
    }

    /// Runs the operation `times` times in sequence, and waits for the last to finish.
    ///
    /// # Errors
    /// The device fails.
    pub async fn run(&self, times: usize) -> Result<(), JsValue> {
        for _ in 0..times {
            match &self.work {
                Work::Product(product) => {
                    let (packed, x) = &**product;
                    drop(packed.linear(x.clone(), None));
                }
                Work::Attention(inputs) => {
                    let [q, k, v] = (**inputs).clone();
                    drop(ops::attention(q, k, v, AttentionOptions::default()));
                }
            }
        }
        // The last submission: its read-back completes after everything before it.
        let end = Tensor::<1>::zeros([1], &self.device)
            .into_data_async()
            .await;
        end.map_err(|e| Failure::new("device", format!("{e:?}")))?;
        Ok(())
    }
}
