//! Compares frame sampling with the released code, and decoding with FFmpeg and Pillow; damaged files of every kind.

use std::path::PathBuf;

use super::*;
use crate::image::{ImageError, RgbImage, decode, encode_png};

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name);
    std::fs::read(path).unwrap_or_else(|e| panic!("fixture {name}: {e}"))
}

fn mp4_file() -> Vec<u8> {
    fixture("video/carphone_distorted.mp4")
}

/// One frame of a contact sheet whose columns are frames.
fn column(sheet: &RgbImage, index: usize, width: u32) -> RgbImage {
    ::image::imageops::crop_imm(sheet, index as u32 * width, 0, width, sheet.height()).to_image()
}

#[test]
fn offsets_follow_the_released_rule() {
    // values from numpy
    assert_eq!(sample_offsets(120, 8), [7, 22, 37, 52, 67, 81, 96, 111]);
    assert_eq!(
        sample_offsets(250, 8),
        [15, 46, 77, 108, 139, 171, 202, 233]
    );
    assert_eq!(sample_offsets(132, 8), [8, 24, 41, 57, 74, 90, 106, 123]);
    // a step of exactly 1.5: ties go to even
    assert_eq!(sample_offsets(13, 8), [0, 2, 3, 4, 6, 8, 9, 10]);
    assert_eq!(sample_offsets(8, 8), [0, 1, 2, 3, 4, 4, 5, 6]);
    assert_eq!(sample_offsets(1, 8), [0; 8]);
    assert!(sample_offsets(0, 8).is_empty());
    assert!(sample_offsets(5, 0).is_empty());
    for total in 1..500 {
        assert!(
            sample_offsets(total, 8).is_sorted() && sample_offsets(total, 8)[7] < total,
            "{total}"
        );
    }
}

#[test]
fn animations_give_pillows_frames() {
    for file in ["images/animation.gif", "images/animation.webp"] {
        let sheet = decode(&fixture(&format!("{file}.rgb.png")), &Limits::default()).unwrap();
        let video = sample_frames(&fixture(file), 8, &Limits::default()).unwrap();
        assert_eq!((video.total, video.frames.len()), (10, 8), "{file}");
        assert_eq!(video.offsets, sample_offsets(10, 8));
        for (frame, offset) in video.frames.iter().zip(&video.offsets) {
            let want = column(&sheet, *offset, 32);
            assert!(*frame == want, "{file}: frame {offset}");
        }
    }
}

#[test]
fn translucent_webp_frames_are_blended() {
    let sheet = decode(
        &fixture("images/translucent.webp.white.png"),
        &Limits::default(),
    )
    .unwrap();
    let video =
        sample_frames(&fixture("images/translucent.webp"), 100, &Limits::default()).unwrap();
    assert_eq!(video.total, 6);
    for (frame, offset) in video.frames.iter().zip(&video.offsets) {
        let want = column(&sheet, *offset, 40);
        assert!(*frame == want, "frame {offset}");
    }
}

#[test]
fn damaged_webp_animations_never_panic() {
    let whole = fixture("images/translucent.webp");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        let _ = sample_frames(&damaged, 8, &Limits::default());
        if at > 30 && at < whole.len() - 8 {
            let error = sample_frames(&whole[..at], 8, &Limits::default()).unwrap_err();
            assert!(
                matches!(
                    error,
                    VideoError::Frame(ImageError::Truncated { .. }) | VideoError::NoFrames
                ),
                "{at} bytes: {error}"
            );
        }
    }
    let tight = Limits {
        max_pixels: 100,
        ..Limits::default()
    };
    for file in ["images/translucent.webp", "images/animation.gif"] {
        let error = sample_frames(&fixture(file), 8, &tight).unwrap_err();
        assert!(
            matches!(error, VideoError::Frame(ImageError::TooManyPixels { .. })),
            "{error}"
        );
    }
}

/// A GIF with frames given as (left, disposal, palette index of a 2 x 2 square); four colours, index 3 transparent.
fn gif_of(frames: &[(u16, gif::DisposalMethod, u8)]) -> Vec<u8> {
    let palette = [255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9];
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 4, 2, &palette).unwrap();
    for (left, dispose, index) in frames {
        let mut frame = gif::Frame::from_indexed_pixels(2, 2, vec![*index; 4], Some(3));
        (frame.left, frame.dispose) = (*left, *dispose);
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

#[test]
fn gif_frames_are_disposed_of() {
    use gif::DisposalMethod::{Background, Keep, Previous};
    let bytes = gif_of(&[
        (0, Keep, 0),
        (2, Previous, 1),
        (2, Background, 2),
        (0, Keep, 3),
        (1, Keep, 1),
    ]);
    let video = sample_frames(&bytes, 200, &Limits::default()).unwrap();
    let mut rows: Vec<[u8; 4]> = Vec::new();
    for frame in &video.frames {
        // one letter per palette colour; anything else (white) is `.`
        let row = std::array::from_fn(|x| match frame.get_pixel(x as u32, 0).0 {
            [255, 0, 0] => b'r',
            [0, 255, 0] => b'g',
            [0, 0, 255] => b'b',
            _ => b'.',
        });
        if rows.last() != Some(&row) {
            rows.push(row);
        }
    }
    // the fourth frame is fully transparent: the green square was restored, the blue one cleared
    assert_eq!(rows.map_strings(), ["rr..", "rrgg", "rrbb", "rr..", "rgg."]);
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for Vec<[u8; 4]> {
    fn map_strings(&self) -> Vec<String> {
        self.iter()
            .map(|row| String::from_utf8_lossy(row).into_owned())
            .collect()
    }
}

#[test]
fn pictures_are_frames_too() {
    let picture =
        |value| encode_png(&RgbImage::from_pixel(3, 2, ::image::Rgb([value; 3]))).unwrap();
    // file 0 is not sampled, so it is not decoded
    let mut files: Vec<Vec<u8>> = (0..17).map(picture).collect();
    files[0] = b"not a picture".to_vec();
    let video = sample_pictures(&files, 8, &Limits::default()).unwrap();
    assert_eq!(video.offsets, [1, 3, 5, 7, 9, 11, 13, 15]);
    assert_eq!(video.frames[7].get_pixel(0, 0).0, [15; 3]);
    let none: [&[u8]; 0] = [];
    assert!(matches!(
        sample_pictures(&none, 8, &Limits::default()),
        Err(VideoError::NoFrames)
    ));
    files[3] = b"not a picture".to_vec();
    let error = sample_pictures(&files, 8, &Limits::default()).unwrap_err();
    assert!(
        matches!(error, VideoError::Frame(ImageError::UnsupportedFormat)),
        "{error}"
    );
    // a picture file is a video of one frame
    assert_eq!(
        sample_frames(&files[5], 8, &Limits::default())
            .unwrap()
            .total,
        1
    );
    assert_eq!(
        sample_frames(&fixture("images/still.gif"), 8, &Limits::default())
            .unwrap()
            .frames
            .len(),
        8
    );
    assert_eq!(
        sample_frames(&fixture("images/lossless.webp"), 8, &Limits::default())
            .unwrap()
            .frames
            .len(),
        8
    );
}

#[test]
fn other_containers_are_named() {
    for (bytes, name) in [
        (&b"\x1a\x45\xdf\xa3...."[..], "Matroska or WebM"),
        (b"RIFF....AVI ", "AVI"),
        (b"hello", "unknown"),
        (b"\0\0\0\x14ftypavif........", "an AVIF picture"),
        (b"%PDF-1.4", "a PDF document"),
        (
            b"\0\0\0\x08styp\0\0\0\x08moof",
            "a segment of an MP4, without the part that comes first",
        ),
    ] {
        let error = sample_frames(bytes, 8, &Limits::default()).unwrap_err();
        assert!(
            matches!(error, VideoError::UnsupportedContainer { container } if container == name),
            "{error}"
        );
    }
    for (bytes, code) in [
        (&b""[..], "image-empty"),
        (b"<html>", "image-web-page"),
        (
            b"version https://git-lfs.github.com/spec/v1",
            "image-lfs-pointer",
        ),
    ] {
        let error = sample_frames(bytes, 8, &Limits::default()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    }
    let limits = Limits {
        max_bytes: 10,
        ..Limits::default()
    };
    assert!(matches!(
        sample_frames(&mp4_file(), 8, &limits),
        Err(VideoError::TooManyBytes { .. })
    ));
}

/// Replaces the first occurrence of a pattern.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes
        .windows(from.len())
        .position(|w| w == from)
        .expect("pattern");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn tracks_without_usable_pictures() {
    let error = |bytes: &[u8]| sample_frames(bytes, 8, &Limits::default()).unwrap_err();
    let file = mp4_file();
    let named = error(&replace(
        &file,
        b"avc1\0\0\0\0\0\0\0\x01",
        b"hvc1\0\0\0\0\0\0\0\x01",
    ));
    assert!(
        matches!(&named, VideoError::UnsupportedCodec { codec } if codec == "H.265"),
        "{named}"
    );
    assert!(matches!(
        error(&replace(&file, b"\0\0\0\0vide", b"\0\0\0\0soun")),
        VideoError::NoFrames
    ));
    assert!(matches!(
        error(&replace(&file, b"avcC", b"none")),
        VideoError::Damaged { .. }
    ));
    // the size table claims zero samples
    let empty = replace(
        &file,
        b"stsz\0\0\0\0\0\0\0\0\0\0\0\x78",
        b"stsz\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    assert!(matches!(error(&empty), VideoError::NoFrames));
    // or 2^32 - 1 of them
    let huge = replace(
        &file,
        b"stsz\0\0\0\0\0\0\0\0\0\0\0\x78",
        b"stsz\0\0\0\0\0\0\0\0\xff\xff\xff\xff",
    );
    assert!(matches!(error(&huge), VideoError::Damaged { .. }));
}

#[test]
fn videos_cut_short_are_errors() {
    let file = mp4_file();
    for length in (8..file.len()).step_by(11) {
        match sample_frames(&file[..length], 8, &Limits::default()).unwrap_err() {
            VideoError::Truncated => {}
            other => panic!("{length} bytes: {other}"),
        }
    }
    let animation = fixture("images/animation.gif");
    for length in (13..animation.len() - 200).step_by(101) {
        // cut between two frames, a GIF is a shorter animation
        if let Ok(video) = sample_frames(&animation[..length], 8, &Limits::default()) {
            assert!(video.total < 10, "{length} bytes");
        }
    }
}

/// Replaces (a, b, c, d) in the matrix of the track or of the movie.
fn turned(file: &[u8], header: &[u8; 4], [a, b, c, d]: [i32; 4]) -> Vec<u8> {
    let mut file = file.to_vec();
    let at = file.windows(4).position(|w| w == header).unwrap() + 4;
    let at = at + if header == b"tkhd" { 40 } else { 36 };
    for (index, value) in [a, b, 0, c, d].into_iter().enumerate() {
        file[at + 4 * index..at + 4 * index + 4].copy_from_slice(&(value << 16).to_be_bytes());
    }
    file
}

#[cfg(feature = "video")]
mod with_decoder {
    use super::*;

    #[test]
    fn videos_are_turned_as_they_say() {
        let file = mp4_file();
        let plain = sample_frames(&file, 1, &Limits::default()).unwrap();
        let plain = &plain.frames[0];
        let (width, height) = plain.dimensions();
        for matrix in [
            [1, 0, 0, 1],
            [0, 1, -1, 0],
            [-1, 0, 0, -1],
            [0, -1, 1, 0],
            [-1, 0, 0, 1],
            [1, 0, 0, -1],
            [0, 1, 1, 0],
            [0, -1, -1, 0],
        ] {
            for header in [b"tkhd", b"mvhd"] {
                let video = sample_frames(&turned(&file, header, matrix), 1, &Limits::default());
                let frame = &video.unwrap().frames[0];
                let [a, b, c, d] = matrix;
                let size = if a == 0 {
                    (height, width)
                } else {
                    (width, height)
                };
                assert_eq!(frame.dimensions(), size, "{matrix:?}");
                for (x, y, pixel) in plain.enumerate_pixels() {
                    // Apply the matrix, then translate so that both coordinates are non-negative.
                    let to = |p: i32, q: i32| {
                        let (x, y) = (x as i32, y as i32);
                        let least = p.min(0) * (width as i32 - 1) + q.min(0) * (height as i32 - 1);
                        u32::try_from(p * x + q * y - least).unwrap()
                    };
                    assert_eq!(frame.get_pixel(to(a, c), to(b, d)), pixel, "{matrix:?}");
                }
            }
        }
        // Two quarter turns, one in the track and one in the movie header.
        let quarter = turned(&file, b"tkhd", [0, 1, -1, 0]);
        let half = sample_frames(
            &turned(&quarter, b"mvhd", [0, 1, -1, 0]),
            1,
            &Limits::default(),
        )
        .unwrap();
        assert!(half.frames[0] == ::image::imageops::rotate180(plain));
        // An angle that is not a multiple of a quarter turn.
        let odd = sample_frames(
            &turned(&file, b"tkhd", [1, 1, -1, 1]),
            1,
            &Limits::default(),
        )
        .unwrap();
        assert!(odd.frames[0] == *plain);
    }

    #[test]
    fn fragmented_files_give_the_same_frames() {
        let want = sample_frames(&mp4_file(), 8, &Limits::default()).unwrap();
        for name in ["fragmented.mp4", "fragmented-offsets.mp4", "hybrid.mp4"] {
            let file = fixture(&format!("video/{name}"));
            let got = sample_frames(&file, 8, &Limits::default())
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(
                (got.total, &got.offsets),
                (want.total, &want.offsets),
                "{name}"
            );
            assert!(got.frames == want.frames, "{name}");
            // As streamed by a recorder, without the index at the end.
            let end = file.windows(4).rposition(|w| w == b"mfra").unwrap() - 4;
            assert_eq!(
                sample_frames(&file[..end], 8, &Limits::default())
                    .unwrap()
                    .total,
                120,
                "{name}"
            );
            for length in (8..end).step_by(61) {
                // Cut between two fragments, it is a shorter video.
                match sample_frames(&file[..length], 8, &Limits::default()) {
                    Ok(video) => assert!(video.total < 120, "{name}, {length} bytes"),
                    Err(VideoError::Truncated | VideoError::NoFrames) => {}
                    Err(other) => panic!("{name}, {length} bytes: {other}"),
                }
            }
        }
    }

    #[test]
    fn damaged_fragments_never_panic() {
        let file = fixture("video/fragmented-offsets.mp4");
        for at in 0..file.len().min(1300) {
            for value in [0, 0x7f, 0xff, file[at] ^ 1] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = mp4::Track::read(&damaged);
            }
        }
    }

    #[test]
    fn frames_equal_those_of_ffmpeg() {
        let sheet = decode(
            &fixture("video/carphone_distorted.frames.png"),
            &Limits::default(),
        )
        .unwrap();
        let video = sample_frames(&mp4_file(), 8, &Limits::default()).unwrap();
        assert_eq!((video.total, video.frames.len()), (120, 8));
        for (index, frame) in video.frames.iter().enumerate() {
            assert_eq!(frame.dimensions(), (176, 144));
            let part = ::image::imageops::crop_imm(frame, 48, 40, 80, 64).to_image();
            assert!(part == column(&sheet, index, 80), "frame {index}");
        }
    }

    #[test]
    fn limits_hold_for_every_frame() {
        let limits = Limits {
            max_pixels: 176 * 144 - 1,
            ..Limits::default()
        };
        let error = sample_frames(&mp4_file(), 8, &limits).unwrap_err();
        assert!(
            matches!(error, VideoError::Frame(ImageError::TooManyPixels { .. })),
            "{error}"
        );
    }

    #[test]
    fn damaged_frames_are_errors_or_frames() {
        let file = mp4_file();
        let data = file.windows(4).position(|w| w == b"mdat").unwrap() + 4;
        for at in (data..data + 4000).step_by(97) {
            let mut damaged = file.clone();
            damaged[at] ^= 0xff;
            if let Ok(video) = sample_frames(&damaged, 8, &Limits::default()) {
                assert_eq!(video.frames.len(), 8);
            }
        }
    }
}

#[cfg(not(feature = "video"))]
#[test]
fn without_a_decoder_that_is_what_the_error_says() {
    assert!(matches!(
        sample_frames(&mp4_file(), 8, &Limits::default()),
        Err(VideoError::NoDecoder)
    ));
}

#[test]
fn profiles_that_are_not_read_are_named() {
    for (file, words) in [
        ("h264-high-10.mp4", ["profile High 10 ", "10 bits"]),
        (
            "h264-high-422.mp4",
            ["profile High 4:2:2 ", "4:2:2 colours"],
        ),
        (
            "h264-high-444.mp4",
            ["profile High 4:4:4 Predictive", "4:4:4 colours"],
        ),
        ("h264-interlaced.mp4", ["profile High ", "interlaced"]),
        (
            "h264-lossless.mp4",
            ["profile High 4:4:4 Predictive", "lossless"],
        ),
    ] {
        let error =
            sample_frames(&fixture(&format!("video/{file}")), 8, &Limits::default()).unwrap_err();
        assert_eq!(error.code(), "video-codec", "{file}: {error}");
        let text = error.to_string();
        assert!(
            words.iter().all(|word| text.contains(word)),
            "{file}: {text}"
        );
        assert!(
            text.contains("ffmpeg -i INPUT -c:v libx264"),
            "{file}: {text}"
        );
    }
    // `avc3` files have their parameter sets in the samples, and none in the description.
    let mut moved = fixture("video/h264-interlaced.mp4");
    let avcc = moved.windows(4).position(|w| w == b"avcC").unwrap();
    assert_eq!(moved[avcc + 9] & 31, 1);
    moved[avcc + 9] = 0xe0;
    let error = sample_frames(&moved, 8, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("interlaced"), "{error}");
}

#[test]
fn tables_of_a_few_bytes_do_not_take_gigabytes() {
    // Over a million samples of one byte each, in a file long enough to hold them.
    let file = mp4_file();
    let huge = replace(
        &file,
        b"stsz\0\0\0\0\0\0\0\0\0\0\0\x78",
        b"stsz\0\0\0\0\0\0\0\x01\0\x20\0\0",
    );
    let long = [huge, vec![0; 8], vec![0; 3 << 20]].concat();
    let error = sample_frames(&long, 8, &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "video-too-large", "{error}");
    // A fragment run with no fields per sample that claims 2^32 - 1 samples.
    let fragmented = fixture("video/fragmented.mp4");
    let at = fragmented.windows(4).position(|w| w == b"trun").unwrap();
    let mut endless = fragmented.clone();
    endless[at + 4..at + 8].copy_from_slice(&[0, 0, 0, 0]);
    endless[at + 8..at + 12].fill(0xff);
    let error = sample_frames(&endless, 8, &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "video-too-large", "{error}");
}

#[test]
fn frame_times_are_in_presentation_order() {
    // 20 frames at 10 frames a second, with B frames
    let file = fixture("formats/webvid/videos/000001_000050/1001.mp4");
    let times = frame_times(&file).expect("an MP4").expect("times");
    assert_eq!(times.len(), 20);
    for (i, time) in times.iter().enumerate() {
        assert!((time - i as f64 / 10.0).abs() < 1e-9, "frame {i}: {time}");
    }
    assert_eq!(
        frame_times(&fixture("video/fragmented.mp4")).expect("an MP4"),
        None
    );
    assert_eq!(frame_times(b"no video").expect("no error"), None);
    let sound = replace(&file, b"vide", b"soun");
    assert!(matches!(frame_times(&sound), Err(VideoError::NoFrames)));
    let timeless = replace(&file, b"stts", b"free");
    assert!(matches!(
        frame_times(&timeless),
        Err(VideoError::Damaged { .. })
    ));
    for length in (8..file.len()).step_by(7) {
        let _ = frame_times(&file[..length]);
    }
}
