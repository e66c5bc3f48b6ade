//! Readers of published checkpoints and the writer of packs. Native only.
