//! Errors of picture decoding and encoding.

use super::format::Format;

/// A picture that cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The first bytes match no supported format.
    #[error(
        "These bytes are not a picture in a known format. Use PNG, JPEG, GIF, WebP, BMP or TIFF."
    )]
    UnsupportedFormat,
    /// A file of a recognised but unsupported format.
    #[error("This file is {what}, which is not read as a picture. {advice}")]
    OtherFormat {
        /// Name of the format, with its article.
        what: &'static str,
        /// What to do with it, as a sentence.
        advice: &'static str,
    },
    /// No bytes at all.
    #[error("This file is empty (0 bytes). Download or copy it again.")]
    EmptyFile,
    /// A Git LFS pointer: the few lines of text that Git stores in place of a large file.
    #[error(
        "This file is a Git LFS pointer, not the data that it points to. Fetch them with `git lfs pull`."
    )]
    LfsPointer,
    /// An HTML page, which servers send in place of a file that is missing or needs a login.
    #[error(
        "This file is a web page (HTML). Open its address in a browser to see what it says, and download the picture or video itself."
    )]
    WebPage,
    /// The format is supported, but this file uses an unsupported feature of it.
    #[error(
        "This {format} picture uses a feature that is not supported ({feature}). Save it again as a plain PNG or JPEG."
    )]
    UnsupportedFeature {
        /// The format of the file.
        format: Format,
        /// The unsupported feature.
        feature: String,
    },
    /// The data contradict themselves.
    #[error("This {format} picture is damaged ({reason}). Save or download it again.")]
    Unreadable {
        /// The format of the file.
        format: Format,
        /// What the decoder reported.
        reason: String,
    },
    /// The data end too early.
    #[error("This {format} picture is cut short. Download or copy it again.")]
    Truncated {
        /// The format of the file.
        format: Format,
    },
    /// More pixels than allowed, according to the header; nothing is decoded.
    #[error(
        "This picture has {width} x {height} pixels, which is over the limit of {max_pixels} pixels. Make it smaller first."
    )]
    TooManyPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit in force.
        max_pixels: u64,
    },
    /// A progressive JPEG with too many scans: its decoding time is out of proportion to its size.
    #[error(
        "This JPEG picture has {scans} progressive scans or more over the same pixels, which is over the limit of {max_scans} scans. Save it again as a plain JPEG or PNG."
    )]
    TooManyScans {
        /// Scans seen, including the one over the limit.
        scans: usize,
        /// The limit for this picture.
        max_scans: usize,
    },
    /// The memory for the pixels cannot be allocated.
    #[error(
        "There is not enough memory for a picture of {width} x {height} pixels. Make it smaller first."
    )]
    OutOfMemory {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The file is longer than allowed.
    #[error(
        "This picture file has {bytes} bytes, which is over the limit of {max_bytes} bytes. Compress it or make it smaller first."
    )]
    TooManyBytes {
        /// Length of the file.
        bytes: usize,
        /// The limit in force.
        max_bytes: usize,
    },
    /// The width or height is zero, in the file or in the request.
    #[error(
        "A picture of {width} x {height} pixels holds nothing. Both sides must be at least one pixel."
    )]
    ZeroSized {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The number of values does not match the given size.
    #[error(
        "A picture of {width} x {height} pixels needs {expected} values, but {actual} were given. Pass three full colour planes."
    )]
    WrongLength {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Values needed, three per pixel.
        expected: usize,
        /// Values given.
        actual: usize,
    },
    /// A colour value is NaN or infinite.
    #[error(
        "The decoded picture holds a value that is not a number, at index {index}. Check the weights of the decoder."
    )]
    NotFinite {
        /// Index of the first such value.
        index: usize,
    },
    /// A `preprocessor_config.json` that cannot be used.
    #[error(
        "The preprocessor configuration cannot be used: {reason}. Use the preprocessor_config.json that came with the model."
    )]
    Config {
        /// What is wrong with it.
        reason: String,
    },
    /// Writing a PNG failed.
    #[error("The picture could not be written as PNG ({reason}). Try a smaller picture.")]
    Encode {
        /// What the encoder reported.
        reason: String,
    },
}

impl ImageError {
    /// A short error code that is stable between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedFormat | Self::OtherFormat { .. } => "image-format",
            Self::LfsPointer => "image-lfs-pointer",
            Self::WebPage => "image-web-page",
            Self::UnsupportedFeature { .. } => "image-feature",
            Self::Unreadable { .. } => "image-damaged",
            Self::Truncated { .. } => "image-truncated",
            Self::TooManyPixels { .. }
            | Self::TooManyBytes { .. }
            | Self::TooManyScans { .. }
            | Self::OutOfMemory { .. } => "image-too-large",
            Self::ZeroSized { .. } | Self::EmptyFile => "image-empty",
            Self::WrongLength { .. } => "image-length",
            Self::NotFinite { .. } => "image-not-finite",
            Self::Config { .. } => "image-config",
            Self::Encode { .. } => "image-encode",
        }
    }
}
