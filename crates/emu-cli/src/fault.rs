//! What the user sees of a panic in the program or in a library.

use std::any::Any;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};

/// Installs a panic hook that prints the first panic in one line. Later panics in other threads are consequences of the
/// first and stay silent. With RUST_BACKTRACE set, the default hook stays, with all messages and backtraces.
pub fn told_in_a_line() {
    if std::env::var_os("RUST_BACKTRACE").is_some() {
        return;
    }
    panic::set_hook(Box::new(|info| {
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Ordering::Relaxed) {
            let place = info.location().map_or_else(String::new, |at| {
                format!(" at {}:{}", shortened(at.file()), at.line())
            });
            eprintln!("error: {}", sentence(what(info.payload()), &place));
        }
    }));
}

fn sentence(what: &str, place: &str) -> String {
    let lines = what.lines().map(str::trim).filter(|line| !line.is_empty());
    let what = lines.collect::<Vec<_>>().join(" ");
    format!(
        "The program met a fault{place}: {what}. On a GPU, --device cpu may go around it; please report what you ran, with RUST_BACKTRACE=1."
    )
}

/// The message of a panic.
fn what(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it does not say which")
}

/// Path of a library's source file, without the registry folder.
fn shortened(file: &str) -> &str {
    let library = file.split_once("/registry/src/");
    library.map_or(file, |(_, rest)| {
        rest.split_once('/').map_or(rest, |(_, rest)| rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_line_with_its_place() {
        let text = sentence(
            "wgpu error: Device lost\n\nCaused by:\n  gone\n",
            " at a/b.rs:3",
        );
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with(
            "The program met a fault at a/b.rs:3: wgpu error: Device lost Caused by: gone. On"
        ));
        let file = "cargo/registry/src/registry-1/wgpu-30.0.1/src/lib.rs";
        assert_eq!(shortened(file), "wgpu-30.0.1/src/lib.rs");
        assert_eq!(
            shortened("crates/emu-cli/src/main.rs"),
            "crates/emu-cli/src/main.rs"
        );
        assert_eq!(what(&"static"), "static");
        assert_eq!(what(&String::from("owned")), "owned");
        assert_eq!(what(&3), "it does not say which");
    }
}
