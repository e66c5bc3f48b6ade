//! The official `openai` packages as clients. `tests/clients/README.md` says how to install them.

use std::path::Path;
use std::process::Command;

use emu_serve::Config;

use crate::http::{Running, local, start};

const KEY: &str = "key-for-the-clients";

fn server() -> Running {
    start(Config {
        api_keys: vec![KEY.into()],
        max_body: 4 << 20,
        ..local()
    })
}

fn passes(mut client: Command) {
    let server = server();
    let output = client
        .env("OPENAI_BASE_URL", format!("http://{}/v1", server.address))
        .env("OPENAI_API_KEY", KEY)
        .output()
        .expect("the client starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    println!("{told}");
}

#[test]
fn the_openai_package_for_javascript_is_a_client() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    if !folder.join("node_modules/openai").is_dir() {
        println!("SKIP unit: the npm package openai is not installed in tests/clients");
        return;
    }
    if Command::new("node").arg("--version").output().is_err() {
        println!("SKIP unit: there is no node");
        return;
    }
    let mut node = Command::new("node");
    node.arg(folder.join("openai.mjs"));
    passes(node);
}

#[test]
fn the_openai_package_for_python_is_a_client() {
    let Ok(python) = std::env::var("EMU_OPENAI_PYTHON") else {
        println!("SKIP unit: EMU_OPENAI_PYTHON names no Python with the package openai");
        return;
    };
    let mut client = Command::new(python);
    client.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/openai_client.py"));
    passes(client);
}
