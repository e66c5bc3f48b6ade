//! emu-train
