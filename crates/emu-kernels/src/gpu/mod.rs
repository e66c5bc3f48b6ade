//! Kernels of our own in WGSL: filling in a shader's constants, launching it.
//!
//! Natively a raw shader runs without bounds checks and with workgroup memory as it was left: every shader guards its
//! indices and writes what it reads.

use burn::tensor::{DType, Shape};
use burn_wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate};
use cubecl::prelude::{CubeCount, CubeDim, KernelId};
use cubecl::server::{KernelArguments, MetadataBindingInfo};

pub mod attention;
#[cfg(not(target_family = "wasm"))]
pub mod attention_backward;
pub mod conv;
pub mod decode;
pub mod group_norm;
pub mod norm;
pub mod packed;

#[cfg(test)]
pub mod emulated;

pub use burn_wgpu::into_contiguous;

/// Most workgroups along one axis that every adapter has.
const MOST_WORKGROUPS: usize = 65_535;

/// A shader with its constants.
#[derive(Clone, Debug)]
pub struct Shader {
    /// Its text, with `{{name}}` where a constant belongs, and lines between `//@if name` and `//@end` that count where
    /// the constant is not 0.
    pub text: &'static str,
    /// Its name, which tells kernels apart.
    pub name: &'static str,
    /// What takes the places. Everything that alters the text is here, and so in the kernel's identity.
    pub constants: Vec<(&'static str, usize)>,
    /// Invocations of a workgroup.
    pub invocations: usize,
}

impl KernelSource for Shader {
    fn source(&self) -> SourceTemplate {
        let mut text = self.chosen();
        // Browsers want it said; natively naga takes subgroups without and refuses the word.
        if cfg!(target_family = "wasm") && self.is_on("subgroups") {
            text.insert_str(0, "enable subgroups;\n");
        }
        #[cfg(test)]
        if self.is_on("emulated") {
            text = emulated::text(&text);
        }
        let template = SourceTemplate::new(text);
        self.constants.iter().fold(template, |t, (name, value)| {
            t.register(*name, value.to_string())
        })
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info((self.name, self.constants.clone()))
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
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

impl Shader {
    fn is_on(&self, name: &str) -> bool {
        self.constants.iter().any(|c| c.0 == name && c.1 != 0)
    }

    /// The text without the lines that do not count.
    fn chosen(&self) -> String {
        let mut text = String::with_capacity(self.text.len());
        // Whether each of the sections that a line is in counts.
        let mut sections = vec![];
        for line in self.text.lines() {
            match line.trim().strip_prefix("//@") {
                Some(mark) => match mark.strip_prefix("if ") {
                    Some(name) => sections.push(self.is_on(name)),
                    None => drop(sections.pop()),
                },
                None if sections.iter().all(|counts| *counts) => {
                    text.push_str(line);
                    text.push('\n');
                }
                None => {}
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
