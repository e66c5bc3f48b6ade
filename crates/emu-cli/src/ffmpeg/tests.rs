use super::*;

const WANTED: usize = 8;

fn sample(ffmpeg: &Ffmpeg, path: &Path) -> Result<Option<VideoFrames>> {
    let bytes = std::fs::read(path).unwrap();
    let container = Container::of(&bytes).expect("a known container");
    ffmpeg.sample(path, container, WANTED, &Limits::default())
}

/// The installed ffmpeg; without one, prints a line that says that the test is skipped.
fn installed() -> Option<Ffmpeg> {
    let found = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !found {
        println!("SKIP unit: no ffmpeg on the PATH");
    }
    found.then(Ffmpeg::default)
}

/// Makes a video of 20 frames of 64 x 48 pixels; frame n has luma 16 + 10 n.
fn make(path: &Path, codec: &[&str]) -> bool {
    let source = "nullsrc=s=64x48:d=1:r=20,format=yuv420p,geq=lum=16+10*N:cb=128:cr=128";
    let made = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-loglevel",
            "error",
            "-f",
            "lavfi",
            "-i",
            source,
        ])
        .args(codec)
        .arg(path)
        .output();
    let made = made.is_ok_and(|output| output.status.success());
    if !made {
        println!("SKIP unit: this ffmpeg has no encoder for {codec:?}");
    }
    made
}

fn check(video: &VideoFrames, what: &str) {
    assert_eq!(video.total, 20, "{what}");
    assert_eq!(video.offsets, sample_offsets(20, WANTED), "{what}");
    assert_eq!(video.frames.len(), WANTED, "{what}");
    for (frame, offset) in video.frames.iter().zip(&video.offsets) {
        assert_eq!(frame.dimensions(), (64, 48), "{what}");
        // Limited range: 219 steps from black to white.
        let want = (10 * offset) as f64 * 255.0 / 219.0;
        for value in frame.get_pixel(32, 24).0 {
            assert!(
                (f64::from(value) - want).abs() < 8.0,
                "{what}, frame {offset}: {value}, not {want}"
            );
        }
    }
}

#[test]
fn every_container_and_codec_gives_the_same_frames() {
    let Some(ffmpeg) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &[&str]); 8] = [
        (
            "vp8.webm",
            &[
                "-c:v",
                "libvpx",
                "-b:v",
                "1M",
                "-auto-alt-ref",
                "1",
                "-lag-in-frames",
                "10",
            ],
        ),
        ("vp9.webm", &["-c:v", "libvpx-vp9", "-b:v", "1M"]),
        (
            "av1.mkv",
            &["-c:v", "libaom-av1", "-cpu-used", "8", "-b:v", "1M"],
        ),
        ("h264.mkv", &["-c:v", "libx264"]),
        ("mpeg4.avi", &["-c:v", "mpeg4", "-q:v", "2"]),
        (
            "h265.mp4",
            &[
                "-c:v",
                "libx265",
                "-x265-params",
                "log-level=none",
                "-tag:v",
                "hvc1",
            ],
        ),
        (
            "ten-bits.mp4",
            &["-c:v", "libx264", "-pix_fmt", "yuv420p10le"],
        ),
        ("stream.ts", &["-c:v", "libx264"]),
    ];
    for (name, codec) in files {
        // A file name that looks like an option or an address must be read as a file name.
        let path = folder.path().join(format!("-i http:{name}"));
        if make(&path, codec) {
            let video = sample(&ffmpeg, &path).unwrap().expect("ffmpeg is there");
            check(&video, name);
            check(&crate::media::video(&path).unwrap(), name);
        }
    }
}

#[test]
fn a_damaged_video_is_an_error_with_ffmpegs_words() {
    let Some(ffmpeg) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.webm");
    std::fs::write(&path, [&b"\x1a\x45\xdf\xa3"[..], &[0x55; 500]].concat()).unwrap();
    let error = sample(&ffmpeg, &path).unwrap_err().to_string();
    assert!(error.contains("ffmpeg cannot read this video"), "{error}");
}

#[test]
fn without_ffmpeg_the_refusal_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.webm");
    std::fs::write(&path, [&b"\x1a\x45\xdf\xa3"[..], &[0; 100]].concat()).unwrap();
    let none = Ffmpeg {
        program: folder.path().join("no-such-program").into(),
        time_limit: TIME_LIMIT,
    };
    assert!(sample(&none, &path).unwrap().is_none());
    let error = crate::media::video_with(&path, &none)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Matroska or WebM") && error.contains("Convert it to MP4"),
        "{error}"
    );
}

/// A fake ffmpeg: a shell script.
#[cfg(unix)]
fn script(folder: &Path, text: &str, time_limit: Duration) -> Ffmpeg {
    use std::os::unix::fs::PermissionsExt;
    let program = folder.join("ffmpeg");
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Ffmpeg {
        program: program.into(),
        time_limit,
    }
}

#[cfg(unix)]
#[test]
fn time_and_output_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let film = folder.path().join("film.avi");
    std::fs::write(&film, b"RIFF\0\0\0\0AVI LIST").unwrap();
    let said = |text: &str, limit: Duration| {
        let program = script(folder.path(), text, limit);
        let start = Instant::now();
        let error = sample(&program, &film).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(20), "{text}: {error}");
        error
    };
    let long = Duration::from_secs(15);
    assert!(said("exec sleep 100", Duration::from_millis(200)).contains("more than 0 seconds"));
    assert!(said("exec yes", long).contains("more than"));
    assert!(said("echo 'film.avi: no such codec' >&2; exit 1", long).contains("no such codec"));
    assert!(said("echo frame=0", long).contains("no frames"));
    // The script reports frames, then writes too few, or invalid output.
    assert!(said("echo frame=20; printf 'P6\\n2 2\\n255\\n123456'", long).contains("fewer frames"));
    assert!(said("echo frame=20", long).contains("fewer frames"));
    // A frame over the size limit.
    let huge =
        "case \"$*\" in *null*) echo frame=20;; *) printf 'P6\\n60000 60000\\n255\\n';; esac";
    assert!(said(huge, long).contains("over the limit"));
}

#[test]
fn the_last_count_of_frames_holds() {
    assert_eq!(
        frames_of(b"frame=1\nfps=2\nframe= 120 \nprogress=end\n"),
        120
    );
    assert_eq!(frames_of(b"nothing"), 0);
}
