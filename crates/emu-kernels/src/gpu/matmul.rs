//! GPU products with packed matrices.

use burn::backend::Cube;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::Shape;
use burn_wgpu::CubeTensor;

use super::{Shader, adapters, grid, into_contiguous, output, reductions};
use crate::ops::matmul::MatmulBackend;
use crate::spec::{BLOCK, PackedSpec, Scheme};
use crate::variants;

/// Maximum rows of `x` of a gemv, which reads each weight once for all of them.
const GEMV_ROWS: usize = 8;
/// Rows of the matrix per workgroup of a gemm.
const WIDE: usize = 64;
/// Maximum rows of `x` per workgroup on software adapters.
const LINES: usize = 16;

impl PackedSpec {
    /// Which optional buffers the shaders read: scales, minimums, bias, residual. They are bound after the three that are always
    /// present.
    fn optional(&self) -> [bool; 4] {
        let scheme = self.scheme;
        [
            scheme.has_scales(),
            scheme.has_mins(),
            self.bias,
            self.residual,
        ]
    }

    /// Binding index of an optional buffer, or of what follows all of them.
    fn binding(&self, optional: usize) -> usize {
        let before = self.optional().into_iter().take(optional);
        3 + before.filter(|is| *is).count()
    }

    /// Constants shared by all the shaders.
    fn constants(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("blocks", self.width / BLOCK),
            ("out", self.out),
            ("bits", self.scheme.bits()),
            ("nibbles", usize::from(self.scheme.bits() == 4)),
            ("bytes", usize::from(self.scheme.bits() == 8)),
            ("halves", usize::from(self.scheme.bits() == 16)),
            ("flip", if self.scheme == Scheme::Q4 { 8 } else { 0 }),
            ("scales", usize::from(self.scheme.has_scales())),
            ("scales_at", self.binding(0)),
            ("mins", usize::from(self.scheme.has_mins())),
            ("mins_at", self.binding(1)),
            ("bias", usize::from(self.bias)),
            ("bias_at", self.binding(2)),
            ("residual", usize::from(self.residual)),
            ("residual_at", self.binding(3)),
        ]
    }
}

/// Whether a product with this many rows runs as a gemv, which reads each weight once for all rows. Software adapters have a
/// single kernel for any number of rows.
pub fn is_gemv(rows: usize) -> bool {
    rows <= GEMV_ROWS && !variants::software()
}

/// Gemv shader, and its workgroups.
fn vector(spec: &PackedSpec, rows: usize) -> (Shader, [usize; 3]) {
    let blocks = spec.width / BLOCK;
    let lanes = match blocks {
        0..16 => 8,
        16..48 => 16,
        _ => 32,
    };
    // With subgroups a row has a workgroup of its own, so that the mapping of invocations to subgroups does not matter.
    let wide = lanes == 32 && variants::wide_subgroups();
    let invocations = if wide { lanes } else { 64 };
    let matrices = if spec.pair { 2 } else { 1 };
    let out = spec.out / matrices;
    let per = if out >= 4096 { 4 } else { 2 };
    let mut constants = PackedSpec { out, ..*spec }.constants();
    constants.extend([
        ("rows", rows),
        ("lanes", lanes),
        ("per", per),
        ("matrices", matrices),
        ("pair", usize::from(spec.pair)),
        ("invocations", invocations),
    ]);
    constants.extend(reductions(wide));
    let shader = Shader {
        name: "packed_vector",
        text: include_str!("../../../../shaders/matmul/packed_vector.wgsl"),
        constants,
        invocations,
    };
    (shader, grid(out.div_ceil(invocations / lanes * per)))
}

/// Gemm shader, and its workgroups.
fn matrix(spec: &PackedSpec, rows: usize) -> (Shader, [usize; 3]) {
    let matrices = if spec.pair { 2 } else { 1 };
    let software = variants::software();
    // On software adapters each of eight invocations computes this many rows and four columns.
    let lines = rows.next_power_of_two().min(LINES);
    let invocations = if software { 8 } else { 64 };
    let columns = if software { 4 * invocations } else { WIDE };
    let (out, wide) = (spec.out / matrices, columns / matrices);
    // Vectors of four rows: twice as many if there are enough rows.
    let tall = if rows > WIDE / 2 { 16 } else { 8 };
    let tile = if software { lines } else { 4 * tall };
    let mut constants = spec.constants();
    constants.extend(adapters(software));
    constants.retain(|(name, _)| !matches!(*name, "blocks" | "out"));
    constants.extend([
        ("pair", usize::from(spec.pair)),
        ("single", usize::from(!spec.pair)),
        ("matrices", matrices),
        ("wide", wide),
        ("tall", tall),
        ("taller", usize::from(tall > 8)),
        ("lines", lines),
        ("info_at", spec.binding(4)),
    ]);
    let shader = Shader {
        name: "packed_matrix",
        text: concat!(
            include_str!("../../../../shaders/shared/quads.wgsl"),
            include_str!("../../../../shaders/matmul/packed_matrix.wgsl")
        ),
        constants,
        invocations,
    };
    (shader, [out.div_ceil(wide), rows.div_ceil(tile), 1])
}

/// Shader for dequantized rows of a table, and its workgroups.
fn table(spec: &PackedSpec, ids: usize) -> (Shader, [usize; 3]) {
    let words = ids * spec.width / BLOCK * spec.scheme.words();
    let shader = Shader {
        name: "packed_rows",
        text: include_str!("../../../../shaders/matmul/packed_rows.wgsl"),
        constants: spec.constants(),
        invocations: 64,
    };
    (shader, grid(words.div_ceil(64)))
}

/// `x Wᵀ + b + r`, or a gate: `[rows, in]` to `[rows, out]`.
pub fn linear(
    x: CubeTensor,
    [words, scales, mins]: [CubeTensor; 3],
    [bias, residual]: [CubeTensor; 2],
    spec: PackedSpec,
) -> CubeTensor {
    let x = into_contiguous(x);
    let rows = x.meta.shape()[0];
    let out = if spec.pair { spec.out / 2 } else { spec.out };
    let y = output(&x, Shape::new([rows, out]));
    let gemv = is_gemv(rows);
    let (shader, workgroups) = if gemv {
        vector(&spec, rows)
    } else {
        matrix(&spec, rows)
    };
    let (bias, residual) = (into_contiguous(bias), into_contiguous(residual));
    let mut tensors = vec![&x, &words, &y];
    let optional = [&scales, &mins, &bias, &residual];
    tensors.extend(optional.into_iter().zip(spec.optional()).filter_map(bound));
    // A gemv does not read this buffer, so it is not bound.
    let words = if gemv {
        vec![]
    } else {
        vec![rows as u32, (spec.width / BLOCK) as u32, out as u32, 0]
    };
    shader.launch_with(workgroups, &tensors, &words);
    y
}

/// The tensor of an optional buffer, if bound.
fn bound((tensor, is): (&CubeTensor, bool)) -> Option<&CubeTensor> {
    is.then_some(tensor)
}

/// Dequantized rows: `[n]` ids to `[n, in]`.
pub fn rows(
    ids: CubeTensor,
    [words, scales, mins]: [CubeTensor; 3],
    spec: PackedSpec,
) -> CubeTensor {
    let ids = into_contiguous(ids);
    let n = ids.meta.shape()[0];
    let y = output(&ids, Shape::new([n, spec.width]));
    let (shader, workgroups) = table(&spec, n);
    let mut tensors = vec![&ids, &words, &y];
    tensors.extend(
        [&scales, &mins]
            .into_iter()
            .zip(spec.optional())
            .filter_map(bound),
    );
    shader.launch(workgroups, &tensors);
    y
}

impl MatmulBackend for Cube {
    fn emu_packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        linear(x, [words, scales, mins], [bias, residual], spec)
    }

    fn emu_packed_rows(
        ids: IntTensor<Self>,
        words: IntTensor<Self>,
        scales: IntTensor<Self>,
        mins: IntTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self> {
        rows(ids, [words, scales, mins], spec)
    }
}
