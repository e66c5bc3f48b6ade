//! Autodiff nodes: what each operation saves of its forward pass, and the gradients that its backend computes.

mod activation;
mod attention;
mod conv;
mod norm;
mod weighted;
