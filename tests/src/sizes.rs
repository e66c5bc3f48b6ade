//! Sizes of models that train in tests.

use emu_model::EmuConfig;
use emu_model::config::StemConfig;
use emu_train::stages::corpus::Words;

/// An Emu small enough for a software GPU.
///
/// # Panics
/// If its sizes contradict each other.
pub fn small_emu(words: &Words, lm_layers: usize) -> EmuConfig {
    let mut emu = EmuConfig::emu_mini(words.vocab(), words.special);
    (emu.vision.width, emu.vision.layers, emu.vision.head_width) = (32, 1, 16);
    emu.vision.stem = Some(StemConfig {
        channels: vec![8, 8, 16, 32],
        blocks: vec![0, 0, 1, 1],
        groups: 4,
    });
    let causal = emu.causal.as_mut().expect("a causal former");
    (causal.d_model, causal.d_kv, causal.d_ff) = (32, 16, 48);
    (causal.layers, causal.heads) = (1, 2);
    let lm = &mut emu.lm;
    (lm.width, lm.ffn, lm.layers) = (32, 64, lm_layers);
    (lm.heads, lm.kv_heads, lm.head_size) = (2, 2, 16);
    emu.validate().expect("sizes");
    emu
}
