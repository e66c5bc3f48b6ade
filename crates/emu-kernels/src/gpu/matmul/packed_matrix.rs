//! Gemm with a packed matrix.

use burn_wgpu::CubeTensor;

use crate::gpu::kernel::{Adapter, Kernel, kernel};
use crate::spec::{BLOCK, PackedSpec, Scheme};
use crate::variants;

/// Rows of the matrix per workgroup.
const WIDE: usize = 64;
/// Maximum rows of `x` per workgroup on software adapters.
const LINES: usize = 16;
/// Workgroup size on hardware.
const INVOCATIONS: usize = 64;
/// Workgroup size on software adapters.
const FEW: usize = 8;

kernel! {
    /// Gemm with a packed matrix.
    PackedMatrixKernel, "packed_matrix" ["shared/quads.wgsl", "matmul/packed_matrix.wgsl"]
    {
        /// Storage format of the matrix.
        scheme: Scheme,
        /// Whether the matrix is a pair of gate and factor.
        pair: bool,
        /// Whether a bias is added.
        bias: bool,
        /// Whether a residual is added.
        residual: bool,
        /// Hardware or software adapters.
        adapter: Adapter,
        /// On hardware: vectors of four rows of x per workgroup, 8 or 16.
        tall: Option<usize>,
        /// On software adapters: rows of x per invocation.
        lines: Option<usize>,
    }
    |key| {
        invocations: if key.adapter.is_software() { FEW } else { INVOCATIONS },
        matrices: if key.pair { 2 } else { 1usize },
        wide: key.wide(),
        taller: key.tall > Some(8),
    }
    /// `[rows, in]`, the packed matrix; the result, `[rows, out]`; scales, minimums; `[out]`, as the result.
    PackedMatrixBuffers {
        x, words, y,
        scales if key.scheme.has_scales(), mins if key.scheme.has_mins(),
        bias if key.bias, residual if key.residual,
    }
    uniform info
}

impl PackedMatrixKernel {
    pub fn new(spec: &PackedSpec, rows: usize) -> Self {
        let adapter = Adapter::of(variants::software());
        let software = adapter.is_software();
        Self {
            scheme: spec.scheme,
            pair: spec.pair,
            bias: spec.bias,
            residual: spec.residual,
            adapter,
            // Twice as many if there are enough rows.
            tall: (!software).then_some(if rows > WIDE / 2 { 16 } else { 8 }),
            lines: software.then(|| rows.next_power_of_two().min(LINES)),
        }
    }

    /// Columns of the result per workgroup: on software adapters each invocation computes four rows of the matrix.
    fn wide(&self) -> usize {
        let rows = if self.adapter.is_software() {
            4 * FEW
        } else {
            WIDE
        };
        if self.pair { rows / 2 } else { rows }
    }

    fn workgroups(&self, rows: usize, out: usize) -> [usize; 3] {
        let tile = self.tall.map(|vectors| 4 * vectors).or(self.lines);
        [
            out.div_ceil(self.wide()),
            rows.div_ceil(tile.unwrap_or(1)),
            1,
        ]
    }
}

/// `y = x Wᵀ + b + r`, or a gate, for contiguous `x` of many rows.
pub fn packed_matrix(
    x: &CubeTensor,
    [words, scales, mins]: [&CubeTensor; 3],
    [bias, residual]: [&CubeTensor; 2],
    y: &CubeTensor,
    spec: &PackedSpec,
) {
    let (rows, out) = (x.meta.shape()[0], y.meta.shape()[1]);
    let key = PackedMatrixKernel::new(spec, rows);
    let buffers = PackedMatrixBuffers {
        x,
        words,
        y,
        scales: Some(scales),
        mins: Some(mins),
        bias: Some(bias),
        residual: Some(residual),
    };
    let sizes = [rows as u32, (spec.width / BLOCK) as u32, out as u32, 0];
    key.launch(key.workgroups(rows, out), buffers, &sizes);
}

/// Keys of every variant.
#[cfg(test)]
pub fn check_all(checked: &mut crate::gpu::tests::Checked) {
    use crate::gpu::tests::{BOTH, packed_specs};
    for spec in packed_specs([6, 64]) {
        for rows in [1, 3, 33, 100] {
            for software in BOTH {
                let made = || PackedMatrixKernel::new(&spec, rows);
                let key = variants::with_software(software, made);
                checked.check(key);
                if software {
                    let adapter = Adapter::Software { quads: true };
                    checked.check(PackedMatrixKernel { adapter, ..key });
                }
            }
        }
    }
}
