//! Runs the bodies of fuzz targets on their seeds, as unit tests of the crates that hold them.

use std::path::PathBuf;

/// Runs every seed of a target, and copies with single bytes changed or cut off at about `places` positions.
pub fn mutate(target: &str, places: usize, body: impl Fn(&[u8])) {
    let mut mutated = 0;
    for seed in seeds(target) {
        body(&seed);
        for at in (0..seed.len()).step_by(seed.len() / places + 1) {
            for value in [0, 0x7f, 0xff, seed[at] ^ 1] {
                let mut changed = seed.clone();
                changed[at] = value;
                body(&changed);
            }
            body(&seed[..at]);
            mutated += 1;
        }
    }
    assert!(mutated > 100, "{target} has no seeds");
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let read = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    read.collect()
}
