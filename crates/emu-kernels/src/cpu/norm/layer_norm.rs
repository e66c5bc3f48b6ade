//! Layer norm of rows: Burn's own.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::ModuleOps;

/// Layer norm over the last axis.
pub fn layer_norm(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, eps: f64) -> FlexTensor {
    <Flex as ModuleOps<Flex>>::layer_norm(x, weight, Some(bias), eps)
}
