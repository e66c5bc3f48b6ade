//! What the runners report.

use std::time::Duration;

/// A test binary that finishes no test for this long hangs.
pub const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How many tests ended which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Ran and held.
    pub passed: usize,
    /// Ran and did not hold, or could not be built.
    pub failed: usize,
    /// Could not run here, for a reason that was printed.
    pub skipped: usize,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    pub fn one(passed: bool) -> Self {
        Self {
            passed: usize::from(passed),
            failed: usize::from(!passed),
            skipped: 0,
        }
    }

    /// The closing line of the whole run.
    pub fn closing_line(self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}
