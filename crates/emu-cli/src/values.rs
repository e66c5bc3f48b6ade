//! Values of command-line arguments.

/// A whole number of at least 1.
///
/// # Errors
/// What to give instead.
pub fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number of at least 1".into()),
        Ok(n) => Ok(n),
    }
}

/// A token and its bias, as ID=VALUE.
///
/// # Errors
/// What to give instead.
pub fn bias(text: &str) -> Result<(u32, f32), String> {
    text.split_once('=')
        .and_then(|(token, bias)| Some((token.trim().parse().ok()?, bias.trim().parse().ok()?)))
        .ok_or_else(|| "give the id of a token and a number, such as 198=-100".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bias_is_a_token_and_a_number() {
        assert_eq!(bias("198=-100"), Ok((198, -100.0)));
        assert_eq!(bias("0 = 2.5"), Ok((0, 2.5)));
        for wrong in [
            "",
            "198",
            "=1",
            "198=",
            "-1=1",
            "a=1",
            "1=b",
            "1.5=1",
            "4294967296=1",
        ] {
            assert!(bias(wrong).is_err(), "{wrong}");
        }
    }
}
