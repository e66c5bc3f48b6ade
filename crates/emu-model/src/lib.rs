//! emu-model
pub mod image;
