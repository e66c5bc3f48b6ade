//! WGSL kernels: shader templates, their constants, and launches.
//!
//! Natively a raw shader runs without bounds checks and with uninitialized workgroup memory: every shader guards its indices
//! and writes workgroup memory before it reads it.

use burn::tensor::{DType, Shape};
use burn_wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate};
use cubecl::prelude::{CubeCount, CubeDim, KernelId};
use cubecl::server::{KernelArguments, MetadataBindingInfo};

use crate::variants;

mod activation;
mod attention;
#[cfg(not(target_family = "wasm"))]
mod attention_backward;
mod beams;
mod conv;
mod decode;
mod group_norm;
pub mod matmul;
mod norm;
mod sampling;
#[cfg(not(target_family = "wasm"))]
mod texts;

#[cfg(test)]
pub mod emulated;

pub use burn_wgpu::into_contiguous;

/// Limit of workgroups per dispatch axis on every adapter.
const MOST_WORKGROUPS: usize = 65_535;

/// A shader template with its constants.
#[derive(Clone, Debug)]
pub struct Shader {
    /// Template text, with `{{name}}` for constants. Lines between `//@if name` and `//@end` are kept if the constant is not 0;
    /// lines between `//@each name` and `//@end` are repeated as often as it says, with `{{nth}}` counting from 0.
    pub text: &'static str,
    /// Kernel name.
    pub name: &'static str,
    /// Values of the constants. Everything that alters the text is here, and so in the kernel's cache key.
    pub constants: Vec<(&'static str, usize)>,
    /// Workgroup size.
    pub invocations: usize,
}

/// Directive that browsers require of a kernel with subgroups.
const SUBGROUPS: &str = "enable subgroups;\n";

impl KernelSource for Shader {
    fn source(&self) -> SourceTemplate {
        let mut text = self.chosen();
        // Native naga accepts subgroups without the directive, and rejects the directive.
        if cfg!(target_family = "wasm") && self.is_on("subgroups") {
            text.insert_str(0, SUBGROUPS);
        }
        #[cfg(test)]
        if self.is_on("emulated") {
            return self.filled(emulated::text(&text));
        }
        #[cfg(not(target_family = "wasm"))]
        texts::keep(self.name, self.text, &self.constants, || {
            self.for_browsers()
        });
        self.filled(text)
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info((self.name, self.constants.clone()))
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// An f32 as a constant: its bits, since constants are integers.
pub fn bits(value: f64) -> usize {
    (value as f32).to_bits() as usize
}

/// The constants that select reductions by subgroups or by trees in workgroup memory.
pub fn reductions(subgroups: bool) -> Vec<(&'static str, usize)> {
    #[cfg(test)]
    if let Some(constants) = emulated::constants().filter(|_| subgroups) {
        return constants;
    }
    vec![
        ("subgroups", usize::from(subgroups)),
        ("trees", usize::from(!subgroups)),
    ]
}

/// The constants that select the variant for hardware or software adapters, and for the latter whether invocations of a quad
/// share loads (`quads`) or each loads alone (`alone`).
pub fn adapters(software: bool) -> Vec<(&'static str, usize)> {
    let quads = software && variants::quads();
    [
        ("hardware", !software),
        ("software", software),
        ("quads", quads),
        ("subgroups", quads),
        ("alone", !quads),
    ]
    .map(|(name, on)| (name, usize::from(on)))
    .to_vec()
}

impl Shader {
    /// The text as compiled by browsers.
    #[cfg(not(target_family = "wasm"))]
    fn for_browsers(&self) -> String {
        let head = if self.is_on("subgroups") {
            SUBGROUPS
        } else {
            ""
        };
        format!("{head}{}", self.filled(self.chosen()).complete())
    }

    /// The value of a constant, if given.
    fn given(&self, name: &str) -> Option<usize> {
        let found = self.constants.iter().find(|c| c.0 == name);
        found.map(|c| c.1)
    }

    /// The value of a constant named by the text.
    ///
    /// # Panics
    /// If the constant is missing. A default of 0 would turn a misspelt name silently into another kernel, or a slow one.
    fn value(&self, name: &str) -> usize {
        match self.given(name) {
            Some(value) => value,
            None => panic!(
                "the shader {} names the constant `{name}`, which it is not given",
                self.name
            ),
        }
    }

    /// Fills in the constants.
    fn filled(&self, text: String) -> SourceTemplate {
        for place in text.split("{{").skip(1) {
            self.value(place.split_once("}}").map_or(place, |(name, _)| name));
        }
        let template = SourceTemplate::new(text);
        self.constants.iter().fold(template, |t, (name, value)| {
            t.register(*name, value.to_string())
        })
    }

    /// Whether a constant is given and not 0.
    fn is_on(&self, name: &str) -> bool {
        self.given(name).is_some_and(|value| value != 0)
    }

    /// The text with sections selected and repeated.
    fn chosen(&self) -> String {
        self.section(&mut self.text.lines())
    }

    /// The selected lines up to the end of the current section.
    fn section(&self, lines: &mut core::str::Lines<'_>) -> String {
        let mut text = String::new();
        while let Some(line) = lines.next() {
            let Some(mark) = line.trim().strip_prefix("//@") else {
                text.push_str(line);
                text.push('\n');
                continue;
            };
            if mark == "end" {
                break;
            }
            let inner = self.section(lines);
            if let Some(name) = mark.strip_prefix("each ") {
                for nth in 0..self.value(name) {
                    text.push_str(&inner.replace("{{nth}}", &nth.to_string()));
                }
            } else if let Some(name) = mark.strip_prefix("if ") {
                if self.value(name) != 0 {
                    text.push_str(&inner);
                }
            } else {
                panic!(
                    "the shader {} has a mark `{mark}`, which is none",
                    self.name
                );
            }
        }
        text
    }

    /// Dispatches `workgroups`, with the tensors bound in order. All tensors are contiguous.
    pub fn launch(self, workgroups: [usize; 3], tensors: &[&CubeTensor]) {
        self.launch_with(workgroups, tensors, &[]);
    }

    /// Same, with `words` in a uniform buffer that is bound after the tensors: values that change too often to be constants. The
    /// runtime caches such buffers, so repeated values cost nothing.
    pub fn launch_with(self, workgroups: [usize; 3], tensors: &[&CubeTensor], words: &[u32]) {
        let Some(first) = tensors.first() else {
            return;
        };
        if workgroups.contains(&0) {
            return;
        }
        let [x, y, z] = workgroups.map(|n| n as u32);
        let client = first.client.clone();
        let bindings = tensors.iter().map(|t| t.handle.clone().binding()).collect();
        let words = words.chunks(2).map(|pair| {
            let high = pair.get(1).copied().unwrap_or(0);
            u64::from(pair[0]) | u64::from(high) << 32
        });
        let words = words.collect();
        let size = CubeDim::new_1d(self.invocations as u32);
        client.launch(
            Box::new(SourceKernel::new(self, size)),
            CubeCount::Static(x, y, z),
            KernelArguments::new()
                .with_buffers(bindings)
                .with_info(MetadataBindingInfo::custom(words)),
        );
        if crate::throttle::launched() {
            // An error is reported when a result is read back.
            client.flush().ok();
            crate::count::flushed();
        }
    }
}

/// A grid of `n` workgroups within every adapter's limits; a shader computes `x + y * width` and skips indices from `n` on.
pub fn grid(n: usize) -> [usize; 3] {
    let rows = n.div_ceil(MOST_WORKGROUPS).max(1);
    [n.div_ceil(rows), rows, 1]
}

/// Copies `tensor` if it shares its buffer with `other`: a buffer must not be bound twice in one dispatch.
pub fn apart(tensor: CubeTensor, other: &CubeTensor) -> CubeTensor {
    let same = tensor.handle.memory.descriptor() == other.handle.memory.descriptor();
    if same { tensor.copy() } else { tensor }
}

/// A new uninitialized f32 tensor on the device of `like`.
pub fn output(like: &CubeTensor, shape: Shape) -> CubeTensor {
    output_of(like, shape, DType::F32)
}

/// A new uninitialized tensor on the device of `like`.
pub fn output_of(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    let handle = client.empty(shape.num_elements() * dtype.size());
    CubeTensor::new_contiguous(client, device, shape, handle, dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shader(text: &'static str) -> Shader {
        Shader {
            text,
            name: "planted",
            constants: vec![("subgroups", 1), ("off", 0), ("times", 2), ("size", 7)],
            invocations: 1,
        }
    }

    #[test]
    fn sections_and_constants_are_filled_in() {
        let text = "//@if subgroups\na {{size}}\n//@if off\nb\n//@end\n//@end\n//@each times\nc{{nth}}\n//@end\n";
        assert_eq!(shader(text).source().complete(), "a 7\nc0\nc1\n");
        let for_browsers = format!("{SUBGROUPS}a 7\nc0\nc1\n");
        assert_eq!(shader(text).for_browsers(), for_browsers);
        assert_eq!(
            shader("//@each off\nc{{nth}}\n//@end\n")
                .source()
                .complete(),
            ""
        );
    }

    #[test]
    fn a_name_that_no_constant_has_is_an_error() {
        for (text, name) in [
            ("//@if subgrops\nfast\n//@end\n", "`subgrops`"),
            ("//@each tmes\nfast\n//@end\n", "`tmes`"),
            ("const SIZE = {{sise}}u;\n", "`sise`"),
            // In a disabled section too, and as the rest of a line.
            (
                "//@if off\n//@if subgrops\nfast\n//@end\n//@end\n",
                "`subgrops`",
            ),
            ("{{nth}}\n", "`nth`"),
            ("{{size}\n", "`size}"),
            ("//@unless off\nfast\n//@end\n", "`unless off`"),
        ] {
            let planted = std::panic::catch_unwind(|| shader(text).source().complete());
            let said = planted.expect_err(text);
            let said = said.downcast_ref::<String>().expect("a message");
            assert!(
                said.contains("planted") && said.contains(name),
                "{text}: {said}"
            );
        }
    }
}
