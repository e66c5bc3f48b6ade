//! Parses the TAP output of Node's test runner line by line and counts the results.

use super::counts::Counts;

/// Parser state.
#[derive(Debug, Default)]
pub struct Reader {
    counts: Counts,
    ended: bool,
}

impl Reader {
    /// Parses one line. Returns whether to print it.
    pub fn read(&mut self, line: &str) -> bool {
        // Totals at the end of a run, which count tests without suites: `# pass 12`. A suite may consist of several runs.
        if let Some((name, number)) = line
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(' '))
            && let Ok(number) = number.parse::<usize>()
        {
            match name {
                "pass" => self.counts.passed += number,
                "fail" | "cancelled" => {
                    self.counts.failed += number;
                    self.ended = true;
                }
                "skipped" | "todo" => self.counts.skipped += number,
                _ => {}
            }
            return false;
        }
        let line = line.trim_start();
        let result = line.starts_with("ok ") || line.starts_with("not ok ");
        let noise = [
            "TAP ",
            "1..",
            "---",
            "...",
            "duration_ms",
            "type:",
            "# Subtest",
        ];
        result || !noise.iter().any(|start| line.starts_with(start))
    }

    /// The counts. A run without totals counts as failed, and so does one that failed without a failed test.
    pub fn finish(self, succeeded: bool) -> Counts {
        let mut counts = self.counts;
        if !self.ended || (!succeeded && counts.failed == 0) {
            counts.failed += 1;
        }
        counts
    }
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
    fn totals_are_counted() {
        let text = "TAP version 13\nok 1 - a\n# tests 5\n# suites 0\n# pass 3\n# fail 0\n# cancelled 0\n# skipped 2\n# todo 0";
        let counts = read(text, true);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (3, 0, 2));
        let two_runs = [text, text].join("\n");
        assert_eq!(read(&two_runs, true).passed, 6);
    }

    #[test]
    fn a_run_that_broke_off_or_failed_in_silence_failed() {
        assert_eq!(read("TAP version 13\nok 1 - a", true).failed, 1);
        assert_eq!(read("# pass 3\n# fail 0\n# cancelled 0", false).failed, 1);
        assert_eq!(read("# pass 3\n# fail 2\n# cancelled 1", false).failed, 3);
        assert_eq!(read("", true).failed, 1);
    }
}
