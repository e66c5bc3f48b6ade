//! WebP. Animation frames are extracted from the RIFF file, decoded as still pictures and composed as libwebp does.
//! (The decoder's own composition is off by one on every opaque pixel.)

use std::collections::VecDeque;
use std::io::Cursor;

use ::image::codecs::webp::WebPDecoder;
use ::image::{DynamicImage, Rgba, RgbaImage};

use super::alpha::to_rgb;
use super::codec::with_decoder;
use super::format::Format;
use super::{ImageError, Limits, RgbImage};

/// Flag of the extended header (`VP8X`): the file is an animation.
const ANIMATED: u8 = 2;
/// Frame flags: clear the frame's area after display; overwrite the pixels below instead of blending.
const DISPOSE: u8 = 1;
const REPLACE: u8 = 2;
/// Length of a frame header in bytes.
const FRAME_HEADER: usize = 16;

fn damaged(reason: &str) -> ImageError {
    ImageError::Unreadable {
        format: Format::WebP,
        reason: reason.to_owned(),
    }
}

fn truncated() -> ImageError {
    ImageError::Truncated {
        format: Format::WebP,
    }
}

/// Decodes the picture, or the first frame of an animation.
pub(super) fn decode_first(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let Some(mut frames) = WebPFrames::read(bytes, limits)? else {
        let decoder = WebPDecoder::new(Cursor::new(bytes));
        return with_decoder(decoder, Format::WebP, limits).map(to_rgb);
    };
    if frames.step()? {
        Ok(frames.picture())
    } else {
        Err(truncated())
    }
}

/// The content of the first chunk of this name; `None` if a chunk before it is damaged.
pub(super) fn chunk<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    let content = bytes.get(12..)?;
    let mut sound = chunks(content).map_while(Result::ok);
    sound
        .find(|(found, _)| found == name)
        .map(|(_, content)| content)
}

/// The chunks of a RIFF file's content.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = Result<([u8; 4], &[u8]), ImageError>> {
    std::iter::from_fn(move || {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let chunk = after.split_first_chunk::<4>().and_then(|(size, after)| {
            let size = u32::from_le_bytes(*size) as usize;
            // chunks are padded to even lengths; the last padding byte may be missing
            let next = after.get(size + size % 2..).unwrap_or_default();
            Some((after.get(..size)?, next))
        });
        Some(match chunk {
            Some((content, next)) => {
                rest = next;
                Ok((*name, content))
            }
            None => {
                rest = &[];
                Err(truncated())
            }
        })
    })
}

/// A 24-bit little-endian number.
fn u24(bytes: &[u8], at: usize) -> Option<u32> {
    let b = bytes.get(at..at + 3)?;
    Some(
        b.iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
    )
}

/// An animation, and the canvas as the last frame left it.
pub(crate) struct WebPFrames<'a> {
    waiting: VecDeque<&'a [u8]>,
    canvas: RgbaImage,
    /// The area to clear before the next frame: left, top, width, height.
    clear: Option<[u32; 4]>,
    limits: Limits,
}

impl<'a> WebPFrames<'a> {
    /// `None` if the file is a still picture.
    pub fn read(bytes: &'a [u8], limits: &Limits) -> Result<Option<Self>, ImageError> {
        let mut parts = chunks(bytes.get(12..).unwrap_or_default());
        let header = match parts.next() {
            Some(Ok((name, header)))
                if name == *b"VP8X" && header.first().is_some_and(|f| f & ANIMATED != 0) =>
            {
                header
            }
            _ => return Ok(None),
        };
        let announced = bytes
            .get(4..8)
            .and_then(|b| b.first_chunk())
            .map_or(0, |b| u32::from_le_bytes(*b) as usize);
        if bytes.len() < announced {
            return Err(truncated());
        }
        let (Some(width), Some(height)) = (u24(header, 4), u24(header, 7)) else {
            return Err(damaged("the canvas has no size"));
        };
        let (width, height) = (width + 1, height + 1);
        limits.check_pixels(width, height)?;
        let mut waiting = VecDeque::new();
        for part in parts {
            let (name, content) = part?;
            if name == *b"ANMF" {
                waiting.push_back(content);
            }
        }
        Ok(Some(Self {
            waiting,
            canvas: RgbaImage::new(width, height),
            clear: None,
            limits: *limits,
        }))
    }

    /// Number of remaining frames.
    pub fn frames(&self) -> usize {
        self.waiting.len()
    }

    /// The canvas composited over white.
    pub fn picture(&self) -> RgbImage {
        to_rgb(DynamicImage::ImageRgba8(self.canvas.clone()))
    }

    /// Draws the next frame; `false` after the last.
    pub fn step(&mut self) -> Result<bool, ImageError> {
        let Some(frame) = self.waiting.pop_front() else {
            return Ok(false);
        };
        let header = (
            u24(frame, 0),
            u24(frame, 3),
            frame.get(15),
            frame.get(FRAME_HEADER..),
        );
        let (Some(left), Some(top), Some(flags), Some(content)) = header else {
            return Err(damaged("a frame is shorter than its header"));
        };
        let (left, top) = (left * 2, top * 2);
        let picture = self.decode(content)?;
        let (width, height) = picture.dimensions();
        if left + width > self.canvas.width() || top + height > self.canvas.height() {
            return Err(damaged("a frame lies outside the canvas"));
        }
        if let Some([left, top, width, height]) = self.clear.take() {
            let empty = RgbaImage::new(width, height);
            ::image::imageops::replace(&mut self.canvas, &empty, left.into(), top.into());
        }
        for (x, y, pixel) in picture.enumerate_pixels() {
            let below = self.canvas.get_pixel_mut(left + x, top + y);
            *below = if flags & REPLACE != 0 {
                *pixel
            } else {
                blend(*pixel, *below)
            };
        }
        if flags & DISPOSE != 0 {
            self.clear = Some([left, top, width, height]);
        }
        Ok(true)
    }

    /// Decodes a frame's chunks as a still picture.
    fn decode(&self, content: &[u8]) -> Result<RgbaImage, ImageError> {
        let mut alpha = None;
        let mut picture = None;
        for part in chunks(content) {
            match part? {
                (name, bytes) if name == *b"ALPH" => alpha = Some(bytes),
                (name, bytes) if name == *b"VP8 " || name == *b"VP8L" => {
                    picture = Some((name, bytes))
                }
                _ => {}
            }
        }
        let (name, bytes) = picture.ok_or_else(|| damaged("a frame has no picture"))?;
        let mut body = b"WEBP".to_vec();
        if let Some(alpha) = alpha {
            // an alpha chunk needs the extended header, whose size has to match
            let (width, height) =
                lossy_size(bytes).ok_or_else(|| damaged("a frame has no size"))?;
            let mut header = vec![0x10, 0, 0, 0];
            header.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
            header.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
            push_chunk(&mut body, b"VP8X", &header);
            push_chunk(&mut body, b"ALPH", alpha);
        }
        push_chunk(&mut body, &name, bytes);
        let mut file = Vec::with_capacity(body.len() + 8);
        push_chunk(&mut file, b"RIFF", &body);

        let decoder = WebPDecoder::new(Cursor::new(file));
        Ok(with_decoder(decoder, Format::WebP, &self.limits)?.to_rgba8())
    }
}

/// Width and height from the header of a lossy key frame.
fn lossy_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let side = |at: usize| {
        bytes
            .get(at..at + 2)?
            .first_chunk()
            .map(|b| u32::from(u16::from_le_bytes(*b)) & 0x3fff)
    };
    Some((side(6)?, side(8)?)).filter(|(width, height)| *width > 0 && *height > 0)
}

fn push_chunk(out: &mut Vec<u8>, name: &[u8; 4], content: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(content);
    if content.len() % 2 == 1 {
        out.push(0);
    }
}

/// libwebp's alpha blending for straight (not premultiplied) alpha.
fn blend(above: Rgba<u8>, below: Rgba<u8>) -> Rgba<u8> {
    let [
        Rgba([r, g, b, alpha]),
        Rgba([below_r, below_g, below_b, below_alpha]),
    ] = [above, below].map(|p| Rgba(p.0.map(u32::from)));
    match alpha {
        255 => above,
        0 => below,
        alpha => {
            let rest = (below_alpha * (256 - alpha)) >> 8;
            let sum = alpha + rest;
            let scale = (1 << 24) / sum;
            let mix = |above: u32, below: u32| {
                ((u64::from(above * alpha + below * rest) * u64::from(scale)) >> 24) as u8
            };
            Rgba([mix(r, below_r), mix(g, below_g), mix(b, below_b), sum as u8])
        }
    }
}
