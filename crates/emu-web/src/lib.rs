//! Emu in a page: the WASM API called by the package's worker.
//!
//! Each module has one device, chosen by the feature `webgpu` or `cpu`. Long operations run as state machines. After each
//! step an event is sent to JavaScript and its answer awaited, so that the worker can abort between two steps.

#![cfg(target_family = "wasm")]

mod answer;
mod chat;
mod draw;
mod engine;
mod error;
mod events;
mod object;
#[cfg(feature = "peers")]
mod peers;
mod request;

use std::cell::RefCell;

use emu_kernels::device;
use emu_kernels::selftest;
use js_sys::Function;
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;

use crate::error::Failure;
use crate::events::Listener;

pub use engine::Engine;

thread_local! {
    static ON_PANIC: RefCell<Option<Function>> = const { RefCell::new(None) };
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Module initialization; runs once on instantiation.
#[wasm_bindgen(start)]
pub fn start() {
    // Without an explicit call the linker wraps every export, and each call into the module would run all constructors
    // again.
    // SAFETY: called once, before anything else in this module.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|info| {
        let tell = ON_PANIC.try_with(|tell| tell.try_borrow().ok().and_then(|tell| tell.clone()));
        if let Ok(Some(tell)) = tell {
            let _ = tell.call1(&JsValue::NULL, &JsValue::from_str(&info.to_string()));
        }
    }));
}

/// Sets a callback that receives the message of a panic in this instance. A panic ends the instance, and pending promises
/// never resolve. Other instances in the process (in Node) have their own callback.
#[wasm_bindgen(js_name = onPanic)]
pub fn on_panic(tell: Function) {
    ON_PANIC.set(Some(tell));
}

/// Version of this crate, which is that of the package.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Opens the module's device; call once per instance.
///
/// # Errors
/// `no-adapter` if there is none.
#[wasm_bindgen]
pub async fn open() -> Result<JsValue, JsValue> {
    let opened = device::open_async().await.map_err(Failure::from)?;
    let kind = if cfg!(feature = "webgpu") {
        "webgpu"
    } else {
        "cpu"
    };
    let description = object::object(&[
        ("kind", kind.into()),
        ("name", opened.name.as_str().into()),
        ("software", (!opened.hardware).into()),
    ]);
    engine::set_device(opened);
    Ok(description)
}

/// Declares that the device was opened with subgroups, and the size in invocations of the smallest. Code that wraps
/// `requestDevice` to add the feature calls this before anything runs.
#[cfg(feature = "webgpu")]
#[wasm_bindgen]
pub fn subgroups(invocations: u32) {
    emu_kernels::variants::opened_with_subgroups(invocations);
}

/// Runs the self-test: every kind of kernel on small known input. `on_progress(done, total)` is awaited after each.
///
/// # Errors
/// `self-test` names the failed operation; `aborted` if `on_progress` answers `false`.
#[wasm_bindgen(js_name = selfTest)]
pub async fn self_test(on_progress: Function) -> Result<(), JsValue> {
    let device = engine::device()?.device;
    let total = selftest::CASES.len();
    for (done, case) in selftest::CASES.iter().enumerate() {
        case.run(&device).await.map_err(Failure::from)?;
        Listener::new(&on_progress)
            .progress(done + 1, total)
            .await?;
    }
    Ok(())
}

/// Panics; for tests of the worker's replacement.
#[wasm_bindgen]
pub fn panic() {
    panic!("asked for by a test");
}

/// Incremental SHA-256.
#[wasm_bindgen]
#[derive(Debug, Default)]
pub struct Hasher(Sha256);

#[wasm_bindgen]
impl Hasher {
    /// An empty hash.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Digest of everything so far, in lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        emu_pack::hex(self.0.clone().finalize().as_slice())
    }
}
