//! An error in one line.

/// The error and its causes in one line. Skips causes that the error already quotes. Joins the lines of messages from
/// drivers and libraries.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn a_cause_is_named_once() {
        let io = || std::io::Error::other("it is full");
        let quoted: anyhow::Result<()> =
            Err(io()).context("The disk cannot be written: it is full.");
        assert_eq!(
            super::message(&quoted.unwrap_err()),
            "The disk cannot be written: it is full."
        );
        let bare: anyhow::Result<()> = Err(io()).context("The disk cannot be written");
        assert_eq!(
            super::message(&bare.unwrap_err()),
            "The disk cannot be written: it is full"
        );
    }

    #[test]
    fn an_error_is_one_line() {
        let lost =
            anyhow::anyhow!("The device failed: An error happened\nCaused by:\n  it is gone\n");
        assert_eq!(
            super::message(&lost),
            "The device failed: An error happened Caused by: it is gone"
        );
    }
}
