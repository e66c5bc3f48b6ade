//! Instruction sets, and jobs compiled for each of them.

use super::simd::{Portable, Simd};
#[cfg(target_family = "wasm")]
use super::wasm;
#[cfg(target_arch = "x86_64")]
use super::x86;

/// An instruction set with an implementation of byte products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// No specific instruction set.
    Portable,
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// WebAssembly SIMD.
    #[cfg(target_family = "wasm")]
    Simd128,
}

impl Isa {
    /// All instruction sets, fastest first.
    pub const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::AvxVnni,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_family = "wasm")]
        Self::Simd128,
        Self::Portable,
    ];

    /// Whether this machine supports it.
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => is_x86_feature_detected!("avxvnni") && Self::Avx2.available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_family = "wasm")]
            Self::Simd128 => true,
        }
    }

    /// The fastest one that this machine supports.
    pub fn best() -> Self {
        let mut all = Self::ALL.iter().copied();
        all.find(|isa| isa.available()).unwrap_or(Self::Portable)
    }

    /// Runs a job, compiled for this instruction set.
    pub fn run<J: Job>(self, job: J) -> J::Output {
        assert!(self.available(), "{self:?} is not there");
        match self {
            // SAFETY: needs no specific instructions.
            Self::Portable => unsafe { job.run::<Portable>() },
            // SAFETY: available, as asserted above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::AvxVnni => unsafe { avx_vnni(job) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2(job) },
            #[cfg(target_family = "wasm")]
            // SAFETY: the module is compiled for it.
            Self::Simd128 => unsafe { job.run::<wasm::Simd128>() },
        }
    }
}

/// Code that is compiled once per instruction set. Implementations are inlined into the functions below.
pub trait Job {
    /// The result.
    type Output;
    /// Runs the job.
    ///
    /// # Safety
    /// The instruction set must be available.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// # Safety
/// The CPU features must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn avx512<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's guarantee.
    unsafe { job.run::<x86::Avx512>() }
}

/// # Safety
/// The CPU features must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
unsafe fn avx_vnni<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx2<true>>() }
}

/// # Safety
/// The CPU features must be available.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<J: Job>(job: J) -> J::Output {
    // SAFETY: the caller's.
    unsafe { job.run::<x86::Avx2<false>>() }
}
