//! emu-kernels
