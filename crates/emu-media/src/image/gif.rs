//! GIF: the first frame, or all frames of an animation.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, DisposalMethod, MemoryLimit};

use super::format::Format;
use super::{ImageError, Limits, RgbImage};

type GifDecoder<'a> = Decoder<Cursor<&'a [u8]>>;

/// Opens a GIF with palette indices as output.
fn open<'a>(bytes: &'a [u8], limits: Option<&Limits>) -> Result<GifDecoder<'a>, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    if let Some(limit) = limits.and_then(|l| std::num::NonZeroU64::new(l.max_pixels)) {
        options.set_memory_limit(MemoryLimit::Bytes(limit));
    }
    options.read_info(Cursor::new(bytes)).map_err(from_gif)
}

/// Classifies a decoder error: truncated or damaged.
fn from_gif(error: DecodingError) -> ImageError {
    let reason = error.to_string();
    let early = match &error {
        DecodingError::UnexpectedEof => true,
        DecodingError::Io(e) => e.kind() == std::io::ErrorKind::UnexpectedEof,
        _ => false,
    };
    if early {
        ImageError::Truncated {
            format: Format::Gif,
        }
    } else {
        ImageError::Unreadable {
            format: Format::Gif,
            reason,
        }
    }
}

/// Width and height of the canvas.
pub(crate) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let decoder = open(bytes, None)?;
    Ok((u32::from(decoder.width()), u32::from(decoder.height())))
}

/// Decodes the first frame. The canvas outside a smaller frame, and transparent pixels, are white.
pub(crate) fn decode_first(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let mut frames = GifFrames::open(bytes, limits)?;
    match frames.next_frame()? {
        Some(canvas) => Ok(canvas.clone()),
        None => Err(ImageError::Truncated {
            format: Format::Gif,
        }),
    }
}

/// A frame's palette; without one, indices are grey levels.
struct Colors<'a>(Option<&'a [u8]>);

impl Colors<'_> {
    /// The colour of an index; black past the end of the palette.
    fn of(&self, index: u8) -> [u8; 3] {
        let Some(palette) = self.0 else {
            return [index; 3];
        };
        let entry = palette
            .get(usize::from(index) * 3..)
            .and_then(|p| p.first_chunk());
        entry.copied().unwrap_or_default()
    }
}

/// The frames of an animation, each composed onto the canvas that the previous ones left.
pub(crate) struct GifFrames<'a> {
    decoder: GifDecoder<'a>,
    canvas: Option<RgbImage>,
    /// Disposal of the last frame's area before the next one is drawn.
    disposal: Disposal,
}

/// The disposal method of a frame, with the data that it needs.
enum Disposal {
    Keep,
    /// Restores an area to its previous pixels.
    Restore(Area, RgbImage),
    /// Clears an area to transparent, which is white.
    Clear(Area),
}

/// The colour of transparent pixels.
const WHITE: ::image::Rgb<u8> = ::image::Rgb([255; 3]);

/// A rectangle that lies inside the canvas.
#[derive(Clone, Copy)]
struct Area {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

impl<'a> GifFrames<'a> {
    /// Number of frames, without decoding any.
    pub fn count(bytes: &[u8]) -> Result<usize, ImageError> {
        let mut options = DecodeOptions::new();
        options.skip_frame_decoding(true);
        let mut decoder = options.read_info(Cursor::new(bytes)).map_err(from_gif)?;
        let mut count = 0;
        while decoder.next_frame_info().map_err(from_gif)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    pub fn open(bytes: &'a [u8], limits: &Limits) -> Result<Self, ImageError> {
        let decoder = open(bytes, Some(limits))?;
        limits.check_pixels(u32::from(decoder.width()), u32::from(decoder.height()))?;
        Ok(Self {
            decoder,
            canvas: None,
            disposal: Disposal::Keep,
        })
    }

    /// The next frame; `None` after the last.
    pub fn next_frame(&mut self) -> Result<Option<&RgbImage>, ImageError> {
        let (width, height) = (
            u32::from(self.decoder.width()),
            u32::from(self.decoder.height()),
        );
        let global = self.decoder.global_palette().map(<[u8]>::to_vec);
        let Some(frame) = self.decoder.read_next_frame().map_err(from_gif)? else {
            return Ok(None);
        };
        let colors = Colors(frame.palette.as_deref().or(global.as_deref()));
        let canvas = self
            .canvas
            .get_or_insert_with(|| RgbImage::from_pixel(width, height, WHITE));
        match std::mem::replace(&mut self.disposal, Disposal::Keep) {
            Disposal::Keep => {}
            Disposal::Restore(area, before) => {
                ::image::imageops::replace(canvas, &before, area.left.into(), area.top.into());
            }
            Disposal::Clear(area) => {
                for (x, y) in (area.top..area.bottom)
                    .flat_map(|y| (area.left..area.right).map(move |x| (x, y)))
                {
                    canvas.put_pixel(x, y, WHITE);
                }
            }
        }
        let (left, top) = (
            u32::from(frame.left).min(width),
            u32::from(frame.top).min(height),
        );
        let right = (left + u32::from(frame.width)).min(width);
        let bottom = (top + u32::from(frame.height)).min(height);
        let area = Area {
            left,
            top,
            right,
            bottom,
        };
        self.disposal = match frame.dispose {
            DisposalMethod::Any | DisposalMethod::Keep => Disposal::Keep,
            DisposalMethod::Background => Disposal::Clear(area),
            DisposalMethod::Previous => {
                let (across, down) = (right - left, bottom - top);
                let before = ::image::imageops::crop_imm(canvas, left, top, across, down);
                Disposal::Restore(area, before.to_image())
            }
        };
        for (row, y) in frame
            .buffer
            .chunks_exact(usize::from(frame.width).max(1))
            .zip(top..bottom)
        {
            for (index, x) in row
                .iter()
                .zip(left..right)
                .filter(|(index, _)| Some(**index) != frame.transparent)
            {
                canvas.put_pixel(x, y, ::image::Rgb(colors.of(*index)));
            }
        }
        Ok(Some(canvas))
    }
}
