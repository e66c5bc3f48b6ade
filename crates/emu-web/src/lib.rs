//! emu-web
