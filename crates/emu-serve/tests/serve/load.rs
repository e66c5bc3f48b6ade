//! Many clients for minutes: nothing is lost, and memory stays as it was.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use emu_serve::Config;

use crate::http::{local, start, until};

/// Resident memory of this process, in KiB.
fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// `EMU_LOAD_SECONDS=600 cargo test -p emu-serve load -- --ignored --nocapture`
#[test]
#[ignore = "takes EMU_LOAD_SECONDS, 600 by default; needs node"]
fn under_load_nothing_is_lost() {
    let seconds = std::env::var("EMU_LOAD_SECONDS").unwrap_or_else(|_| "600".into());
    let mut server = start(Config {
        // 64 clients, and room for fewer: some are refused and come again.
        queue: 48,
        body_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_secs(5),
        api_keys: vec!["key".into()],
        ..local()
    });
    server.pace(1);
    let load = |seconds: &str| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/load.mjs");
        let mut node = Command::new("node");
        node.arg(script)
            .env("LOAD_SERVER", server.address.to_string())
            .env("LOAD_SECONDS", seconds);
        assert!(node.status().expect("node").success());
        let idle = || {
            let health = server.get("/health").json();
            health["waiting"] == 0 && health["running"] == false
        };
        until("the queue is empty", idle);
    };
    // Buffers and threads that stay.
    load("20");
    let before = memory();
    load(&seconds);
    let after = memory();
    println!("memory before and after: {before:?}, {after:?} KiB");
    let authorized = [("Authorization", "Bearer key")];
    println!(
        "{}",
        server.send("GET", "/metrics", &authorized, b"").text()
    );
    if let (Some(before), Some(after)) = (before, after) {
        assert!(
            after < before + 16 * 1024,
            "{before} KiB before, {after} KiB after"
        );
    }
    let end = server.end();
    assert!(end < Duration::from_secs(2), "{end:?}");
}
