//! Errors as passed to JavaScript: `{ code, message }`.

use emu_kernels::device::DeviceError;
use emu_kernels::selftest::SelfTestError;
use emu_media::image::ImageError;
use emu_model::diffusion::DrawError;
use emu_model::generate::GenerateError;
use emu_model::pack::LoadError;
use emu_model::prompt::PromptError;
use emu_model::safety::CheckError;
use emu_tokenizer::TokenizerError;
use wasm_bindgen::JsValue;

use crate::object::object;

/// An error: a stable code, and a message that says what is wrong and what to do.
#[derive(Debug)]
pub struct Failure {
    code: &'static str,
    message: String,
}

impl Failure {
    /// An error of this API.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The error of an aborted call.
    pub fn aborted() -> Self {
        Self::new(
            "aborted",
            "The call was aborted. Start it again when you like.",
        )
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        object(&[
            ("code", failure.code.into()),
            ("message", failure.message.as_str().into()),
        ])
    }
}

macro_rules! coded {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.code(), error.to_string())
            }
        }
    )*};
}

coded!(
    DeviceError,
    DrawError,
    GenerateError,
    LoadError,
    PromptError,
    SelfTestError
);

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::new("bad-image", error.to_string())
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Self {
        Self::new("bad-tokenizer", error.to_string())
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Image(error) => error.into(),
            CheckError::Device(error) => error.into(),
        }
    }
}
