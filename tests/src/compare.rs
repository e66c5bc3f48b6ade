//! Assertions that report what differs.

use emu_model::parity::Row;

/// Asserts that all values are within `bound` of the golden values.
///
/// # Panics
/// If a value is further off, or is NaN.
#[track_caller]
pub fn assert_close(name: &str, got: &[f32], want: &[f32], bound: f64) {
    assert_eq!(
        got.len(),
        want.len(),
        "{name}: {} values instead of {}",
        got.len(),
        want.len()
    );
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = if got == want {
            0.0
        } else {
            (f64::from(*got) - f64::from(*want)).abs()
        };
        // NaN fails this comparison.
        assert!(
            off <= bound,
            "{name}[{i}] is {got}, should be {want}: off by {off:e}, allowed {bound:e}"
        );
    }
}

/// Prints a table of comparisons and asserts that all passed.
///
/// # Panics
/// If a comparison failed, or there are none.
#[track_caller]
pub fn assert_rows(what: &str, rows: &[Row]) {
    assert!(!rows.is_empty(), "{what}: nothing was compared");
    for Row {
        tensor,
        error,
        bound,
        note,
    } in rows
    {
        println!(
            "{what:12} {tensor:70} {error:9.2e} of {bound:9.2e} {}",
            note.as_deref().unwrap_or("")
        );
    }
    let failed: Vec<String> = rows
        .iter()
        .filter(|row| !row.passes())
        .map(|row| format!("{row:?}"))
        .collect();
    assert!(
        failed.is_empty(),
        "{what}: {} of {} failed:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(f: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(f).is_err()
    }

    #[test]
    fn a_wrong_result_fails() {
        assert_close("t", &[1.0, f32::INFINITY], &[1.0001, f32::INFINITY], 1e-3);
        assert!(fails(|| assert_close("t", &[1.0], &[1.01], 1e-3)));
        assert!(fails(|| assert_close("t", &[f32::NAN], &[1.0], 1e-3)));
        assert!(fails(|| assert_close("t", &[f32::NAN], &[f32::NAN], 1e-3)));
        assert!(fails(|| assert_close("t", &[f32::INFINITY], &[1.0], 1e-3)));
        assert!(fails(|| assert_close("t", &[1.0], &[1.0, 1.0], 1e-3)));
        assert!(fails(|| assert_rows("t", &[])));
        assert!(fails(|| assert_rows(
            "t",
            &[Row::new("a", 1.0, 2.0), Row::new("b", 3.0, 2.0)]
        )));
        assert_rows("t", &[Row::new("a", 1.0, 2.0)]);
    }
}
