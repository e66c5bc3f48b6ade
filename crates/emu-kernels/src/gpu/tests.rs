//! Every kernel, with keys of every variant, without a GPU: its template is complete, naga accepts the text, and the text binds
//! what the key lists, within the limits of all adapters.

use std::collections::BTreeSet;

use burn::tensor::wgpu::wgpu::naga;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

use super::attention::attention::Views;
use super::kernel::{Adapter, Kernel, Real, Reduction};
use super::matmul::packed_matrix::PackedMatrixKernel;
use super::norm::rms_norm::RmsNormKernel;
use super::sampling::sample::SampleKernel;
use crate::spec::{PackedSpec, SampleSpec, Scheme};
use crate::variants;

pub const BOTH: [bool; 2] = [false, true];
pub const REDUCTIONS: [Reduction; 3] = [
    Reduction::Subgroups,
    Reduction::Trees,
    Reduction::Emulated { lanes: 8, step: 5 },
];
pub const ADAPTERS: [Adapter; 3] = [
    Adapter::Hardware,
    Adapter::Software { quads: false },
    Adapter::Software { quads: true },
];
pub const SCHEMES: [Scheme; 4] = [Scheme::F16, Scheme::Q8, Scheme::Q4, Scheme::Q4_1];
pub const VIEWS: [Views; 5] = [
    Views::Separate,
    Views::ValuesOfKeys,
    Views::ValuesOfQueries,
    Views::KeysOfQueries,
    Views::AllOfQueries,
];

/// Specs of products with a matrix of `[out, in]`: every scheme and fusion.
pub fn packed_specs([out, width]: [usize; 2]) -> impl Iterator<Item = PackedSpec> {
    let fusions = [
        [false; 3],
        [true, false, false],
        [false, true, false],
        [true, true, false],
        [false, false, true],
    ];
    fusions.into_iter().flat_map(move |[bias, residual, pair]| {
        SCHEMES.map(|scheme| PackedSpec {
            bias,
            residual,
            pair,
            ..PackedSpec::plain(scheme, [out, width])
        })
    })
}

/// Limits of all adapters.
const STORAGE_BUFFERS: usize = 8;
const WORKGROUP: usize = 256;
const SHARED_BYTES: u32 = 16 << 10;

/// Names of the kernels that were checked.
#[derive(Default)]
pub struct Checked(BTreeSet<&'static str>);

impl Checked {
    /// Checks a kernel.
    pub fn check<K: Kernel>(&mut self, key: K) {
        self.0.insert(K::NAME);
        let text = key.text().unwrap_or_else(|error| panic!("{key}: {error}"));
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{key}: {}", error.emit_to_string(&text)));
        Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{key}: {}", error.emit_to_string(&text)));

        let (tensors, uniform) = bound(&module);
        assert_eq!(tensors, key.bindings(), "{key}");
        assert!(tensors.len() <= STORAGE_BUFFERS, "{key}: {tensors:?}");
        assert_eq!(uniform.as_deref(), K::UNIFORM, "{key}");
        let [main] = &module.entry_points[..] else {
            panic!("{key} has {} entry points", module.entry_points.len());
        };
        assert_eq!(
            main.workgroup_size,
            [key.invocations() as u32, 1, 1],
            "{key}"
        );
        assert!(key.invocations() <= WORKGROUP, "{key}");
        let shared = shared_bytes(&module);
        assert!(shared <= SHARED_BYTES, "{key}: {shared} bytes");
    }
}

/// Names of the storage buffers by binding, and of the uniform buffer, which must be the last.
fn bound(module: &Module) -> (Vec<String>, Option<String>) {
    let mut all: Vec<_> = { module.global_variables.iter() }
        .filter_map(|(_, global)| {
            let binding = global.binding.as_ref()?.binding;
            Some((binding, global.name.clone()?, global.space))
        })
        .collect();
    all.sort_by_key(|(binding, ..)| *binding);
    let bindings: Vec<_> = all.iter().map(|(binding, ..)| *binding as usize).collect();
    assert_eq!(bindings, (0..all.len()).collect::<Vec<_>>());
    let uniform = all.pop_if(|(.., space)| *space == AddressSpace::Uniform);
    let tensors = all.into_iter().map(|(_, name, space)| {
        assert!(matches!(space, AddressSpace::Storage { .. }), "{name}");
        name
    });
    (tensors.collect(), uniform.map(|(_, name, _)| name))
}

fn shared_bytes(module: &Module) -> u32 {
    { module.global_variables.iter() }
        .filter(|(_, global)| global.space == AddressSpace::WorkGroup)
        .map(|(_, global)| module.types[global.ty].inner.size(module.to_ctx()))
        .sum()
}

#[test]
fn every_kernel_is_complete_and_binds_what_its_key_lists() {
    let mut checked = Checked::default();
    for check_all in [
        super::activation::check_all,
        super::attention::check_all,
        super::conv::check_all,
        super::decode::check_all,
        super::matmul::check_all,
        super::norm::check_all,
        super::sampling::check_all,
    ] {
        check_all(&mut checked);
    }

    // One kernel, one file, one name.
    let shaders = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shaders");
    let folders = std::fs::read_dir(shaders).expect("shaders");
    let folders = folders.map(|folder| folder.expect("a folder").path());
    let files = folders
        .filter(|folder| !folder.ends_with("shared"))
        .flat_map(|folder| std::fs::read_dir(folder).expect("a folder"));
    let names: BTreeSet<String> = files
        .filter_map(|file| Some(file.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    assert_eq!(
        names,
        checked.0.iter().map(|name| (*name).to_owned()).collect()
    );
}

#[test]
fn keys_are_labels_and_real_numbers_are_compared_by_their_bits() {
    let key = RmsNormKernel {
        width: 192,
        eps: Real::new(1e-5),
        reduction: Reduction::Trees,
    };
    assert_eq!(
        key.to_string(),
        "rms_norm width 192 eps 1e-5 reduction Trees"
    );
    let text = key.text().expect("a text");
    assert!(
        text.contains("const EPS = 9.999999747378752e-6f;"),
        "{text}"
    );
    assert_eq!(Real::new(1e-5), Real::new(f64::from(1e-5f32)));
    assert_ne!(Real::new(1e-5), Real::new(1e-6));
}

/// Options that have no effect are not part of a key, so that they compile no pipeline of their own.
#[test]
fn what_changes_nothing_is_not_in_the_key() {
    let spec = SampleSpec {
        banned: Some(1009),
        end: 1009,
        min_length: 4,
        ngram: 0,
        penalty: false,
        counts: false,
        bias: false,
        sample: false,
        top_k: 0,
        top_p: false,
        min_p: true,
    };
    let others = SampleSpec {
        min_p: false,
        banned: None,
        end: 2,
        min_length: 0,
        ..spec.clone()
    };
    assert_eq!(
        SampleKernel::new(1009, &spec),
        SampleKernel::new(1009, &others)
    );

    let spec = PackedSpec::plain(Scheme::Q4, [6, 64]);
    variants::with_software(false, || {
        let key = |rows: usize| PackedMatrixKernel::new(&spec, rows);
        assert_eq!(key(9), key(32));
        assert_ne!(key(32), key(33));
    });
}
