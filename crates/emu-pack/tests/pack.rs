//! Packs: written and read back, and everything that can be wrong with one.

mod common;
