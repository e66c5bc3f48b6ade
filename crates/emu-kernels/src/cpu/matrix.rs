//! Matrix products over slices with arbitrary strides.

/// A strided matrix view.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Starts at the first element.
    pub values: &'a [f32],
    /// Row stride.
    pub row: usize,
    /// Column stride.
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major matrix with this row stride.
    pub fn rows(values: &'a [f32], row: usize) -> Self {
        Self {
            values,
            row,
            column: 1,
        }
    }

    /// Skips the first rows.
    pub fn skipping(self, first: usize) -> Self {
        Self {
            values: self.values.get(first * self.row..).unwrap_or_default(),
            ..self
        }
    }

    /// Transposed view.
    pub fn transposed(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row + (columns - 1) * self.column < self.values.len()
    }
}

/// Gemm: `out [m, n] = (out) + factor · a [m, k] b [k, n]`, adding to `out` if `add`; `out` is given with its row stride.
pub fn product(
    out: (&mut [f32], usize),
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    factor: f32,
    add: bool,
) {
    let (out, row) = out;
    let room = m == 0 || n == 0 || (m - 1) * row + n <= out.len();
    assert!(
        room && a.holds(m, k) && b.holds(k, n),
        "the slices hold the matrices"
    );
    // SAFETY: the assertion keeps every element that gemm accesses inside its slice; `out` is borrowed mutably, so it
    // aliases neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
