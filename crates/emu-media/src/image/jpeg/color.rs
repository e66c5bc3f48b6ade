//! Colour conversion from planes to RGB, in libjpeg's 16-bit fixed point; CMYK follows Pillow.

/// The colour space of the planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColorSpace {
    Gray,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// `x` in 16-bit fixed point.
const fn fix(x: f64) -> i32 {
    (x * 65536.0 + 0.5) as i32
}

const HALF: i32 = 1 << 15;

/// BT.601 at full range.
fn ycc_to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((fix(1.40200) * cr + HALF) >> 16);
    let green = y + ((-fix(0.34414) * cb - fix(0.71414) * cr + HALF) >> 16);
    let blue = y + ((fix(1.77200) * cb + HALF) >> 16);
    [red, green, blue].map(|v| v.clamp(0, 255) as u8)
}

/// Pillow's conversion from CMYK to RGB; 255 is full ink.
pub(in crate::image) fn cmyk_to_rgb(ink: [u8; 3], black: u8) -> [u8; 3] {
    let light = u32::from(255 - black);
    ink.map(|ink| {
        let product = u32::from(ink) * light + 128;
        (light.saturating_sub(((product >> 8) + product) >> 8)) as u8
    })
}

/// Converts one row of each plane to RGB pixels. Adobe files store CMYK inverted.
pub(super) fn to_rgb(rows: &[Vec<u8>], space: ColorSpace, adobe: bool, out: &mut Vec<[u8; 3]>) {
    let invert = |v: u8| if adobe { 255 - v } else { v };
    out.clear();
    match rows {
        [gray] => out.extend(gray.iter().map(|v| [*v; 3])),
        [a, b, c] => {
            let colors = a.iter().zip(b).zip(c);
            if space == ColorSpace::Rgb {
                out.extend(colors.map(|((r, g), b)| [*r, *g, *b]));
            } else {
                out.extend(colors.map(|((y, cb), cr)| ycc_to_rgb(*y, *cb, *cr)));
            }
        }
        [a, b, c, d] => {
            let colors = a.iter().zip(b).zip(c).zip(d);
            out.extend(colors.map(|(((c, m), y), k)| {
                let inks = match space {
                    ColorSpace::Ycck => ycc_to_rgb(*c, *m, *y).map(|v| 255 - v),
                    _ => [*c, *m, *y],
                };
                cmyk_to_rgb(inks.map(invert), invert(*k))
            }));
        }
        _ => {}
    }
}
