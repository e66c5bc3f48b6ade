//! Philox4x32-10: a counter-based generator whose bits are the same on every machine and device.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011); constants of Random123.

/// A stream of random numbers keyed by `(seed, stream, step)`. The position in it is a counter, so any element can be
/// computed without its predecessors, and nothing has to be saved to resume.
#[derive(Clone, Debug)]
pub struct Philox {
    key: [u32; 2],
    stream: u32,
    step: u32,
    index: u64,
    buffer: [u32; 4],
    used: usize,
}

/// Purpose of a stream. Each use has its own, so that adding draws to one never changes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Initial weights.
    Init = 1,
    /// Initial latents of an image.
    Latents = 2,
    /// Noise added by a stochastic sampler while denoising.
    SamplerNoise = 3,
    /// Token sampling.
    Tokens = 4,
    /// Order and mixture of the training data.
    Data = 5,
    /// Random choices inside a training step: timesteps, condition drop, dropout.
    Training = 6,
    /// Noise of the denoising loss.
    TrainingNoise = 7,
}

fn round(c: [u32; 4], k: [u32; 2]) -> [u32; 4] {
    let p0 = u64::from(c[0]) * 0xD251_1F53;
    let p1 = u64::from(c[2]) * 0xCD9E_8D57;
    [
        (p1 >> 32) as u32 ^ c[1] ^ k[0],
        p1 as u32,
        (p0 >> 32) as u32 ^ c[3] ^ k[1],
        p0 as u32,
    ]
}

/// One block of Philox4x32 with ten rounds.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for i in 0..10 {
        if i > 0 {
            key = [
                key[0].wrapping_add(0x9E37_79B9),
                key[1].wrapping_add(0xBB67_AE85),
            ];
        }
        counter = round(counter, key);
    }
    counter
}

impl Philox {
    /// The stream `(seed, stream, step)`, from its start.
    pub fn new(seed: u64, stream: Stream, step: u64) -> Self {
        Self::with_stream(seed, stream as u32, step)
    }

    /// Like [`Philox::new`], with a custom stream number (16 and above are free).
    pub fn with_stream(seed: u64, stream: u32, step: u64) -> Self {
        let key = [seed as u32, (seed >> 32) as u32];
        // Steps beyond 2^32 fold into the stream word, whose upper half no `Stream` uses.
        let stream = stream ^ (((step >> 32) as u32) << 16);
        Self {
            key,
            stream,
            step: step as u32,
            index: 0,
            buffer: [0; 4],
            used: 4,
        }
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [
                self.index as u32,
                (self.index >> 32) as u32,
                self.step,
                self.stream,
            ];
            self.buffer = philox4x32_10(counter, self.key);
            self.index += 1;
            self.used = 0;
        }
        let bits = self.buffer[self.used];
        self.used += 1;
        bits
    }

    /// Uniform in `[0, 1)`, 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform integer in `0..n` (`n` at least 1; `0` counts as 1).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next_u32()) * n.max(1) as u64) >> 32) as usize
    }

    /// Standard normals (Box-Muller in f64 through `libm`, so that the bits do not depend on the platform).
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(n + 1);
        while out.len() < n {
            // (0, 1], so that the logarithm is finite.
            let u = (f64::from(self.next_u32()) + 1.0) / 4_294_967_296.0;
            let v = f64::from(self.next_u32()) / 4_294_967_296.0;
            let r = libm::sqrt(-2.0 * libm::log(u));
            let angle = 2.0 * core::f64::consts::PI * v;
            out.push((r * libm::cos(angle)) as f32);
            out.push((r * libm::sin(angle)) as f32);
        }
        out.truncate(n);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn known_answers() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normals_have_unit_variance() {
        let x = Philox::new(7, Stream::Latents, 0).normals(100_000);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / x.len() as f32;
        assert!(
            mean.abs() < 0.02 && (var - 1.0).abs() < 0.02,
            "{mean} {var}"
        );
    }

    #[test]
    fn streams_and_steps_differ() {
        let a = Philox::new(7, Stream::Latents, 0).next_u32();
        assert_ne!(a, Philox::new(7, Stream::Tokens, 0).next_u32());
        assert_ne!(a, Philox::new(7, Stream::Latents, 1).next_u32());
        assert_ne!(a, Philox::new(7, Stream::Latents, 1 << 33).next_u32());
        assert_ne!(a, Philox::new(8, Stream::Latents, 0).next_u32());
    }
}
