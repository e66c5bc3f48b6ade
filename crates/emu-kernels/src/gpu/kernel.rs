//! Kernels as types. A kernel is a key: a struct whose fields are everything that alters its text. The key identifies the
//! pipeline in the runtime's cache, defines what the template may name, and lists the buffers in the order of their bindings.
//!
//! Fields are numbers of the template, not WGSL `override`s. naga 30.0.1 and browsers accept overrides, but the runtime has no
//! way to set them: cubecl-wgpu 0.11.3 creates every pipeline with the default `PipelineCompilationOptions`
//! (`src/backend/base.rs`, line 326), whose `constants` are empty. Numbers that change from call to call are words of a uniform
//! buffer, so that calls share a pipeline.

use core::fmt;
use core::hash::Hash;

use burn_wgpu::{CubeTensor, KernelSource, SourceKernel, SourceTemplate};
use cubecl::CubeKernel;
use cubecl::prelude::{CubeCount, CubeDim, KernelId};
use cubecl::server::{KernelArguments, MetadataBindingInfo};

#[cfg(test)]
use super::emulated;
use super::template::{self, Constants, TemplateError};
#[cfg(not(target_family = "wasm"))]
use super::texts;
use crate::spec::Scheme;
use crate::variants;

/// Directive that browsers require of a kernel with subgroup operations.
const SUBGROUPS: &str = "enable subgroups;\n";

/// A kernel, by its key. Implemented by [`kernel!`]. `Display` is its label: the name and the fields.
pub trait Kernel: Copy + Eq + Hash + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Name of the kernel, and of its file in `shaders/`.
    const NAME: &'static str;
    /// Its template, after the shared parts that it needs.
    const TEMPLATE: &'static str;
    /// Name of the uniform buffer, if any; bound after all others.
    const UNIFORM: Option<&'static str>;
    /// The tensors of a launch.
    type Buffers<'a>;

    /// Workgroup size.
    fn invocations(&self) -> usize;

    /// Names of the bound tensors, by binding.
    fn bindings(&self) -> Vec<&'static str>;

    /// What the template may name: the fields of the key and what follows from them, the bindings as numbers, and for each
    /// tensor of [`Buffers`](Self::Buffers) a switch that tells whether it is bound.
    fn constants(&self) -> Constants;

    /// The bound tensors, by binding; `None` where the launch lacks one.
    fn bound<'a>(&self, buffers: &Self::Buffers<'a>) -> Vec<Option<&'a CubeTensor>>;

    /// The kernel's text.
    ///
    /// # Errors
    /// The template names what the key does not define, or does not bind a tensor that the key lists.
    fn text(&self) -> Result<String, TemplateError> {
        let mut names = self.bindings();
        names.extend(Self::UNIFORM.map(|_| "uniform"));
        text(&self.constants(), Self::TEMPLATE, &names)
    }

    /// Dispatches `workgroups`. All tensors are contiguous, unless the kernel takes strides. `words` are the uniform buffer;
    /// the runtime caches such buffers, so repeated values cost nothing.
    ///
    /// # Panics
    /// A tensor that the key lists is missing.
    fn launch(self, workgroups: [usize; 3], buffers: Self::Buffers<'_>, words: &[u32]) {
        debug_assert_eq!(Self::UNIFORM.is_some(), !words.is_empty(), "{self}");
        if workgroups.contains(&0) {
            return;
        }
        let named = self.bindings().into_iter().zip(self.bound(&buffers));
        let tensors: Vec<&CubeTensor> = named
            .map(|(name, tensor)| match tensor {
                Some(tensor) => tensor,
                None => panic!("the kernel {self} is launched without its buffer `{name}`"),
            })
            .collect();
        let size = CubeDim::new_1d(self.invocations() as u32);
        let kernel = SourceKernel::new(Shader(self), size);
        dispatch(Box::new(kernel), workgroups, &tensors, words);
    }
}

fn text(
    constants: &Constants,
    template: &str,
    bindings: &[&'static str],
) -> Result<String, TemplateError> {
    let text = template::selected(template, constants)?;
    for name in bindings {
        if !text.contains(&format!("@binding({{{{{name}}}}})")) {
            return Err(TemplateError::Unbound(name));
        }
    }
    #[cfg(test)]
    let text = match constants.emulated {
        true => emulated::text(&text),
        false => text,
    };
    template::filled(&text, constants)
}

fn dispatch(
    kernel: Box<dyn CubeKernel>,
    workgroups: [usize; 3],
    tensors: &[&CubeTensor],
    words: &[u32],
) {
    let Some(first) = tensors.first() else {
        return;
    };
    let [x, y, z] = workgroups.map(|n| n as u32);
    let client = first.client.clone();
    let bindings = tensors.iter().map(|t| t.handle.clone().binding()).collect();
    let words = words.chunks(2).map(|pair| {
        let high = pair.get(1).copied().unwrap_or(0);
        u64::from(pair[0]) | u64::from(high) << 32
    });
    client.launch(
        kernel,
        CubeCount::Static(x, y, z),
        KernelArguments::new()
            .with_buffers(bindings)
            .with_info(MetadataBindingInfo::custom(words.collect())),
    );
    if crate::throttle::launched() {
        // An error is reported when a result is read back.
        client.flush().ok();
        crate::count::flushed();
    }
}

/// A kernel as the runtime's source of text.
#[derive(Clone, Copy, Debug)]
struct Shader<K>(K);

impl<K: Kernel> KernelSource for Shader<K> {
    fn source(&self) -> SourceTemplate {
        let key = &self.0;
        let mut text = match key.text() {
            Ok(text) => text,
            // The tests complete the template of every kernel.
            Err(error) => panic!("the shader of {key} has a mistake: {error}"),
        };
        let subgroups = key.constants().subgroups;
        #[cfg(not(target_family = "wasm"))]
        texts::keep(K::NAME, &key.constants().sections(K::TEMPLATE), || {
            let head = if subgroups { SUBGROUPS } else { "" };
            format!("{head}{text}")
        });
        // Native naga accepts subgroups without the directive, and rejects the directive.
        if cfg!(target_family = "wasm") && subgroups {
            text.insert_str(0, SUBGROUPS);
        }
        SourceTemplate::new(text)
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.0)
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// The type of a key's field: what it defines for the template.
pub trait Field {
    /// Defines a field of this name.
    fn define(&self, name: &'static str, constants: &mut Constants);
}

/// A number.
impl Field for usize {
    fn define(&self, name: &'static str, constants: &mut Constants) {
        constants.number(name, Some(self));
    }
}

/// A switch.
impl Field for bool {
    fn define(&self, name: &'static str, constants: &mut Constants) {
        constants.switch(name, *self);
    }
}

/// A number, and a switch that tells whether there is one.
impl Field for Option<usize> {
    fn define(&self, name: &'static str, constants: &mut Constants) {
        constants.switch(name, self.is_some());
        constants.number(name, *self);
    }
}

/// A real number: equal if its bits as f32 are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Real(u32);

impl Real {
    /// The nearest f32.
    pub fn new(value: f64) -> Self {
        Self((value as f32).to_bits())
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", f32::from_bits(self.0))
    }
}

/// A literal. It has the digits of an f64, so that a compiler that reads it as one rounds it to the same f32.
impl Field for Real {
    fn define(&self, name: &'static str, constants: &mut Constants) {
        let value = f64::from(f32::from_bits(self.0));
        constants.number(name, Some(format!("{value:e}f")));
    }
}

/// How a workgroup reduces: switch `subgroups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// By subgroup operations.
    Subgroups,
    /// By trees in workgroup memory.
    Trees,
    /// By subgroups of a size that no adapter may have, emulated in workgroup memory.
    #[cfg(test)]
    Emulated { lanes: usize, step: usize },
}

impl Reduction {
    /// By subgroups or not.
    pub fn by(subgroups: bool) -> Self {
        #[cfg(test)]
        if let Some((lanes, step)) = variants::emulated().filter(|_| subgroups) {
            return Self::Emulated { lanes, step };
        }
        match subgroups {
            true => Self::Subgroups,
            false => Self::Trees,
        }
    }
}

impl Field for Reduction {
    fn define(&self, _: &'static str, constants: &mut Constants) {
        constants.switch("subgroups", !matches!(self, Self::Trees));
        constants.subgroups |= matches!(self, Self::Subgroups);
        #[cfg(test)]
        if let Self::Emulated { lanes, step } = self {
            constants.number("emulated_lanes", Some(lanes));
            constants.number("emulated_step", Some(step));
            constants.emulated = true;
        }
    }
}

/// Variant for hardware or software adapters: switches `software`, and `quads` if the invocations of a quad share loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Adapter {
    /// Memory is slower than registers.
    Hardware,
    /// Memory is as fast as registers.
    Software { quads: bool },
}

impl Adapter {
    /// The variant for software adapters or the other.
    pub fn of(software: bool) -> Self {
        match software {
            true => Self::Software {
                quads: variants::quads(),
            },
            false => Self::Hardware,
        }
    }

    /// Whether it is the variant for software adapters.
    pub fn is_software(self) -> bool {
        matches!(self, Self::Software { .. })
    }
}

impl Field for Adapter {
    fn define(&self, _: &'static str, constants: &mut Constants) {
        let quads = matches!(self, Self::Software { quads: true });
        constants.switch("software", self.is_software());
        constants.switch("quads", quads);
        constants.subgroups |= quads;
    }
}

/// Numbers `bits` and `flip`, the sign bit of signed 4-bit values; switches `nibbles`, `bytes` and `halves`.
impl Field for Scheme {
    fn define(&self, _: &'static str, constants: &mut Constants) {
        let bits = self.bits();
        constants.number("bits", Some(bits));
        constants.number("flip", Some(if *self == Self::Q4 { 8 } else { 0 }));
        for (name, width) in [("nibbles", 4), ("bytes", 8), ("halves", 16)] {
            constants.switch(name, bits == width);
        }
    }
}

/// The type of a tensor in a launch: optional if it is bound only under a condition.
macro_rules! buffer {
    ($life:lifetime) => { &$life burn_wgpu::CubeTensor };
    ($life:lifetime if $bound:expr) => { Option<&$life burn_wgpu::CubeTensor> };
}

/// Whether a tensor is bound.
macro_rules! bound {
    () => {
        true
    };
    (if $bound:expr) => {
        $bound
    };
}

/// Declares a kernel: the struct of its key, what follows from the key for the template, and the struct of its tensors.
macro_rules! kernel {
    (
        $(#[$about:meta])*
        $Kernel:ident, $name:literal [$($file:literal),+]
        { $( $(#[$doc:meta])* $field:ident: $type:ty, )* }
        |$key:ident| { invocations: $invocations:expr, $( $derived:ident: $value:expr, )* }
        $(#[$tensors:meta])*
        $Buffers:ident { $( $buffer:ident $(if $bound:expr)?, )+ }
        $( uniform $uniform:ident )?
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $Kernel { $( $(#[$doc])* pub $field: $type, )* }

        $(#[$tensors])*
        pub struct $Buffers<'a> { $( pub $buffer: $crate::gpu::kernel::buffer!('a $(if $bound)?), )+ }

        impl core::fmt::Display for $Kernel {
            fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                out.write_str($name)?;
                $( write!(out, " {} {:?}", stringify!($field), self.$field)?; )*
                Ok(())
            }
        }

        impl $crate::gpu::kernel::Kernel for $Kernel {
            const NAME: &'static str = $name;
            const TEMPLATE: &'static str =
                concat!($( include_str!(
                    // A relative path would start at the file that declares the kernel.
                    concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders/", $file)
                ) ),+);
            const UNIFORM: Option<&'static str> = {
                #[allow(unused_mut, unused_assignments)]
                let mut name = None;
                $( name = Some(stringify!($uniform)); )?
                name
            };
            type Buffers<'a> = $Buffers<'a>;

            fn invocations(&self) -> usize {
                let $key = self;
                let _ = $key;
                $invocations
            }

            fn bindings(&self) -> Vec<&'static str> {
                let $key = self;
                let _ = $key;
                let mut names = vec![];
                $( if $crate::gpu::kernel::bound!($(if $bound)?) {
                    names.push(stringify!($buffer));
                } )+
                names
            }

            fn constants(&self) -> $crate::gpu::template::Constants {
                use $crate::gpu::kernel::Field;
                let $key = self;
                let _ = $key;
                let mut constants = $crate::gpu::template::Constants::default();
                $( Field::define(&self.$field, stringify!($field), &mut constants); )*
                Field::define(&self.invocations(), "invocations", &mut constants);
                $( Field::define(&$value, stringify!($derived), &mut constants); )*
                let mut bindings = 0..;
                $(
                    let is = $crate::gpu::kernel::bound!($(if $bound)?);
                    constants.switch(stringify!($buffer), is);
                    let binding = is.then(|| bindings.next()).flatten();
                    constants.number(stringify!($buffer), binding);
                )+
                constants.number("uniform", Self::UNIFORM.and(bindings.next()));
                constants
            }

            fn bound<'a>(
                &self,
                buffers: &Self::Buffers<'a>,
            ) -> Vec<Option<&'a burn_wgpu::CubeTensor>> {
                let $key = self;
                let _ = $key;
                let mut tensors = vec![];
                $( if $crate::gpu::kernel::bound!($(if $bound)?) {
                    tensors.push(Option::from(buffers.$buffer));
                } )+
                tensors
            }
        }
    };
}

/// Declares a struct of fields that a key holds as one.
macro_rules! fields {
    (
        $(#[$about:meta])*
        $Fields:ident { $( $(#[$doc:meta])* $field:ident: $type:ty, )* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $Fields { $( $(#[$doc])* pub $field: $type, )* }

        impl $crate::gpu::kernel::Field for $Fields {
            fn define(&self, _: &'static str, constants: &mut $crate::gpu::template::Constants) {
                use $crate::gpu::kernel::Field;
                $( Field::define(&self.$field, stringify!($field), constants); )*
            }
        }
    };
}

pub(super) use {bound, buffer, fields, kernel};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_binds_all_buffers_of_its_key() {
        let mut constants = Constants::default();
        constants.number("x", Some(0));
        constants.number("y", Some(1));
        let template = "@group(0) @binding({{x}}) var<storage, read_write> x: array<f32>;\n";
        let found = text(&constants, template, &["x"]);
        assert_eq!(found.as_deref(), Ok(&*template.replace("{{x}}", "0")));
        assert_eq!(
            text(&constants, template, &["x", "y"]),
            Err(TemplateError::Unbound("y"))
        );
        // A mistake in the text itself is found too.
        let misspelt = template.replace("{{x}}", "{{z}}");
        assert_eq!(
            text(&constants, &misspelt, &[]),
            Err(TemplateError::Unknown("z".into()))
        );
    }
}
