//! Plain objects of JavaScript.

use js_sys::{Object, Reflect};
use wasm_bindgen::JsValue;

/// A plain object.
pub fn object(entries: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (key, value) in entries {
        // Setting a field of a fresh plain object has no way to fail.
        let _ = Reflect::set(&object, &JsValue::from_str(key), value);
    }
    object.into()
}
