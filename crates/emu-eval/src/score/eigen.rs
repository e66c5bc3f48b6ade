//! Eigenvalues of symmetric matrices, and a factor of semidefinite ones. Matrices are square and row-major.

/// QL steps per eigenvalue. Two or three are usual.
const MAX_STEPS: usize = 100;

/// The eigenvalues of a symmetric n x n matrix, in no particular order; `None` if the iteration does not converge.
///
/// Householder's reduction to a tridiagonal matrix, then QL steps with implicit shifts (Golub and Van Loan, sections 8.3).
pub fn eigenvalues(matrix: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let (diagonal, off_diagonal) = tridiagonal(matrix, n);
    tridiagonal_eigenvalues(diagonal, off_diagonal)
}

/// The diagonal and the off-diagonal of a tridiagonal matrix with the same eigenvalues. The off-diagonal ends with a 0.
fn tridiagonal(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut diagonal = vec![0.0; n];
    let mut off_diagonal = vec![0.0; n];
    let mut v = vec![0.0; n];
    let mut w = vec![0.0; n];
    for k in 0..n {
        diagonal[k] = a[k * n + k];
        if k + 1 == n {
            break;
        }
        // 1. a reflection that maps the row behind the diagonal to a multiple of its first entry
        let row = &a[k * n + k + 1..(k + 1) * n];
        let norm = norm(row);
        if norm == 0.0 {
            continue;
        }
        let (v, w) = (&mut v[k + 1..], &mut w[k + 1..]);
        v.copy_from_slice(row);
        let image = if v[0] > 0.0 { -norm } else { norm };
        off_diagonal[k] = image;
        v[0] -= image;
        let scale = 2f64.sqrt() / self::norm(v);
        v.iter_mut().for_each(|x| *x *= scale);

        // 2. both sides of the rest: A - v w' - w v', w = A v - v (v' A v) / 2
        for (i, w) in w.iter_mut().enumerate() {
            *w = dot(&a[(k + 1 + i) * n + k + 1..(k + 2 + i) * n], v);
        }
        let half = dot(v, w) / 2.0;
        w.iter_mut().zip(&*v).for_each(|(w, v)| *w -= half * v);
        for (i, (vi, wi)) in v.iter().zip(&*w).enumerate() {
            let row = &mut a[(k + 1 + i) * n + k + 1..(k + 2 + i) * n];
            for ((x, v), w) in row.iter_mut().zip(&*v).zip(&*w) {
                *x -= vi * w + wi * v;
            }
        }
    }
    (diagonal, off_diagonal)
}

fn tridiagonal_eigenvalues(mut d: Vec<f64>, mut e: Vec<f64>) -> Option<Vec<f64>> {
    let n = d.len();
    let size = d.iter().chain(&e).fold(0f64, |most, x| most.max(x.abs()));
    for l in 0..n {
        let mut steps = 0;
        loop {
            // 1. the block from l to m that does not fall apart
            let small = |m: usize| {
                e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs()).max(f64::EPSILON * size)
            };
            let m = (l..n - 1).find(|m| small(*m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            steps += 1;
            if steps > MAX_STEPS {
                return None;
            }
            // 2. a shift: the eigenvalue of the first 2 x 2 block that is closer to d[l]
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut g = d[m] - d[l] + e[l] / (g + g.hypot(1.0).copysign(g));
            // 3. chase the bulge from m up to l
            let (mut sine, mut cosine, mut p) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (sine * e[i], cosine * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                (sine, cosine) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * sine + 2.0 * cosine * b;
                p = sine * r;
                d[i + 1] = g + p;
                g = cosine * r - b;
            }
            if !split {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Some(d)
}

/// A factor F of a positive semidefinite matrix A = F F': its columns, one after the other, as many as A has rank.
///
/// Cholesky's method with pivoting (Higham 1990). Negative eigenvalues, which rounding may cause, are dropped.
pub fn factor(mut a: Vec<f64>, n: usize) -> Vec<Vec<f64>> {
    let largest = (0..n).map(|i| a[i * n + i]).fold(0.0, f64::max);
    let threshold = largest * f64::EPSILON * n as f64;
    let mut columns = Vec::new();
    for _ in 0..n {
        let pivot = (0..n)
            .max_by(|i, j| a[i * n + i].total_cmp(&a[j * n + j]))
            .unwrap_or(0);
        let value = a[pivot * n + pivot];
        if value <= threshold {
            break;
        }
        let root = value.sqrt();
        let column: Vec<f64> = a[pivot * n..(pivot + 1) * n]
            .iter()
            .map(|x| x / root)
            .collect();
        for (row, ci) in a.chunks_exact_mut(n).zip(&column) {
            if *ci != 0.0 {
                row.iter_mut().zip(&column).for_each(|(x, c)| *x -= ci * c);
            }
        }
        // What rounding leaves of the pivot's row and column.
        for i in 0..n {
            a[i * n + pivot] = 0.0;
            a[pivot * n + i] = 0.0;
        }
        columns.push(column);
    }
    columns
}

/// The product of two vectors, in eight sums that the compiler can keep in registers.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a
        .remainder()
        .iter()
        .zip(b.remainder())
        .map(|(x, y)| x * y)
        .sum();
    let mut sums = [0.0; 8];
    for (x, y) in a.zip(b) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f64>() + rest
}

fn norm(v: &[f64]) -> f64 {
    dot(v, v).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(matrix: &[f64], n: usize) -> Vec<f64> {
        let mut values = eigenvalues(matrix.to_vec(), n).expect("convergence");
        values.sort_by(f64::total_cmp);
        values
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn known_matrices() {
        close(&sorted(&[], 0), &[]);
        close(&sorted(&[7.0], 1), &[7.0]);
        close(&sorted(&[2.0, 1.0, 1.0, 2.0], 2), &[1.0, 3.0]);
        close(&sorted(&[0.0; 9], 3), &[0.0; 3]);
        close(
            &sorted(&[4.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 4.0], 3),
            &[-1.0, 4.0, 4.0],
        );
        // The second difference: 2 - 2 cos(k pi / (n + 1)).
        let n = 40;
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 2.0;
            if i > 0 {
                matrix[i * n + i - 1] = -1.0;
                matrix[(i - 1) * n + i] = -1.0;
            }
        }
        let expected: Vec<f64> = (1..=n)
            .map(|k| 2.0 - 2.0 * (k as f64 * std::f64::consts::PI / (n + 1) as f64).cos())
            .collect();
        close(&sorted(&matrix, n), &expected);
    }

    /// A symmetric matrix.
    fn symmetric(n: usize, values: &[f64]) -> Vec<f64> {
        let at = |i: usize, j: usize| values[i.max(j) * (i.max(j) + 1) / 2 + i.min(j)];
        (0..n * n).map(|index| at(index / n, index % n)).collect()
    }

    proptest! {
        #[test]
        fn sums_of_powers_are_traces_of_powers(n in 1usize..9, values in proptest::collection::vec(-2.0f64..2.0, 45)) {
            let matrix = symmetric(n, &values);
            let found = eigenvalues(matrix.clone(), n).expect("convergence");
            let trace: f64 = (0..n).map(|i| matrix[i * n + i]).sum();
            let squares: f64 = matrix.iter().map(|x| x * x).sum();
            prop_assert!((found.iter().sum::<f64>() - trace).abs() < 1e-10);
            prop_assert!((found.iter().map(|x| x * x).sum::<f64>() - squares).abs() < 1e-9);
        }

        #[test]
        fn the_factor_gives_the_matrix_back(n in 1usize..7, rank in 0usize..7, values in proptest::collection::vec(-2.0f64..2.0, 49)) {
            let rank = rank.min(n);
            let original: Vec<f64> = (0..n * n)
                .map(|index| (0..rank).map(|k| values[k * 7 + index / n] * values[k * 7 + index % n]).sum())
                .collect();
            let columns = factor(original.clone(), n);
            prop_assert!(columns.len() <= rank);
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = columns.iter().map(|column| column[i] * column[j]).sum();
                    prop_assert!((product - original[i * n + j]).abs() < 1e-10);
                }
            }
        }
    }
}
