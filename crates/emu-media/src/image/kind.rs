//! Recognises files that are not supported pictures, so that the error can say what to do with them.

use super::ImageError;

const CONVERT: &str = "Convert it to PNG or JPEG first.";
const EXPORT: &str = "Export it as PNG or JPEG first.";
const AS_VIDEO: &str = "Give it as a video, or save a frame of it as PNG.";
const UNPACK: &str = "Unpack it and give the pictures in it.";

/// Magic bytes, name and advice of unsupported formats.
const STARTS: &[(&[u8], &str, &str)] = &[
    (b"\xff\x0a", "a JPEG XL picture", CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", CONVERT),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", CONVERT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", CONVERT),
    (b"\0\0\x01\0", "a Windows icon", CONVERT),
    (b"\0\0\x02\0", "a Windows cursor", CONVERT),
    (b"II\x2b\0", "a BigTIFF picture", CONVERT),
    (b"MM\0\x2b", "a BigTIFF picture", CONVERT),
    (b"IIRO", "a camera's raw picture", EXPORT),
    (b"IIU\0", "a camera's raw picture", EXPORT),
    (b"FUJIFILMCCD-RAW", "a camera's raw picture", EXPORT),
    (b"qoif", "a QOI picture", CONVERT),
    (b"DDS ", "a DirectDraw surface", CONVERT),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture", CONVERT),
    (b"#?RADIANCE", "a Radiance HDR picture", CONVERT),
    (b"#?RGBE", "a Radiance HDR picture", CONVERT),
    (b"farbfeld", "a farbfeld picture", CONVERT),
    (b"8BPS", "a Photoshop document", EXPORT),
    (b"gimp xcf", "a GIMP document", EXPORT),
    (
        b"%PDF",
        "a PDF document",
        "Export the page you mean as PNG.",
    ),
    (
        b"%!PS",
        "a PostScript document",
        "Export the page you mean as PNG.",
    ),
    (b"\xc5\xd0\xd3\xc6", "an EPS document", EXPORT),
    (b"PK\x03\x04", "a ZIP archive", UNPACK),
    (b"\x1f\x8b", "a gzip archive", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (b"Rar!", "a RAR archive", UNPACK),
    (b"BZh", "a bzip2 archive", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    (b"\xfd7zXZ\0", "an XZ archive", UNPACK),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", AS_VIDEO),
    (b"FLV", "an FLV video", AS_VIDEO),
    (b"OggS", "an Ogg video or sound", AS_VIDEO),
    (b"\0\0\x01\xba", "an MPEG video", AS_VIDEO),
    (b"\0\0\x01\xb3", "an MPEG video", AS_VIDEO),
    (b"ID3", "a sound", "Give a picture."),
    (
        b"{\"",
        "JSON text",
        "Look what it says, and download the picture itself.",
    ),
    (
        b"data:image/",
        "a data address (text)",
        "Save the picture that it holds as a file.",
    ),
];

/// The error for a file of an unsupported format.
pub(crate) fn refusal(bytes: &[u8]) -> ImageError {
    let other = |what, advice| ImageError::OtherFormat { what, advice };
    if bytes.is_empty() {
        return ImageError::EmptyFile;
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return ImageError::LfsPointer;
    }
    if let Some((_, what, advice)) = STARTS.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return other(what, advice);
    }
    match bytes {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', ..] => {
            return other("an AVI video", AS_VIDEO);
        }
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            ..,
        ] => {
            return other("a sound", "Give a picture.");
        }
        [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', ..] => {
            return other("a Netpbm picture", CONVERT);
        }
        _ => {}
    }
    if let Some(what) = iso_media(bytes) {
        let is_video = what.ends_with("video");
        return other(what, if is_video { AS_VIDEO } else { CONVERT });
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return other("a tar archive", UNPACK);
    }
    markup(bytes).unwrap_or(ImageError::UnsupportedFormat)
}

/// ISO base media files. AVIF, HEIC and MP4 differ in the brands that their `ftyp` box lists.
fn iso_media(bytes: &[u8]) -> Option<&'static str> {
    let (size, after) = bytes.split_first_chunk::<4>()?;
    let brands = after.strip_prefix(b"ftyp")?;
    let size = (u32::from_be_bytes(*size) as usize).clamp(8, 256) - 8;
    let brands = brands.get(..size).unwrap_or(brands).as_chunks::<4>().0;
    let has = |wanted: &[&[u8; 4]]| brands.iter().any(|b| wanted.contains(&b));
    Some(if has(&[b"avif", b"avis"]) {
        "an AVIF picture"
    } else if has(&[
        b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1",
    ]) {
        "a HEIC picture"
    } else if has(&[b"crx "]) {
        "a camera's raw picture"
    } else {
        "an MP4 or QuickTime video"
    })
}

/// Recognises text markup: HTML, SVG, XML.
fn markup(bytes: &[u8]) -> Option<ImageError> {
    /// Bytes searched: comments and declarations may precede the root element.
    const LOOKED_AT: usize = 4096;
    let head = bytes.get(..LOOKED_AT).unwrap_or(bytes);
    let head = String::from_utf8_lossy(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head));
    let head = head.trim_start().to_ascii_lowercase();
    if !head.starts_with('<') {
        return None;
    }
    let first = |names: &[&str]| names.iter().filter_map(|name| head.find(name)).min();
    let html = first(&["<!doctype html", "<html", "<head", "<body", "<script"]);
    let svg = first(&["<svg", "<!doctype svg"]);
    match (html, svg) {
        (Some(html), svg) if svg.is_none_or(|svg| html < svg) => Some(ImageError::WebPage),
        (_, Some(_)) => Some(ImageError::OtherFormat {
            what: "an SVG drawing",
            advice: "Export it as PNG first.",
        }),
        _ => Some(ImageError::OtherFormat {
            what: "an XML document",
            advice: "Give a picture.",
        }),
    }
}
