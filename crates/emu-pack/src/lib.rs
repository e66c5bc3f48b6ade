//! emu-pack
