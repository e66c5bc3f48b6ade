//! Kernels of our own in WGSL: filling in a shader's constants, launching it.
//!
//! Natively a raw shader runs without bounds checks and with workgroup memory as it was left: every shader guards its
//! indices and writes what it reads.

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

/// Most workgroups along one axis that every adapter has.
const MOST_WORKGROUPS: usize = 65_535;

/// A shader with its constants.
#[derive(Clone, Debug)]
pub struct Shader {
    /// Its text, with `{{name}}` where a constant belongs. Lines between `//@if name` and `//@end` count where the constant
    /// is not 0, those between `//@each name` and `//@end` as often as it says, with `{{nth}}` from 0 on.
    pub text: &'static str,
    /// Its name, which tells kernels apart.
    pub name: &'static str,
    /// What takes the places. Everything that alters the text is here, and so in the kernel's identity.
    pub constants: Vec<(&'static str, usize)>,
    /// Invocations of a workgroup.
    pub invocations: usize,
}

/// What browsers want to be told of a kernel with subgroups.
const SUBGROUPS: &str = "enable subgroups;\n";

impl KernelSource for Shader {
    fn source(&self) -> SourceTemplate {
        let mut text = self.chosen();
        // Natively naga takes subgroups without, and refuses the word.
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

/// A number as a constant: the bits of an f32, since constants are whole numbers.
pub fn bits(value: f64) -> usize {
    (value as f32).to_bits() as usize
}

/// The constants that choose between sums by subgroups and by trees in shared memory.
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

/// The constants that choose between what is for hardware and for software adapters, and with that between neighbours that
/// load for each other and invocations that load alone.
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
    /// Its text as browsers get it.
    #[cfg(not(target_family = "wasm"))]
    fn for_browsers(&self) -> String {
        let head = if self.is_on("subgroups") {
            SUBGROUPS
        } else {
            ""
        };
        format!("{head}{}", self.filled(self.chosen()).complete())
    }

    /// A constant's value, where there is one.
    fn given(&self, name: &str) -> Option<usize> {
        let found = self.constants.iter().find(|c| c.0 == name);
        found.map(|c| c.1)
    }

    /// The value of a constant that the text names.
    ///
    /// # Panics
    /// Where there is none. Taken for 0, a misspelt name would give another kernel, or a slow one, without a word.
    fn value(&self, name: &str) -> usize {
        match self.given(name) {
            Some(value) => value,
            None => panic!(
                "the shader {} names the constant `{name}`, which it is not given",
                self.name
            ),
        }
    }

    /// Constants in their places.
    fn filled(&self, text: String) -> SourceTemplate {
        for place in text.split("{{").skip(1) {
            self.value(place.split_once("}}").map_or(place, |(name, _)| name));
        }
        let template = SourceTemplate::new(text);
        self.constants.iter().fold(template, |t, (name, value)| {
            t.register(*name, value.to_string())
        })
    }

    /// Whether a constant is there and not 0.
    fn is_on(&self, name: &str) -> bool {
        self.given(name).is_some_and(|value| value != 0)
    }

    /// The text without the lines that do not count, and those that come again as often as they do.
    fn chosen(&self) -> String {
        self.section(&mut self.text.lines())
    }

    /// What counts of the lines up to the end of the section that they begin in.
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

    /// Runs over `workgroups`, with the tensors bound in order. All of them are contiguous.
    pub fn launch(self, workgroups: [usize; 3], tensors: &[&CubeTensor]) {
        self.launch_with(workgroups, tensors, &[]);
    }

    /// The same with words in a uniform buffer, bound after the tensors: what changes too often to be a constant. The
    /// runtime keeps such buffers, so that words that come again cost nothing.
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
            // What fails is told when a result is asked for.
            client.flush().ok();
            crate::count::flushed();
        }
    }
}

/// `n` workgroups as a grid that every adapter allows; a shader takes `x + y * width` and leaves what is beyond `n`.
pub fn grid(n: usize) -> [usize; 3] {
    let rows = n.div_ceil(MOST_WORKGROUPS).max(1);
    [n.div_ceil(rows), rows, 1]
}

/// `tensor`, copied where it shares its buffer with `other`: a buffer must not be bound twice to one launch.
pub fn apart(tensor: CubeTensor, other: &CubeTensor) -> CubeTensor {
    let same = tensor.handle.memory.descriptor() == other.handle.memory.descriptor();
    if same { tensor.copy() } else { tensor }
}

/// A new tensor beside `like`, of f32, not yet written.
pub fn output(like: &CubeTensor, shape: Shape) -> CubeTensor {
    output_of(like, shape, DType::F32)
}

/// A new tensor beside `like`, not yet written.
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
            // In a section that does not count, too, and as the rest of a line.
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
