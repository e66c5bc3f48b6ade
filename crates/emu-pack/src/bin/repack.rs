//! `repack PACK OUT POLICY`: a pack under another policy, without what `emu convert` needs to be built. What
//! `cargo xtask` fills the package `emu-webgpu-mini` with.

use std::process::ExitCode;

use emu_pack::convert::{Policy, WriteOptions, repack};
use emu_pack::{PackError, PackReader};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pack, out, policy] = arguments.as_slice() else {
        eprintln!(
            "error: Three arguments are needed. Give PACK, OUT and POLICY (f16, q8, q4 or a TOML file)."
        );
        return ExitCode::FAILURE;
    };
    match run(pack, out, policy) {
        Ok(bytes) => {
            println!("{out}: {bytes} bytes of weights");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(pack: &str, out: &str, policy: &str) -> Result<u64, PackError> {
    let options = WriteOptions {
        policy: Policy::from_argument(policy)?,
        ..Default::default()
    };
    let manifest = repack(&PackReader::open(pack)?, out, options)?;
    Ok(manifest.shards.iter().map(|shard| shard.bytes).sum())
}
