//! A pack under another policy, without what `emu convert` needs to be built: what `cargo xtask` fills the package
//! `emu-webgpu-mini` with. The order comes as JSON on stdin, as this is no program for people:
//! `{"pack": FOLDER, "out": FOLDER, "policy": "f16" or a TOML file}`.

use std::process::ExitCode;

use emu_pack::convert::{Policy, WriteOptions, repack};
use emu_pack::{PackError, PackReader};
use serde::Deserialize;

#[derive(Deserialize)]
struct Order {
    pack: String,
    out: String,
    policy: String,
}

fn main() -> ExitCode {
    let order: Order = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(order) => order,
        Err(error) => {
            eprintln!(
                "error: The order on stdin is not understood: {error}. Give pack, out and policy."
            );
            return ExitCode::FAILURE;
        }
    };
    match run(&order) {
        Ok(bytes) => {
            println!("{}: {bytes} bytes of weights", order.out);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(order: &Order) -> Result<u64, PackError> {
    let options = WriteOptions {
        policy: Policy::from_argument(&order.policy)?,
        ..Default::default()
    };
    let manifest = repack(&PackReader::open(&order.pack)?, &order.out, options)?;
    Ok(manifest.shards.iter().map(|shard| shard.bytes).sum())
}
