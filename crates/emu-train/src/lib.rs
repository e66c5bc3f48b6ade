//! emu-train

pub mod data;
