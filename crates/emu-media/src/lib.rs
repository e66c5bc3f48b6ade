//! Pictures and videos: decoding within limits, Pillow's resize, normalisation, frame sampling.
//!
//! | module | contents |
//! | --- | --- |
//! | [`image`] | PNG, JPEG, GIF, WebP, BMP and TIFF to [`image::RgbImage`]; resize and normalisation to the encoders' input; decoder output to PNG |
//! | [`video`] | Which frames of an MP4, GIF or WebP file the model sees, and these frames as pictures |
//!
//! Bytes go in, pictures and numbers come out: no module here touches files, the network, clocks, threads or JavaScript,
//! and none needs Burn. Every size that a file states is bounded by [`image::Limits`].

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types
    )
)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod image;
pub mod video;
