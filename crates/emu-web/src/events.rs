//! Events sent to JavaScript during a request.

use emu_media::image::RgbImage;
use js_sys::{Float32Array, Function, Promise, Reflect, Uint8ClampedArray};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::error::Failure;
use crate::object::object;

/// An event object with this `type`.
pub fn event(kind: &str, entries: &[(&str, JsValue)]) -> JsValue {
    let event = object(entries);
    let _ = Reflect::set(&event, &JsValue::from_str("type"), &JsValue::from_str(kind));
    event
}

/// A picture as `{ rgba, width, height }`, opaque.
pub fn picture(image: &RgbImage) -> Vec<(&'static str, JsValue)> {
    let rgba: Vec<u8> = image
        .pixels()
        .flat_map(|p| [p.0[0], p.0[1], p.0[2], u8::MAX])
        .collect();
    vec![
        ("rgba", Uint8ClampedArray::from(rgba.as_slice()).into()),
        ("width", image.width().into()),
        ("height", image.height().into()),
    ]
}

/// An array with one `Float32Array` per row.
pub fn rows(values: &[f32], width: usize) -> JsValue {
    let rows: js_sys::Array = values
        .chunks(width.max(1))
        .map(|row| JsValue::from(Float32Array::from(row)))
        .collect();
    rows.into()
}

/// A JavaScript callback that receives events and answers whether to continue.
#[derive(Debug)]
pub struct Listener<'a>(&'a Function);

impl<'a> Listener<'a> {
    /// Wraps a function that returns a boolean or a promise of one.
    pub fn new(function: &'a Function) -> Self {
        Self(function)
    }

    /// Sends an event and awaits the answer.
    ///
    /// # Errors
    /// [`Failure::aborted`] if the answer is `false`; any exception of the function.
    pub async fn tell(&self, event: &JsValue) -> Result<(), JsValue> {
        Self::answer(self.0.call1(&JsValue::NULL, event)?).await
    }

    /// Sends the progress and awaits the answer.
    ///
    /// # Errors
    /// As [`Listener::tell`].
    pub async fn progress(&self, done: usize, total: usize) -> Result<(), JsValue> {
        let (done, total) = (JsValue::from(done), JsValue::from(total));
        Self::answer(self.0.call2(&JsValue::NULL, &done, &total)?).await
    }

    async fn answer(answer: JsValue) -> Result<(), JsValue> {
        let answer = match answer.dyn_into::<Promise>() {
            Ok(promise) => JsFuture::from(promise).await?,
            Err(answer) => answer,
        };
        match answer.as_bool() {
            Some(false) => Err(Failure::aborted().into()),
            _ => Ok(()),
        }
    }
}
