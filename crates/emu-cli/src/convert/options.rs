//! Options of the pack writer from the command line.

use emu_pack::convert::{Policy, WriteOptions};

use crate::args::ConvertArgs;

pub(super) fn options(args: &ConvertArgs, policy: Policy, resume: Option<String>) -> WriteOptions {
    WriteOptions {
        policy,
        max_shard_bytes: args.max_shard,
        resume,
    }
}
