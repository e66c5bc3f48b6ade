//! Parses the output of Rust's test harness line by line and counts the results.

use std::collections::HashSet;

use super::counts::Counts;

/// Whether a line is printed.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A result, a failure, a reason for skipping.
    Show,
    /// Output of tests that passed, and empty lines.
    Hide,
}

/// Section of the harness's output.
#[derive(Default, PartialEq, Eq)]
enum Part {
    /// Results of single tests.
    #[default]
    Results,
    /// Output of tests that passed (`--show-output`).
    Successes,
    /// Output of tests that failed.
    Failures,
}

/// Parser state for one run, of one binary or of several in sequence (doc tests).
#[derive(Default)]
pub struct Reader {
    part: Part,
    /// The test whose output is being printed.
    current: String,
    /// Tests that printed a reason for skipping. They count as skipped, though the harness counts them as passed.
    skipped: HashSet<String>,
    totals: Counts,
    summaries: usize,
    started: usize,
}

impl Reader {
    /// Parses one line.
    pub fn read(&mut self, line: &str) -> Told {
        if let Some(counts) = summary(line) {
            self.totals.add(counts);
            self.summaries += 1;
            self.part = Part::Results;
            let ran_nothing = counts == Counts::default();
            return if ran_nothing { Told::Hide } else { Told::Show };
        }
        if is_start(line) {
            self.started += 1;
            self.part = Part::Results;
            return if line == "running 0 tests" {
                Told::Hide
            } else {
                Told::Show
            };
        }
        match line {
            "successes:" => {
                self.part = Part::Successes;
                return Told::Hide;
            }
            "failures:" => {
                self.part = Part::Failures;
                return Told::Show;
            }
            _ => {}
        }
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.current = name.to_owned();
        }
        match self.part {
            // A failed test does not count as skipped, whatever it printed before.
            Part::Successes if line.starts_with("SKIP ") => {
                self.skipped
                    .insert(format!("{}/{}", self.summaries, self.current));
                Told::Show
            }
            Part::Successes => Told::Hide,
            Part::Results if line.is_empty() => Told::Hide,
            Part::Results | Part::Failures => Told::Show,
        }
    }

    /// Whether all runs that started have printed a summary.
    pub fn ended(&self) -> bool {
        self.summaries >= self.started && self.summaries > 0
    }

    /// The counts, after the child process has exited.
    pub fn finish(&self, succeeded: bool) -> Counts {
        let mut counts = self.totals;
        let skipped = self.skipped.len().min(counts.passed);
        counts.passed -= skipped;
        counts.skipped += skipped;
        // Killed, crashed or not built: the harness could not count the failure.
        if !self.ended() || (!succeeded && counts.failed == 0) {
            counts.failed += 1;
        }
        counts
    }
}

/// `running 3 tests`
fn is_start(line: &str) -> bool {
    let mut words = line.split(' ');
    words.next() == Some("running")
        && words
            .next()
            .is_some_and(|word| word.parse::<usize>().is_ok())
        && matches!(words.next(), Some("test" | "tests"))
        && words.next().is_none()
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.02s`
fn summary(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |label: &str| -> Option<usize> {
        numbers
            .split("; ")
            .find_map(|part| part.strip_suffix(label)?.trim().parse().ok())
    };
    Some(Counts {
        passed: number("passed")?,
        failed: number("failed")?,
        skipped: number("ignored")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, succeeded: bool) -> Counts {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.read(line);
        }
        reader.finish(succeeded)
    }

    #[test]
    fn results_are_counted_from_the_summary() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... noise in between\nok\ntest c ... ignored, slow\n\n\
                    test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n";
        assert_eq!(
            read(text, true),
            Counts {
                passed: 2,
                failed: 0,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_test_that_prints_a_reason_is_skipped_not_passed() {
        let text = "running 2 tests\ntest a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- a stdout ----\n\
                    SKIP golden on wgpu: no Vulkan driver\nSKIP golden on wgpu: no Vulkan driver\n\n---- b stdout ----\nchatter\n\n\
                    successes:\n    a\n    b\n\n\
                    test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        assert_eq!(
            read(text, true),
            Counts {
                passed: 1,
                failed: 0,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_failure_is_counted_and_its_output_shown() {
        let mut reader = Reader::default();
        let lines = [
            ("running 1 test", Told::Show),
            ("test a ... FAILED", Told::Show),
            ("", Told::Hide),
            ("failures:", Told::Show),
            ("---- a stdout ----", Told::Show),
            ("SKIP x: printed before it failed", Told::Show),
            ("assertion failed", Told::Show),
        ];
        for (line, told) in lines {
            assert_eq!(reader.read(line), told, "{line}");
        }
        reader.read("test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        assert_eq!(
            reader.finish(false),
            Counts {
                passed: 0,
                failed: 1,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_crash_before_the_summary_is_a_failure() {
        assert_eq!(read("running 2 tests\ntest a ... ok\n", false).failed, 1);
        assert_eq!(read("", false).failed, 1);
        assert_eq!(
            read("", true).failed,
            1,
            "an output without any result is no success"
        );
    }

    #[test]
    fn several_runs_after_each_other_add_up() {
        let one = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        assert_eq!(
            read(&format!("{one}\n{one}"), true),
            Counts {
                passed: 2,
                failed: 0,
                skipped: 0
            }
        );
    }
}
