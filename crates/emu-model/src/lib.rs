//! emu-model
