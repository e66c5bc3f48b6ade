//! Pack operations for `cargo xtask`, without the dependencies of `emu`. The request is JSON on stdin, since this program is
//! not meant for direct use: `{"pack": FOLDER, "out": FOLDER, "policy": "f16" or a TOML file}` rewrites a pack under another
//! policy; `{"pack": FOLDER, "from": GGUF}` restores the shards listed in the pack's `elsewhere.json`.

use std::path::PathBuf;
use std::process::ExitCode;

use emu_pack::convert::{Elsewhere, GgufFile, Policy, WriteOptions, repack};
use emu_pack::{PackError, PackReader};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Order {
    Repack {
        pack: PathBuf,
        out: PathBuf,
        policy: String,
    },
    Complete {
        pack: PathBuf,
        from: PathBuf,
    },
}

// A program's order comes from its standard input.
#[allow(clippy::disallowed_methods)]
fn main() -> ExitCode {
    let order: Order = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(order) => order,
        Err(error) => {
            eprintln!(
                "error: The order on stdin is not understood: {error}. Give pack, out and policy, or pack and from."
            );
            return ExitCode::FAILURE;
        }
    };
    match run(&order) {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(order: &Order) -> Result<String, PackError> {
    let (folder, manifest) = match order {
        Order::Repack { pack, out, policy } => {
            let options = WriteOptions {
                policy: Policy::from_argument(policy)?,
                ..Default::default()
            };
            (out, repack(&PackReader::open(pack)?, out, options)?)
        }
        Order::Complete { pack, from } => {
            Elsewhere::read(pack)?.complete(pack, &GgufFile::open(from)?)?;
            let reader = PackReader::open(pack)?;
            reader.verify()?;
            (pack, reader.manifest().clone())
        }
    };
    let bytes: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    Ok(format!("{}: {bytes} bytes of weights", folder.display()))
}
