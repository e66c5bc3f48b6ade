#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| emu_media::fuzzing::image(data));
