//! Chroma upsampling like libjpeg-turbo's "fancy upsampling": a triangle filter for a factor of two, replication
//! otherwise. The rounding alternates to avoid a bias in either direction.

use super::plane::Plane;

/// Narrower planes are replicated, not filtered.
const MIN_FANCY_WIDTH: usize = 3;

/// Row `y` of the plane upsampled by `(across, down)` and cropped to `width`.
pub(super) fn row(
    plane: &Plane,
    factors: (usize, usize),
    y: usize,
    width: usize,
    out: &mut Vec<u8>,
) {
    let fancy = plane.width >= MIN_FANCY_WIDTH;
    let near = plane.row(y / factors.1);
    out.clear();
    match factors {
        (1, 1) => out.extend_from_slice(&near[..width]),
        (2, 1) if fancy => h2v1(near, width, out),
        (1, 2) => h1v2(near, plane.neighbour(y), y.is_multiple_of(2), out),
        (2, 2) if fancy => h2v2(near, plane.neighbour(y), width, out),
        (across, _) => out.extend((0..width).map(|x| near[x / across])),
    }
}

impl Plane {
    /// The samples of a row, without padding.
    fn row(&self, y: usize) -> &[u8] {
        let start = y.min(self.height - 1) * self.stride;
        &self.samples[start..start + self.width]
    }

    /// For output row `y` at twice the height: the second nearest input row, above for even rows and below for odd ones.
    /// Edge rows are replicated.
    fn neighbour(&self, y: usize) -> &[u8] {
        self.row(if y.is_multiple_of(2) {
            (y / 2).saturating_sub(1)
        } else {
            y / 2 + 1
        })
    }
}

/// Doubles a row horizontally: 3/4 of the nearer sample, 1/4 of the farther one.
fn h2v1(row: &[u8], width: usize, out: &mut Vec<u8>) {
    let last = row.len() - 1;
    let at = |i: usize| u32::from(row[i]);
    out.extend((0..width).map(|x| {
        let i = x / 2;
        match x % 2 {
            0 if i == 0 => row[0],
            0 => ((3 * at(i) + at(i - 1) + 1) >> 2) as u8,
            _ if i == last => row[last],
            _ => ((3 * at(i) + at(i + 1) + 2) >> 2) as u8,
        }
    }));
}

/// Blends a row vertically with the one above (`upper`) or below it, 3/4 to 1/4.
fn h1v2(near: &[u8], far: &[u8], upper: bool, out: &mut Vec<u8>) {
    let bias = if upper { 1 } else { 2 };
    out.extend(
        near.iter()
            .zip(far)
            .map(|(n, f)| ((3 * u32::from(*n) + u32::from(*f) + bias) >> 2) as u8),
    );
}

/// Both directions at once, with weights in sixteenths.
fn h2v2(near: &[u8], far: &[u8], width: usize, out: &mut Vec<u8>) {
    let last = near.len() - 1;
    let sum = |i: usize| 3 * u32::from(near[i]) + u32::from(far[i]);
    out.extend((0..width).map(|x| {
        let i = x / 2;
        let value = match x % 2 {
            0 if i == 0 => 4 * sum(0) + 8,
            0 => 3 * sum(i) + sum(i - 1) + 8,
            _ if i == last => 4 * sum(last) + 7,
            _ => 3 * sum(i) + sum(i + 1) + 7,
        };
        (value >> 4) as u8
    }));
}
