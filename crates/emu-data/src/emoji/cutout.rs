//! Cut-outs: drawings with a transparent background, and their compositing onto a canvas.

use resvg::{tiny_skia, usvg};

use crate::Picture;

/// Default larger side of a cut-out in pixels. It exceeds the size of any cut-out in a 64 x 64 picture.
pub const CUTOUT_SIDE: u32 = 96;

/// A drawing cropped to its visible part, in premultiplied RGBA, four bytes per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutout {
    width: usize,
    height: usize,
    rgba: Vec<u8>,
}

/// Placement of a cut-out on a canvas.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    /// Horizontal centre, as a fraction of the canvas.
    pub cx: f64,
    /// Vertical centre, as a fraction of the canvas.
    pub cy: f64,
    /// Larger side of the unrotated cut-out, as a fraction of the canvas.
    pub size: f64,
    /// Clockwise rotation in radians.
    pub angle: f64,
    /// Mirrored left to right.
    pub flip: bool,
    /// Gain of red, green and blue.
    pub gain: [f32; 3],
}

impl Placement {
    /// A placement without rotation, mirroring or gain.
    pub fn plain(cx: f64, cy: f64, size: f64) -> Self {
        Self {
            cx,
            cy,
            size,
            angle: 0.0,
            flip: false,
            gain: [1.0; 3],
        }
    }
}

impl Cutout {
    /// Renders an SVG document so that its visible part fills `pixels`.
    ///
    /// # Errors
    /// If the document is malformed or nothing in it is visible.
    pub fn from_svg(svg: &str, pixels: u32) -> Result<Self, String> {
        let tree = usvg::Tree::from_str(svg, &usvg::Options::default())
            .map_err(|error| error.to_string())?;
        let (width, height) = (tree.size().width(), tree.size().height());
        let side = pixels as f32;
        let scale = side / width.max(height);
        // The first rendering, with a margin for content outside the view box, finds the visible part. The second fills
        // it.
        let margin = side * 0.125;
        let whole = draw(&tree, scale, (margin, margin), pixels + pixels / 4)?;
        let seen = bounds(&whole).ok_or("nothing is visible")?;
        let larger = (seen.right - seen.left).max(seen.bottom - seen.top) as f32;
        let zoom = (side - 2.0) / larger;
        let shift = |low: usize| (margin - low as f32) * zoom + 1.0;
        let filled = draw(
            &tree,
            scale * zoom,
            (shift(seen.left), shift(seen.top)),
            pixels,
        )?;
        let seen = bounds(&filled).ok_or("nothing is visible")?;
        Ok(crop(&filled, &seen))
    }

    /// Crops a picture with transparency (PNG or WebP bytes) to its visible part and scales it to `pixels`.
    ///
    /// # Errors
    /// If the bytes are not such a picture, or it is fully transparent.
    pub fn from_picture(bytes: &[u8], pixels: u32) -> Result<Self, String> {
        let mut reader = image::ImageReader::new(std::io::Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| error.to_string())?;
        let mut limits = image::Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(4096), Some(4096));
        reader.limits(limits);
        let mut rgba = reader
            .decode()
            .map_err(|error| error.to_string())?
            .into_rgba8();
        for pixel in rgba.pixels_mut() {
            let alpha = u16::from(pixel.0[3]);
            for channel in &mut pixel.0[..3] {
                *channel = (u16::from(*channel) * alpha / 255) as u8;
            }
        }
        let whole = Self {
            width: rgba.width() as usize,
            height: rgba.height() as usize,
            rgba: rgba.into_raw(),
        };
        let seen = bounds(&whole).ok_or("nothing is visible")?;
        let cut = crop(&whole, &seen);
        let factor = f64::from(pixels) / cut.width.max(cut.height) as f64;
        let scaled = |side: usize| ((side as f64 * factor).round() as u32).max(1);
        let (width, height) = (scaled(cut.width), scaled(cut.height));
        let buffer = image::RgbaImage::from_raw(cut.width as u32, cut.height as u32, cut.rgba)
            .ok_or("its size is inconsistent")?;
        let small = image::imageops::resize(
            &buffer,
            width,
            height,
            image::imageops::FilterType::Triangle,
        );
        Ok(Self {
            width: width as usize,
            height: height as usize,
            rgba: small.into_raw(),
        })
    }

    /// Width and height as fractions of the larger side.
    pub fn aspect(&self) -> (f64, f64) {
        let larger = self.width.max(self.height) as f64;
        (self.width as f64 / larger, self.height as f64 / larger)
    }

    /// Width and height of the bounding box of the cut-out rotated by `angle`, as fractions of its larger side.
    pub fn extent(&self, angle: f64) -> (f64, f64) {
        let ((w, h), (sin, cos)) = (self.aspect(), angle.sin_cos());
        let (sin, cos) = (sin.abs(), cos.abs());
        (w * cos + h * sin, w * sin + h * cos)
    }

    /// A premultiplied pixel; transparent outside.
    fn pixel(&self, x: isize, y: isize) -> [f32; 4] {
        if x < 0 || y < 0 || x as usize >= self.width || y as usize >= self.height {
            return [0.0; 4];
        }
        let start = (y as usize * self.width + x as usize) * 4;
        std::array::from_fn(|channel| f32::from(self.rgba[start + channel]))
    }

    /// Bilinear sample at a point, in pixels.
    fn sample(&self, x: f32, y: f32) -> [f32; 4] {
        let (x, y) = (x - 0.5, y - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = (x - left, y - top);
        let (left, top) = (left as isize, top as isize);
        let mut sum = [0.0; 4];
        for (dx, dy, weight) in [
            (0, 0, (1.0 - fx) * (1.0 - fy)),
            (1, 0, fx * (1.0 - fy)),
            (0, 1, (1.0 - fx) * fy),
            (1, 1, fx * fy),
        ] {
            if weight > 0.0 {
                let pixel = self.pixel(left + dx, top + dy);
                for channel in 0..4 {
                    sum[channel] += weight * pixel[channel];
                }
            }
        }
        sum
    }
}

/// A square picture during compositing.
#[derive(Debug, Clone)]
pub struct Canvas {
    side: usize,
    rgb: Vec<f32>,
}

impl Canvas {
    /// A canvas filled with one colour.
    pub fn new(side: u32, colour: [f32; 3]) -> Self {
        let side = side as usize;
        Self {
            side,
            rgb: colour.repeat(side * side),
        }
    }

    /// Composites a cut-out over the canvas. Each canvas pixel averages about one sample per covered pixel of the
    /// cut-out, at most 8 x 8, which prevents aliasing.
    pub fn lay(&mut self, cutout: &Cutout, placement: &Placement) {
        let side = self.side as f64;
        let pixels = placement.size * side; // larger side on the canvas
        let zoom = cutout.width.max(cutout.height) as f64 / pixels.max(1e-6); // cut-out pixels per canvas pixel
        let samples = (zoom.ceil() as usize).clamp(1, 8);
        let (w, h) = cutout.extent(placement.angle);
        let (cx, cy) = (placement.cx * side, placement.cy * side);
        let low =
            |centre: f64, extent: f64| (centre - extent * pixels / 2.0 - 1.0).max(0.0) as usize;
        let end = self.side;
        let high = |centre: f64, extent: f64| {
            ((centre + extent * pixels / 2.0 + 2.0).max(0.0) as usize).min(end)
        };
        let (sin, cos) = placement.angle.sin_cos();
        let mirror = if placement.flip { -1.0 } else { 1.0 };
        let scale = 1.0 / (samples * samples) as f32;
        for y in low(cy, h)..high(cy, h) {
            for x in low(cx, w)..high(cx, w) {
                let mut sum = [0.0f32; 4];
                for sub in 0..samples * samples {
                    let step = |i: usize| (i as f64 + 0.5) / samples as f64;
                    let dx = (x as f64 + step(sub % samples) - cx) * zoom;
                    let dy = (y as f64 + step(sub / samples) - cy) * zoom;
                    let u = mirror * (dx * cos + dy * sin) + cutout.width as f64 / 2.0;
                    let v = dy * cos - dx * sin + cutout.height as f64 / 2.0;
                    let sample = cutout.sample(u as f32, v as f32);
                    for channel in 0..4 {
                        sum[channel] += sample[channel] * scale;
                    }
                }
                self.blend(x, y, sum, placement.gain);
            }
        }
    }

    fn blend(&mut self, x: usize, y: usize, colour: [f32; 4], gain: [f32; 3]) {
        let start = (y * self.side + x) * 3;
        let alpha = colour[3] / 255.0;
        for channel in 0..3 {
            // In premultiplied RGBA, no channel may exceed alpha.
            let over = (colour[channel] * gain[channel]).min(colour[3]);
            let under = &mut self.rgb[start + channel];
            *under = *under * (1.0 - alpha) + over;
        }
    }

    /// The canvas as bytes.
    pub fn into_picture(self) -> Picture {
        Picture {
            width: self.side as u32,
            height: self.side as u32,
            rgb: self
                .rgb
                .iter()
                .map(|value| value.round().clamp(0.0, 255.0) as u8)
                .collect(),
        }
    }
}

fn draw(tree: &usvg::Tree, scale: f32, shift: (f32, f32), side: u32) -> Result<Cutout, String> {
    let mut pixmap = tiny_skia::Pixmap::new(side, side).ok_or("no memory for it")?;
    let transform = tiny_skia::Transform::from_row(scale, 0.0, 0.0, scale, shift.0, shift.1);
    resvg::render(tree, transform, &mut pixmap.as_mut());
    Ok(Cutout {
        width: side as usize,
        height: side as usize,
        rgba: pixmap.take(),
    })
}

struct Bounds {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

/// Bounding box of all pixels with an alpha of at least 1/16. Fainter pixels are the edges of soft shadows.
fn bounds(cutout: &Cutout) -> Option<Bounds> {
    let mut found: Option<Bounds> = None;
    for (i, pixel) in cutout.rgba.chunks_exact(4).enumerate() {
        if pixel[3] < 16 {
            continue;
        }
        let (x, y) = (i % cutout.width, i / cutout.width);
        let b = found.get_or_insert(Bounds {
            left: x,
            top: y,
            right: x + 1,
            bottom: y + 1,
        });
        b.left = b.left.min(x);
        b.right = b.right.max(x + 1);
        b.bottom = b.bottom.max(y + 1);
    }
    found
}

fn crop(cutout: &Cutout, bounds: &Bounds) -> Cutout {
    let width = bounds.right - bounds.left;
    let rows = cutout
        .rgba
        .chunks_exact(cutout.width * 4)
        .skip(bounds.top)
        .take(bounds.bottom - bounds.top);
    Cutout {
        width,
        height: bounds.bottom - bounds.top,
        rgba: rows
            .flat_map(|row| &row[bounds.left * 4..bounds.right * 4])
            .copied()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(body: &str) -> String {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40" width="40" height="40">{body}</svg>"#
        )
    }

    #[test]
    fn trims_to_what_is_visible() {
        let wide = Cutout::from_svg(
            &svg(r##"<rect x="5" y="10" width="20" height="10" fill="#f00"/>"##),
            CUTOUT_SIDE,
        )
        .expect("renders");
        let (w, h) = wide.aspect();
        assert!(w == 1.0 && (h - 0.5).abs() < 0.03, "{w} x {h}");
        assert!(wide.width as u32 >= CUTOUT_SIDE - 3);
        assert!(Cutout::from_svg(&svg(""), CUTOUT_SIDE).is_err(), "empty");
        assert!(Cutout::from_svg("<svg", CUTOUT_SIDE).is_err(), "malformed");
        assert!(
            Cutout::from_picture(b"RIFF????WEBP", CUTOUT_SIDE).is_err(),
            "no picture"
        );
    }

    #[test]
    fn lays_where_it_is_told() {
        let square = Cutout::from_svg(
            &svg(r##"<rect width="40" height="40" fill="#0f0"/>"##),
            CUTOUT_SIDE,
        )
        .expect("renders");
        let mut canvas = Canvas::new(32, [255.0, 0.0, 0.0]);
        canvas.lay(&square, &Placement::plain(0.25, 0.5, 0.5));
        let picture = canvas.into_picture();
        let at = |x: usize, y: usize| &picture.rgb[(y * 32 + x) * 3..][..3];
        assert_eq!(at(8, 16), [0, 255, 0]);
        assert_eq!(at(1, 10), [0, 255, 0]);
        assert_eq!(at(20, 16), [255, 0, 0]);
        assert_eq!(at(8, 2), [255, 0, 0]);
    }

    #[test]
    fn flips_and_turns() {
        // Left half blue, right half green.
        let halves = Cutout::from_svg(&svg(
            r##"<rect width="20" height="40" fill="#00f"/><rect x="20" width="20" height="40" fill="#0f0"/>"##,
        ), CUTOUT_SIDE)
        .expect("renders");
        let left_of = |flip: bool, angle: f64| {
            let mut canvas = Canvas::new(32, [0.0; 3]);
            let plain = Placement::plain(0.5, 0.5, 0.5);
            canvas.lay(
                &halves,
                &Placement {
                    flip,
                    angle,
                    ..plain
                },
            );
            let picture = canvas.into_picture();
            picture.rgb[(16 * 32 + 11) * 3..][..3].to_vec()
        };
        assert_eq!(left_of(false, 0.0), [0, 0, 255]);
        assert_eq!(left_of(true, 0.0), [0, 255, 0]);
        assert_eq!(left_of(false, std::f64::consts::PI), [0, 255, 0]);
        let (w, h) = halves.extent(std::f64::consts::FRAC_PI_4);
        assert!((w - 2f64.sqrt()).abs() < 0.03 && (h - w).abs() < 1e-9);
    }

    #[test]
    fn gain_stays_within_coverage() {
        let white = Cutout::from_svg(
            &svg(r##"<rect width="40" height="40" fill="#fff"/>"##),
            CUTOUT_SIDE,
        )
        .expect("renders");
        let mut canvas = Canvas::new(8, [0.0; 3]);
        let placement = Placement {
            gain: [1.5, 1.0, 0.5],
            ..Placement::plain(0.5, 0.5, 1.0)
        };
        canvas.lay(&white, &placement);
        let picture = canvas.into_picture();
        let pixel = &picture.rgb[(4 * 8 + 4) * 3..][..3];
        assert!(
            pixel[0] == 255 && pixel[1] == 255 && (127..=128).contains(&pixel[2]),
            "{pixel:?}"
        );
    }
}
