//! Embeds pictures in a page.

use std::path::Path;

/// A picture as a data URI for a `src` attribute.
pub struct Embedded {
    /// `data:image/png;base64,…`
    pub uri: String,
    /// Width and height in pixels, for PNG.
    pub size: Option<(u32, u32)>,
}

/// Reads and embeds a picture; `None` if it cannot be read.
pub fn picture(file: &Path) -> Option<Embedded> {
    let bytes = std::fs::read(file).ok()?;
    let mime = match bytes.as_slice() {
        [0xff, 0xd8, ..] => "image/jpeg",
        [b'G', b'I', b'F', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', ..] => "image/webp",
        _ => "image/png",
    };
    Some(Embedded {
        uri: format!("data:{mime};base64,{}", base64(&bytes)),
        size: png_size(&bytes),
    })
}

/// Width and height from a PNG's first chunk.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    if bytes.get(12..16)? != b"IHDR" {
        return None;
    }
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some((number(16)?, number(20)?))
}

/// Base64 of RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, i| {
            (word << 8) | u32::from(chunk.get(i).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let used = digit <= chunk.len();
            let value = (word >> (18 - 6 * digit)) & 63;
            out.push(if used {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn a_png_tells_its_size() {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        png.extend([0, 0, 0, 64, 0, 0, 1, 0]);
        assert_eq!(png_size(&png), Some((64, 256)));
        assert_eq!(png_size(b"short"), None);
    }
}
