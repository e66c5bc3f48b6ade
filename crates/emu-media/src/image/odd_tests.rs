//! Real-world pictures: rotated by a camera, transparent, truncated, enormous, of unsupported formats.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/images")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode(bytes, &Limits::default())
}

/// EXIF data with an orientation only.
fn exif(value: u8, big_endian: bool) -> Vec<u8> {
    if big_endian {
        [
            &b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..],
            &[value, 0, 0, 0, 0, 0, 0],
        ]
        .concat()
    } else {
        [
            &b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..],
            &[value, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat()
    }
}

/// The file with an APP1 segment directly after the start marker.
fn jpeg_with(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    let length = u16::try_from(exif.len() + 8).unwrap().to_be_bytes();
    [
        &jpeg[..2],
        b"\xff\xe1",
        &length,
        b"Exif\0\0",
        exif,
        &jpeg[2..],
    ]
    .concat()
}

/// The file with the segment after the frame header, an unusual position.
fn jpeg_with_late(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    let scan = jpeg.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let segment = &jpeg_with(jpeg, exif)[2..exif.len() + 12];
    [&jpeg[..scan], segment, &jpeg[scan..]].concat()
}

/// A PNG file split into the bytes before the pixels, the pixels, and the bytes after them.
fn png_parts(png: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let at = png.windows(4).position(|w| w == b"IDAT").unwrap() - 4;
    let end = png.len() - 12;
    (&png[..at], &png[at..end], &png[end..])
}

/// A chunk with a valid checksum, written by the `png` crate's encoder.
fn exif_chunk(data: &[u8]) -> Vec<u8> {
    let mut info = ::png::Info::with_size(1, 1);
    info.exif_metadata = Some(data.to_vec().into());
    let mut file = Vec::new();
    let writer = ::png::Encoder::with_info(&mut file, info).unwrap();
    drop(writer.write_header().unwrap());
    let at = file.windows(4).position(|w| w == b"eXIf").unwrap();
    file[at - 4..at + 8 + data.len()].to_vec()
}

fn png_with(png: &[u8], exif: &[u8], after_pixels: bool) -> Vec<u8> {
    let ((head, pixels, end), chunk) = (png_parts(png), exif_chunk(exif));
    if after_pixels {
        [head, pixels, &chunk, end].concat()
    } else {
        [head, &chunk, pixels, end].concat()
    }
}

/// A still WebP file in the extended format, with EXIF data.
fn webp_with(webp: &[u8], exif: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let mut body = b"WEBPVP8X\x0a\0\0\0\x08\0\0\0".to_vec();
    body.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    body.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    body.extend_from_slice(&webp[12..]);
    body.extend_from_slice(b"EXIF");
    body.extend_from_slice(&u32::try_from(exif.len()).unwrap().to_le_bytes());
    body.extend_from_slice(exif);
    if exif.len() % 2 == 1 {
        body.push(0);
    }
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [b"RIFF", &length[..], &body].concat()
}

/// A TIFF file of RGB pixels, uncompressed.
fn tiff_of(picture: &RgbImage, orientation: u16) -> Vec<u8> {
    use ::tiff::encoder::{TiffEncoder, colortype::RGB8};
    let mut file = std::io::Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let mut image = encoder
        .new_image::<RGB8>(picture.width(), picture.height())
        .unwrap();
    image
        .encoder()
        .write_tag(::tiff::tags::Tag::Orientation, orientation)
        .unwrap();
    image.write_data(picture.as_raw()).unwrap();
    file.into_inner()
}

/// Position in the file of the pixel displayed at (x, y), in a file of `width` x `height` pixels. This is the definition of
/// the EXIF standard, which names the sides of the picture that correspond to the file's first row and first column.
fn stored(value: u8, (x, y): (u32, u32), (width, height): (u32, u32)) -> (u32, u32) {
    match value {
        2 => (width - 1 - x, y),
        3 => (width - 1 - x, height - 1 - y),
        4 => (x, height - 1 - y),
        5 => (y, x),
        6 => (y, height - 1 - x),
        7 => (width - 1 - y, height - 1 - x),
        8 => (width - 1 - y, x),
        _ => (x, y),
    }
}

#[test]
fn pictures_come_out_upright_whatever_the_format() {
    let base = read(&fixture("source.png")).unwrap();
    let (png, webp) = (fixture("source.png"), fixture("lossless.webp"));
    for value in 1..=8 {
        for big in [true, false] {
            let exif = exif(value, big);
            let named = [b"Exif\0\0", &exif[..]].concat();
            let jpeg = fixture("420.jpg");
            let files = [
                ("JPEG", read(&jpeg).unwrap(), jpeg_with(&jpeg, &exif)),
                (
                    "progressive",
                    read(&fixture("420-progressive.jpg")).unwrap(),
                    { jpeg_with(&fixture("420-progressive.jpg"), &exif) },
                ),
                (
                    "JPEG, late",
                    read(&jpeg).unwrap(),
                    jpeg_with_late(&jpeg, &exif),
                ),
                ("PNG", base.clone(), png_with(&png, &exif, false)),
                (
                    "PNG, after the pixels",
                    base.clone(),
                    png_with(&png, &exif, true),
                ),
                ("PNG, named", base.clone(), png_with(&png, &named, false)),
                (
                    "WebP",
                    read(&webp).unwrap(),
                    webp_with(&webp, &exif, base.dimensions()),
                ),
                (
                    "WebP, named",
                    read(&webp).unwrap(),
                    webp_with(&webp, &named, base.dimensions()),
                ),
                ("TIFF", base.clone(), tiff_of(&base, u16::from(value))),
            ];
            for (kind, flat, file) in files {
                let got = read(&file).unwrap_or_else(|e| panic!("{kind} {value}: {e}"));
                let (width, height) = flat.dimensions();
                let size = if value > 4 {
                    (height, width)
                } else {
                    (width, height)
                };
                assert_eq!(got.dimensions(), size, "{kind} {value}");
                assert_eq!(
                    dimensions(&file, &Limits::default()).unwrap(),
                    size,
                    "{kind} {value}"
                );
                for (x, y, pixel) in got.enumerate_pixels() {
                    let (from_x, from_y) = stored(value, (x, y), (width, height));
                    assert_eq!(
                        pixel,
                        flat.get_pixel(from_x, from_y),
                        "{kind} {value} at {x}, {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn damaged_exif_leaves_the_picture_as_it_lies() {
    let jpeg = fixture("420.jpg");
    let want = read(&jpeg).unwrap();
    let mut far = exif(6, true);
    far[4..8].fill(0xff);
    for exif in [
        &b""[..],
        b"MM",
        b"XX\0*\0\0\0\x08",
        &exif(0, true),
        &exif(9, false),
        &far,
        &exif(6, true)[..14],
    ] {
        assert!(read(&jpeg_with(&jpeg, exif)).unwrap() == want, "{exif:?}");
    }
}

/// Reference implementation of compositing over white, in floating point.
fn over_white_f64(rgba: [u8; 4]) -> [u8; 3] {
    let alpha = f64::from(rgba[3]) / 255.0;
    [0, 1, 2].map(|c| (f64::from(rgba[c]) * alpha + 255.0 * (1.0 - alpha)).round() as u8)
}

#[test]
fn the_rule_for_transparency_is_exact() {
    for alpha in 0..=255 {
        for value in 0..=255 {
            let pixel = [value, 255 - value, 0, alpha];
            assert_eq!(
                alpha::pixel_over_white(pixel),
                over_white_f64(pixel),
                "{pixel:?}"
            );
        }
    }
    assert!(over_white(&[0; 16], 2, 2).is_some());
    assert!(over_white(&[0; 16], 2, 3).is_none());
}

#[test]
fn every_transparent_format_is_shown_over_white() {
    for file in [
        "palette-transparent.png",
        "rgba.png",
        "la.png",
        "rgba16.png",
        "transparent.gif",
        "alpha.webp",
    ] {
        let bytes = fixture(file);
        let want = read(&fixture(&format!("{file}.white.png"))).unwrap();
        assert!(read(&bytes).unwrap() == want, "{file}");
        // The page passes decoded pixels; the same rule applies.
        let rgba = match ::image::load_from_memory(&bytes).unwrap() {
            ::image::DynamicImage::ImageRgba16(p) => {
                let high = p.as_raw().iter().map(|v| (v >> 8) as u8).collect();
                ::image::RgbaImage::from_raw(p.width(), p.height(), high).unwrap()
            }
            other => other.to_rgba8(),
        };
        let (width, height) = rgba.dimensions();
        assert!(
            rgba.pixels().any(|p| p.0[3] < 255),
            "{file} has no transparency"
        );
        assert!(
            over_white(rgba.as_raw(), width, height).unwrap() == want,
            "{file}"
        );
    }
}

#[test]
fn hidden_colours_do_not_show() {
    // Design tools write black under full transparency.
    let rgba = ::image::RgbaImage::from_fn(8, 8, |x, _| {
        ::image::Rgba(if x < 4 { [20, 30, 40, 255] } else { [0; 4] })
    });
    for format in [
        ::image::ImageFormat::Png,
        ::image::ImageFormat::WebP,
        ::image::ImageFormat::Bmp,
    ] {
        let mut file = std::io::Cursor::new(Vec::new());
        rgba.write_to(&mut file, format).unwrap();
        let got = read(file.get_ref()).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert_eq!(got.get_pixel(0, 0).0, [20, 30, 40], "{format:?}");
        assert_eq!(got.get_pixel(7, 7).0, [255; 3], "{format:?}");
    }
}

#[test]
fn a_jpeg_without_its_end_is_read() {
    for file in [
        "444.jpg",
        "420.jpg",
        "422-progressive.jpg",
        "restart.jpg",
        "grey.jpg",
        "cmyk.jpg",
    ] {
        let whole = fixture(file);
        let want = read(&whole).unwrap();
        assert_eq!(whole[whole.len() - 2..], [0xff, 0xd9], "{file}");
        for cut in 1..=2 {
            let got = read(&whole[..whole.len() - cut])
                .unwrap_or_else(|e| panic!("{file} less {cut}: {e}"));
            assert!(got == want, "{file} less {cut}");
        }
        let error = read(&whole[..whole.len() / 2]).unwrap_err();
        assert!(
            matches!(error, ImageError::Truncated { .. }),
            "{file}: {error}"
        );
    }
}

#[test]
fn a_jpeg_that_lost_a_tail_is_read_to_its_last_whole_row_of_blocks() {
    let whole = fixture("444.jpg");
    let want = read(&whole).unwrap();
    // The last row of blocks begins at row 40 of 45.
    let mut lost = 0;
    for cut in 3..40 {
        for file in [
            whole[..whole.len() - cut].to_vec(),
            [&whole[..whole.len() - cut], b"\xff\xd9"].concat(),
        ] {
            let Ok(got) = read(&file) else { continue };
            lost = lost.max(cut);
            assert_eq!(got.dimensions(), want.dimensions());
            for (x, y, pixel) in got.enumerate_pixels().filter(|(_, y, _)| *y < 40) {
                assert_eq!(pixel, want.get_pixel(x, y), "{cut} bytes less, at {x}, {y}");
            }
        }
    }
    assert!(lost >= 8, "only {lost} bytes may be missing");
    assert!(lost < 40, "{lost} bytes are no tail of this file");
}

#[test]
fn a_progressive_jpeg_that_lost_a_scan_is_refused() {
    let whole = fixture("444-progressive.jpg");
    let scans: Vec<usize> = (0..whole.len() - 1)
        .filter(|at| whole[*at..*at + 2] == [0xff, 0xda])
        .collect();
    assert!(scans.len() > 4);
    // Cut at a scan's header, and at the tables before it: every scan so far is complete.
    for scan in &scans[1..] {
        let tables = whole[..*scan]
            .windows(2)
            .rposition(|w| w == [0xff, 0xc4])
            .unwrap();
        for end in [tables, *scan] {
            let error = read(&whole[..end]).unwrap_err();
            assert!(
                matches!(error, ImageError::Truncated { .. }),
                "{end}: {error}"
            );
        }
    }
}

/// A grey progressive JPEG: a DC scan of zeros, then `scans` scans that end every band at once.
fn scan_bomb(side: u16, scans: usize) -> Vec<u8> {
    let side = side.to_be_bytes();
    let mut file = b"\xff\xd8\xff\xdb\0\x43\0".to_vec();
    file.extend_from_slice(&[1; 64]);
    file.extend_from_slice(b"\xff\xc2\0\x0b\x08");
    file.extend_from_slice(&[side[0], side[1], side[0], side[1], 1, 1, 0x11, 0]);
    // Each table has one 1-bit code: size 0 for DC, an end-of-band run of at least 2^14 blocks for AC.
    let table =
        |class: u8, symbol: u8| [&[0xff, 0xc4, 0, 20, class, 1][..], &[0; 15], &[symbol]].concat();
    file.extend_from_slice(&table(0, 0));
    file.extend_from_slice(&table(0x10, 0xe0));
    let blocks = usize::from(u16::from_be_bytes(side)).div_ceil(8).pow(2);
    file.extend_from_slice(b"\xff\xda\0\x08\x01\x01\0\0\0\0");
    file.extend(std::iter::repeat_n(0, blocks.div_ceil(8)));
    // A run is a code and 14 zero bits: 15 bits for 2^14 blocks.
    let runs = blocks.div_ceil(1 << 14);
    for _ in 0..scans {
        file.extend_from_slice(b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0");
        file.extend(std::iter::repeat_n(0, (runs * 15).div_ceil(8)));
    }
    file.extend_from_slice(b"\xff\xd9");
    file
}

#[test]
fn a_jpeg_of_ten_thousand_scans_is_refused_at_once() {
    for (side, scans) in [(8, 10_000), (1000, 10_000), (7900, 2_000), (7900, 400)] {
        let file = scan_bomb(side, scans);
        let start = Instant::now();
        let error = read(&file).unwrap_err();
        let took = start.elapsed();
        assert!(
            matches!(error, ImageError::TooManyScans { .. }),
            "{side}: {error}"
        );
        assert_eq!(error.code(), "image-too-large");
        assert!(
            took < Duration::from_secs(1),
            "{side} x {side}, {scans} scans: {took:?}"
        );
    }
    // As many as encoders write that optimize the number of scans.
    let grey = read(&scan_bomb(64, 60)).unwrap();
    assert!(grey.pixels().all(|p| p.0 == [128; 3]));
}

/// A grey PNG with 1 bit per pixel whose row bytes are all `byte`.
fn bilevel_png(width: u32, height: u32, byte: u8) -> Vec<u8> {
    use std::io::Write;
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, width, height);
    encoder.set_color(::png::ColorType::Grayscale);
    encoder.set_depth(::png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = vec![byte; width.div_ceil(8) as usize];
    for _ in 0..height {
        stream.write_all(&row).unwrap();
    }
    stream.finish().unwrap();
    drop(writer);
    file
}

#[test]
fn a_phones_108_megapixels_are_read_and_a_bomb_is_not() {
    let file = bilevel_png(12_000, 9_000, 0xaa);
    assert!(file.len() < 200_000);
    let picture = read(&file).unwrap();
    assert_eq!(picture.dimensions(), (6_000, 4_500));
    assert!(picture.as_raw().iter().all(|v| *v == 128));
    // A decompression bomb is detected by its header alone.
    for (width, height) in [
        (65_000, 65_000),
        (16_001, 16_000),
        (u32::MAX >> 1, 1),
        (1, u32::MAX >> 1),
    ] {
        let mut bomb = bilevel_png(8, 8, 0);
        bomb[16..20].copy_from_slice(&width.to_be_bytes());
        bomb[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc32(&bomb[12..29]).to_be_bytes();
        bomb[29..33].copy_from_slice(&checksum);
        let error = read(&bomb).unwrap_err();
        assert!(
            matches!(error, ImageError::TooManyPixels { .. }),
            "{width} x {height}: {error}"
        );
        assert_eq!(error.code(), "image-too-large");
    }
}

/// PNG's CRC-32, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// Averages of 2 x 2 pixels; at odd edges, of those present.
fn halved(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width.div_ceil(2), height.div_ceil(2), |x, y| {
        let (mut sums, mut count) = ([0.0; 3], 0.0);
        for (x, y) in [
            (2 * x, 2 * y),
            (2 * x + 1, 2 * y),
            (2 * x, 2 * y + 1),
            (2 * x + 1, 2 * y + 1),
        ] {
            if x < width && y < height {
                let pixel = picture.get_pixel(x, y).0;
                (0..3).for_each(|c| sums[c] += f64::from(pixel[c]));
                count += 1.0;
            }
        }
        ::image::Rgb(sums.map(|sum: f64| (sum / count).round() as u8))
    })
}

#[test]
fn pictures_over_the_limit_are_halved_while_they_are_read() {
    // 61 x 45 pixels, both odd.
    let tight = Limits {
        max_pixels: 61 * 45 / 2,
        ..Limits::default()
    };
    let mut files: Vec<(String, Vec<u8>)> = [
        "source.png",
        "rgba.png",
        "420.jpg",
        "422-progressive.jpg",
        "cmyk.jpg",
    ]
    .iter()
    .map(|name| ((*name).to_owned(), fixture(name)))
    .collect();
    files.push((
        "turned".to_owned(),
        jpeg_with(&fixture("444.jpg"), &exif(6, true)),
    ));
    files.push((
        "interlaced".to_owned(),
        interlaced(&read(&fixture("source.png")).unwrap()),
    ));
    for (name, file) in files {
        let turned = read(&file).unwrap();
        let got = decode(&file, &tight).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Odd sides are downscaled before the picture is rotated.
        let want = if name == "turned" {
            ::image::imageops::rotate90(&halved(&::image::imageops::rotate270(&turned)))
        } else {
            halved(&turned)
        };
        assert!(got == want, "{name}");
        assert_eq!(
            dimensions(&file, &tight).unwrap(),
            got.dimensions(),
            "{name}"
        );
    }
    for name in ["alpha.webp", "still.gif"] {
        assert!(
            matches!(
                decode(&fixture(name), &tight),
                Err(ImageError::TooManyPixels { .. })
            ),
            "{name}"
        );
        assert!(dimensions(&fixture(name), &tight).is_err(), "{name}");
    }
}

/// An interlaced PNG: seven passes, each a smaller picture.
fn interlaced(picture: &RgbImage) -> Vec<u8> {
    let (width, height) = picture.dimensions();
    let mut rows = Vec::new();
    for (left, top, across, down) in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ] {
        // A pass without columns has no rows either.
        for y in (top..height).step_by(down).filter(|_| left < width) {
            rows.push(0);
            rows.extend(
                (left..width)
                    .step_by(across)
                    .flat_map(|x| picture.get_pixel(x, y).0),
            );
        }
    }
    // A zlib stream of stored blocks.
    let mut data = vec![0x78, 1];
    let mut parts = rows.chunks(65_535).peekable();
    while let Some(part) = parts.next() {
        data.push(u8::from(parts.peek().is_none()));
        let length = u16::try_from(part.len()).unwrap();
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(&(!length).to_le_bytes());
        data.extend_from_slice(part);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in &rows {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    data.extend_from_slice(&(b << 16 | a).to_be_bytes());
    let chunk = |name: &[u8], data: &[u8]| {
        let body = [name, data].concat();
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&length[..], &body, &crc32(&body).to_be_bytes()].concat()
    };
    let header = [
        &width.to_be_bytes()[..],
        &height.to_be_bytes(),
        &[8, 2, 0, 0, 1],
    ]
    .concat();
    [
        &b"\x89PNG\r\n\x1a\n"[..],
        &chunk(b"IHDR", &header),
        &chunk(b"IDAT", &data),
        &chunk(b"IEND", b""),
    ]
    .concat()
}

#[test]
fn interlaced_pictures_are_put_together() {
    let source = read(&fixture("source.png")).unwrap();
    assert!(read(&interlaced(&source)).unwrap() == source);
    for (width, height) in [(1, 1), (3, 2), (1, 9), (9, 1)] {
        let small = ::image::imageops::crop_imm(&source, 5, 7, width, height).to_image();
        assert!(
            read(&interlaced(&small)).unwrap() == small,
            "{width} x {height}"
        );
    }
}

#[test]
fn bmp_is_read() {
    let source = read(&fixture("source.png")).unwrap();
    let mut file = std::io::Cursor::new(Vec::new());
    source
        .write_to(&mut file, ::image::ImageFormat::Bmp)
        .unwrap();
    let file = file.into_inner();
    assert!(read(&file).unwrap() == source);
    for length in [20, 40, file.len() / 2] {
        assert!(matches!(
            read(&file[..length]),
            Err(ImageError::Truncated { .. } | ImageError::Unreadable { .. })
        ));
    }
    // Width and height of a decompression bomb.
    let mut bomb = file;
    bomb[18..26].copy_from_slice(&[0, 0, 1, 0, 0, 0, 1, 0]);
    assert!(matches!(
        read(&bomb),
        Err(ImageError::TooManyPixels { .. } | ImageError::Unreadable { .. })
    ));
    // The magic alone does not make a bitmap.
    assert!(matches!(
        read(b"BMW is a maker of cars, motorcycles and engines."),
        Err(ImageError::UnsupportedFormat)
    ));
}

#[test]
fn tiff_is_read_in_its_common_kinds() {
    for name in [
        "rgb.tif",
        "rgb-lzw.tif",
        "rgb-deflate.tif",
        "rgb-packbits.tif",
        "rgb-big-endian.tif",
        "rgb-planar.tif",
        "grey.tif",
        "grey16.tif",
        "bilevel.tif",
        "white-is-zero.tif",
        "bilevel-white-is-zero.tif",
        "palette-4.tif",
        "palette.tif",
        "rgba.tif",
        "la.tif",
        "cmyk.tif",
    ] {
        let want = read(&fixture(&format!("tiff/{name}.rgb.png"))).unwrap();
        let got = read(&fixture(&format!("tiff/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(got == want, "{name}");
    }
}

#[test]
fn damaged_bitmaps_never_panic() {
    let limits = Limits {
        max_pixels: 1 << 16,
        ..Limits::default()
    };
    let source = read(&fixture("source.png")).unwrap();
    let mut bmp = std::io::Cursor::new(Vec::new());
    source
        .write_to(&mut bmp, ::image::ImageFormat::Bmp)
        .unwrap();
    let files = [
        bmp.into_inner(),
        tiff_of(&source, 6),
        fixture("tiff/palette.tif"),
        fixture("tiff/rgb-lzw.tif"),
    ];
    for file in files {
        // Headers lie at the start, or at the end.
        let places = (0..file.len().min(300)).chain(file.len().saturating_sub(300)..file.len());
        for at in places {
            for value in [0, 1, 0x7f, 0xff, file[at] ^ 0x55] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = decode(&damaged, &limits);
                let _ = dimensions(&damaged, &limits);
            }
            let _ = decode(&file[..at], &limits);
        }
    }
}

#[test]
fn a_file_that_is_no_picture_is_named() {
    let ftyp = |brand: &[u8]| [b"\0\0\0\x18ftyp", brand, b"\0\0\0\0mif1miaf"].concat();
    let named: &[(Vec<u8>, &str, &str)] = &[
        (ftyp(b"avif"), "an AVIF picture", "PNG or JPEG"),
        (ftyp(b"heic"), "a HEIC picture", "PNG or JPEG"),
        (
            b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2".to_vec(),
            "an MP4 or QuickTime video",
            "as a video",
        ),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
            "an SVG drawing",
            "as PNG",
        ),
        (
            b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- made by hand -->\n<svg>".to_vec(),
            "an SVG drawing",
            "as PNG",
        ),
        (b"%PDF-1.7".to_vec(), "a PDF document", "as PNG"),
        (b"\xff\x0a\0\0".to_vec(), "a JPEG XL picture", "PNG or JPEG"),
        (
            b"8BPS\0\x01".to_vec(),
            "a Photoshop document",
            "PNG or JPEG",
        ),
        (b"PK\x03\x04".to_vec(), "a ZIP archive", "Unpack"),
        (
            b"\x1a\x45\xdf\xa3".to_vec(),
            "a Matroska or WebM video",
            "as a video",
        ),
        (
            b"P6\n1 1\n255\n".to_vec(),
            "a Netpbm picture",
            "PNG or JPEG",
        ),
        (
            b"\0\0\x01\0\x01\0".to_vec(),
            "a Windows icon",
            "PNG or JPEG",
        ),
        (
            b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>".to_vec(),
            "an XML document",
            "picture",
        ),
        (
            b"data:image/png;base64,iVBORw0KGgo=".to_vec(),
            "a data address (text)",
            "Save",
        ),
    ];
    for (bytes, what, advice) in named {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.code(), "image-format");
        let words = error.to_string();
        assert!(words.contains(what) && words.contains(advice), "{words}");
        assert!(dimensions(bytes, &Limits::default()).is_err());
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    for (bytes, code, words) in [
        (&b""[..], "image-empty", "empty"),
        (pointer, "image-lfs-pointer", "git lfs pull"),
        (
            b"<!DOCTYPE html><html><body>Sign in</body></html>",
            "image-web-page",
            "web page",
        ),
        (
            b"\n  <html><body><svg></svg></body></html>",
            "image-web-page",
            "web page",
        ),
        (b"hello", "image-format", "not a picture in a known format"),
    ] {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
