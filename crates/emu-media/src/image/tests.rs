//! Compares decoding with Pillow 10.0 and with the goldens of the released code; damaged files of every kind.

use std::path::PathBuf;

use super::*;

fn fixtures(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(folder)
}

fn bytes(folder: &str, name: &str) -> Vec<u8> {
    std::fs::read(fixtures(folder).join(name))
        .unwrap_or_else(|e| panic!("fixture {folder}/{name}: {e}"))
}

fn floats(name: &str) -> Vec<f32> {
    bytes("reference/images", name)
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

fn open(folder: &str, name: &str) -> RgbImage {
    decode(&bytes(folder, name), &Limits::default())
        .unwrap_or_else(|e| panic!("{folder}/{name}: {e}"))
}

/// Maximum difference between two pictures of the same size.
fn difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw()
        .iter()
        .zip(b.as_raw())
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap_or(0)
}

fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

const PHOTOS: [&str; 4] = ["cat.jpg", "tiger.jpg", "panda.png", "cat-crop-133x90.png"];

#[test]
fn photos_match_the_released_preprocessing() {
    for file in PHOTOS {
        let stem = file.split('.').next().unwrap();
        let picture = open("reference/images", file);
        let golden = open("reference/images", &format!("{stem}.resized.png"));
        assert_eq!(
            difference(&resize_bicubic(&picture, 224, 224).unwrap(), &golden),
            0,
            "{file}: resized"
        );
        let every97: Vec<f32> = process_img(&picture, 224)
            .unwrap()
            .into_iter()
            .step_by(97)
            .collect();
        assert!(
            largest(
                &every97,
                &floats(&format!("{stem}.process_img.every97.f32"))
            ) < 1e-6,
            "{file}: process_img"
        );
    }
}

#[test]
fn photos_match_the_clip_extractor() {
    let extractor = ClipFeatureExtractor::default();
    for file in ["cat.jpg", "cat-crop-133x90.png"] {
        let stem = file.split('.').next().unwrap();
        let (values, height, width) = extractor.apply(&open("reference/images", file)).unwrap();
        assert_eq!((values.len(), height, width), (3 * 224 * 224, 224, 224));
        let every97: Vec<f32> = values.into_iter().step_by(97).collect();
        assert!(
            largest(&every97, &floats(&format!("{stem}.clip.every97.f32"))) < 1e-6,
            "{file}"
        );
    }
}

#[test]
fn a_wrong_pixel_is_noticed() {
    let mut picture = open("images", "source.png");
    let original = picture.clone();
    picture.get_pixel_mut(3, 3).0[1] ^= 1;
    assert_eq!(difference(&picture, &original), 1);
    let small = |p| resize_bicubic(p, 224, 224).unwrap();
    assert_ne!(difference(&small(&picture), &small(&original)), 0);
}

#[test]
fn every_kind_of_file_decodes_to_pillows_bytes() {
    // Transparent files are tested in `odd_tests`: they are composited over white, unlike in Pillow.
    let exact = [
        "444.jpg",
        "422.jpg",
        "420.jpg",
        "440.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "optimised.jpg",
        "restart.jpg",
        "tiny.jpg",
        "narrow.jpg",
        "444-progressive.jpg",
        "422-progressive.jpg",
        "420-progressive.jpg",
        "palette.png",
        "bilevel.png",
        "grey.png",
        "rgb16.png",
        "still.gif",
        "lossless.webp",
        "lossy.webp",
    ];
    for file in exact {
        let (got, want) = (
            open("images", file),
            open("images", &format!("{file}.rgb.png")),
        );
        assert_eq!(difference(&got, &want), 0, "{file}");
        assert_eq!(
            dimensions(&bytes("images", file), &Limits::default()).unwrap(),
            want.dimensions(),
            "{file}"
        );
    }
}

#[test]
fn animations_give_their_first_frame() {
    for file in ["animation.gif", "animation.webp"] {
        let sheet = open("images", &format!("{file}.rgb.png"));
        let first = ::image::imageops::crop_imm(&sheet, 0, 0, 32, 24).to_image();
        assert_eq!(difference(&open("images", file), &first), 0, "{file}");
    }
}

#[test]
fn resizing_matches_pillow_in_all_directions() {
    let source = open("images", "source.png");
    for (width, height) in [(61, 45), (1, 1), (7, 90), (224, 224), (13, 45), (61, 3)] {
        let want = open("images", &format!("resize-{width}x{height}.png"));
        let got = resize_bicubic(&source, width, height).unwrap();
        assert_eq!(difference(&got, &want), 0, "{width}x{height}");
    }
}

#[test]
fn a_picture_cut_short_is_an_error_at_every_length() {
    for file in [
        "420.jpg",
        "420-progressive.jpg",
        "restart.jpg",
        "rgba.png",
        "still.gif",
        "lossless.webp",
        "lossy.webp",
    ] {
        let whole = bytes("images", file);
        // the last bytes of a GIF, PNG or WebP may be padding or trailers that carry no pixels
        for length in 0..whole.len() * 9 / 10 {
            let error = decode(&whole[..length], &Limits::default())
                .expect_err(&format!("{file}, {length} bytes"));
            match error {
                ImageError::Truncated { .. } | ImageError::Unreadable { .. } => {}
                ImageError::UnsupportedFormat => assert!(length < 12, "{file}, {length} bytes"),
                ImageError::EmptyFile => assert_eq!(length, 0, "{file}"),
                other => panic!("{file}, {length} bytes: {other}"),
            }
        }
    }
    assert!(matches!(
        decode(&bytes("images", "420.jpg")[..900], &Limits::default()),
        Err(ImageError::Truncated { .. })
    ));
    assert!(matches!(
        decode(&bytes("images", "rgba.png")[..900], &Limits::default()),
        Err(ImageError::Truncated { .. })
    ));
    assert!(matches!(
        decode(&bytes("images", "still.gif")[..900], &Limits::default()),
        Err(ImageError::Truncated { .. })
    ));
}

#[test]
fn damaged_pictures_never_panic() {
    for file in [
        "420.jpg",
        "444-progressive.jpg",
        "restart.jpg",
        "cmyk.jpg",
        "palette.png",
        "still.gif",
        "lossy.webp",
    ] {
        let whole = bytes("images", file);
        let limits = Limits {
            max_pixels: 1 << 20,
            ..Limits::default()
        };
        for at in 0..whole.len() {
            for value in [0, 0xff, whole[at] ^ 0x55] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                // some damage goes unnoticed; decoding must only return
                let _ = decode(&damaged, &limits);
            }
        }
    }
}

#[test]
fn announced_size_is_checked_before_decoding() {
    // a JPEG of a kilobyte that claims 65000 x 65000 pixels
    let mut huge = bytes("images", "420.jpg");
    let frame = huge.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0xfd, 0xe8, 0xfd, 0xe8]);
    let error = decode(&huge, &Limits::default()).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::TooManyPixels {
                width: 65000,
                height: 65000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.code(), "image-too-large");

    // the other formats, with a tiny limit; PNG and JPEG may have four times as many pixels
    for (file, max_pixels) in [
        ("rgba.png", 61 * 45 / 4 - 1),
        ("420.jpg", 61 * 45 / 4 - 1),
        ("still.gif", 61 * 45 - 1),
        ("lossless.webp", 61 * 45 - 1),
    ] {
        let tight = Limits {
            max_pixels,
            ..Limits::default()
        };
        assert!(
            matches!(
                decode(&bytes("images", file), &tight),
                Err(ImageError::TooManyPixels { .. })
            ),
            "{file}"
        );
    }
    let short = Limits {
        max_bytes: 100,
        ..Limits::default()
    };
    assert!(matches!(
        decode(&bytes("images", "rgba.png"), &short),
        Err(ImageError::TooManyBytes { max_bytes: 100, .. })
    ));
}

#[test]
fn other_files_are_refused() {
    for bytes in [
        &b"hello"[..],
        b"BM\x00\x00",
        b"RIFF\x00\x00\x00\x00????",
        &[0; 600],
    ] {
        assert!(matches!(
            decode(bytes, &Limits::default()),
            Err(ImageError::UnsupportedFormat)
        ));
    }
    // a JPEG with arithmetic coding
    let mut arithmetic = bytes("images", "420.jpg");
    let frame = arithmetic
        .windows(2)
        .position(|w| w == [0xff, 0xc0])
        .unwrap();
    arithmetic[frame + 1] = 0xc9;
    assert!(matches!(
        decode(&arithmetic, &Limits::default()),
        Err(ImageError::UnsupportedFeature { .. })
    ));
}

#[test]
fn nothing_has_no_pixels() {
    let mut flat = bytes("images", "420.jpg");
    let frame = flat.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    flat[frame + 5..frame + 7].fill(0);
    assert!(matches!(
        decode(&flat, &Limits::default()),
        Err(ImageError::ZeroSized { height: 0, .. })
    ));
    let mut empty = bytes("images", "still.gif");
    empty[6..10].fill(0);
    assert!(matches!(
        decode(&empty, &Limits::default()),
        Err(ImageError::ZeroSized { .. })
    ));
    assert!(matches!(
        resize_bicubic(&RgbImage::new(0, 3), 4, 4),
        Err(ImageError::ZeroSized { .. })
    ));
    assert!(matches!(
        resize_bicubic(&RgbImage::new(3, 3), 4, 0),
        Err(ImageError::ZeroSized { .. })
    ));
    assert!(matches!(
        process_img(&RgbImage::new(0, 0), 224),
        Err(ImageError::ZeroSized { .. })
    ));
    assert!(matches!(
        encode_png(&RgbImage::new(0, 0)),
        Err(ImageError::ZeroSized { .. })
    ));
    assert!(matches!(
        picture_from_decoded(&[], 0, 0),
        Err(ImageError::ZeroSized { .. })
    ));
    assert!(matches!(
        resize_bicubic(&RgbImage::new(3, 3), 1 << 20, 1 << 20),
        Err(ImageError::TooManyPixels { .. })
    ));
}

#[test]
fn decoded_values_become_bytes_as_in_diffusers() {
    // ties go to even: 2 * (0.5 / 255) - 1 is exactly half a step above 0
    let values = [-1.0, 1.0, 0.0, -3.0, 9.0, 0.5];
    let picture = picture_from_decoded(&values, 2, 1).unwrap();
    assert_eq!(picture.as_raw(), &[0, 128, 255, 255, 0, 191]);
    assert!(matches!(
        picture_from_decoded(&values, 3, 1),
        Err(ImageError::WrongLength {
            expected: 9,
            actual: 6,
            ..
        })
    ));
    assert!(matches!(
        picture_from_decoded(&[0.0, f32::NAN, 0.0], 1, 1),
        Err(ImageError::NotFinite { index: 1 })
    ));
}

#[test]
fn png_round_trip() {
    let picture = open("images", "source.png");
    assert_eq!(
        decode(&encode_png(&picture).unwrap(), &Limits::default()).unwrap(),
        picture
    );
}

#[test]
fn extractor_configuration() {
    let json = br#"{"crop_size": {"height": 56, "width": 48}, "do_center_crop": true, "do_normalize": false,
        "do_rescale": true, "rescale_factor": 0.5, "do_resize": true, "resample": 3, "size": {"shortest_edge": 60}}"#;
    let extractor = ClipFeatureExtractor::from_json_bytes(json).unwrap();
    assert_eq!(extractor.shortest_edge, Some(60));
    assert_eq!(extractor.crop, Some((56, 48)));
    let (values, height, width) = extractor
        .apply(&RgbImage::from_pixel(61, 45, ::image::Rgb([10, 20, 30])))
        .unwrap();
    assert_eq!((values.len(), height, width), (3 * 56 * 48, 56, 48));
    assert_eq!(
        (values[0], values[56 * 48], values[2 * 56 * 48]),
        (5.0, 10.0, 15.0)
    );
    // older files hold plain numbers; missing fields default to CLIP's values
    let old = ClipFeatureExtractor::from_json_bytes(br#"{"size": 224, "crop_size": 224}"#).unwrap();
    assert_eq!(old, ClipFeatureExtractor::default());

    for bad in [
        &b"not json"[..],
        br#"{"resample": 2}"#,
        br#"{"size": 0}"#,
        br#"{"size": {"height": 4, "width": 5}}"#,
        br#"{"crop_size": {"shortest_edge": 5}}"#,
        br#"{"image_std": [0.0, 1.0, 1.0]}"#,
        br#"{"size": 1000000}"#,
    ] {
        assert!(matches!(
            ClipFeatureExtractor::from_json_bytes(bad),
            Err(ImageError::Config { .. })
        ));
    }
}

#[test]
fn a_crop_larger_than_the_picture_pads_with_black() {
    let extractor = ClipFeatureExtractor {
        shortest_edge: None,
        crop: Some((8, 4)),
        rescale: None,
        normalize: None,
    };
    let (values, ..) = extractor
        .apply(&RgbImage::from_pixel(3, 5, ::image::Rgb([7; 3])))
        .unwrap();
    let rows: Vec<bool> = (0..8).map(|y| values[y * 4 + 1] == 7.0).collect();
    // as in transformers, an odd margin is larger at the top
    assert_eq!(rows, [false, false, true, true, true, true, true, false]);
    assert_eq!(values[2 * 4..2 * 4 + 4], [0.0, 7.0, 7.0, 7.0]);
}
