//! The operations in Burn's graph: what each keeps of its forward pass, and the gradients that its backend computes.

mod activation;
mod attention;
mod conv;
mod norm;
mod weighted;
