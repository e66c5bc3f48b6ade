//! Counts of test results.

use std::time::Duration;

/// Timeout of a test binary without a finished test.
pub const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Number of tests per result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed, or could not be built.
    pub failed: usize,
    /// Could not run here, for a printed reason.
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

    /// The last line of the whole run.
    pub fn closing_line(self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}
