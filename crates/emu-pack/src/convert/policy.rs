//! Storage policy: how each tensor is encoded.

use std::{fmt, path::Path, str::FromStr};

use serde::Deserialize;

use super::{
    Loss,
    cast::{cast, fits_f16},
};
use crate::{
    Dtype, PackError, TensorData, TensorInfo,
    keymap::Pattern,
    quant::{Scheme, as_matrix, quantize_rows},
    safetensors::read_small,
};

/// Maximum size of a policy file.
const MAX_POLICY: u64 = 1 << 20;

/// A precision in a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// `none`: every tensor keeps its type.
    Keep,
    /// `f16`: floats of two or more dimensions become F16, others (norms, biases) F32.
    F16,
    /// `q8`, `q4`, `q4_1`: matrices and convolution weights whose rows divide into blocks are quantized; the rest is stored
    /// as with `f16`.
    Quantized(Scheme),
}

impl FromStr for Precision {
    type Err = PackError;

    fn from_str(name: &str) -> Result<Self, PackError> {
        let scheme = [Scheme::Q8, Scheme::Q4, Scheme::Q4_1]
            .into_iter()
            .find(|scheme| scheme.name() == name);
        match (name, scheme) {
            ("none", _) => Ok(Self::Keep),
            ("f16", _) => Ok(Self::F16),
            (_, Some(scheme)) => Ok(Self::Quantized(scheme)),
            _ => Err(PackError::BadPolicy {
                reason: format!("`{name}` is no precision"),
            }),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "none",
            Self::F16 => "f16",
            Self::Quantized(scheme) => scheme.name(),
        })
    }
}

/// Assigns a [`Precision`] to every tensor: that of the first matching rule, or else the default.
///
/// In TOML, with the patterns of [`KeyMap`](crate::KeyMap); a rule with `dims` matches only tensors with that many dimensions:
///
/// ```
/// let policy = emu_pack::convert::Policy::from_toml(r#"
///     default = "q4"
///     [[rules]]
///     match = "lm.embed.{rest..}"
///     precision = "q8"
///     [[rules]]
///     match = "unet.{rest..}"
///     dims = 4
///     precision = "q8"
/// "#)?;
/// # Ok::<(), emu_pack::PackError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Policy {
    default: Precision,
    rules: Vec<PolicyRule>,
}

#[derive(Debug, Clone)]
struct PolicyRule {
    pattern: Pattern,
    dims: Option<usize>,
    precision: Precision,
}

impl Policy {
    /// The same precision for all tensors.
    pub fn uniform(precision: Precision) -> Self {
        Self {
            default: precision,
            rules: vec![],
        }
    }

    /// Parses a policy in TOML.
    pub fn from_toml(text: &str) -> Result<Self, PackError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            default: String,
            #[serde(default)]
            rules: Vec<RuleToml>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RuleToml {
            r#match: String,
            dims: Option<usize>,
            precision: String,
        }
        let file: File = toml::from_str(text).map_err(|e| PackError::BadPolicy {
            reason: e.to_string(),
        })?;
        let rule = |rule: RuleToml| {
            Ok(PolicyRule {
                pattern: Pattern::parse(&rule.r#match)?,
                dims: rule.dims,
                precision: rule.precision.parse()?,
            })
        };
        Ok(Self {
            default: file.default.parse()?,
            rules: file
                .rules
                .into_iter()
                .map(rule)
                .collect::<Result<_, PackError>>()?,
        })
    }

    /// Parses a command-line argument: a precision name, or the path of a `.toml` file.
    pub fn from_argument(argument: &str) -> Result<Self, PackError> {
        if !argument.ends_with(".toml") {
            return argument.parse().map(Self::uniform);
        }
        let text = read_small(Path::new(argument), MAX_POLICY)?;
        let text = String::from_utf8(text).map_err(|_| PackError::BadPolicy {
            reason: "it is not UTF-8".into(),
        })?;
        Self::from_toml(&text)
    }

    /// The precision for a tensor with this name and number of dimensions.
    pub fn precision(&self, name: &str, dims: usize) -> Precision {
        let rule = self.rules.iter().find(|rule| {
            rule.dims.is_none_or(|wanted| wanted == dims) && rule.pattern.capture(name).is_some()
        });
        rule.map_or(self.default, |rule| rule.precision)
    }

    /// The encoding of a tensor. It depends on the shape and, if f16 might overflow, on the values.
    pub fn encoding(&self, tensor: &TensorData) -> Result<Encoding, PackError> {
        Ok(match self.expected(&tensor.info) {
            Encoding::Dense(Dtype::F16) if tensor.info.dtype != Dtype::F16 && !fits_f16(tensor) => {
                Encoding::Dense(Dtype::F32)
            }
            expected => expected,
        })
    }

    /// The encoding of a tensor by its shape, if f16 can hold its values.
    pub fn expected(&self, info: &TensorInfo) -> Encoding {
        let precision = self.precision(&info.name, info.shape.len());
        if precision == Precision::Keep || !info.dtype.is_float() {
            return Encoding::Dense(info.dtype);
        }
        if let (Precision::Quantized(scheme), Some((out, width))) =
            (precision, as_matrix(&info.shape))
            && scheme.stored(&info.name, out, width).is_some()
        {
            return Encoding::Quantized(scheme);
        }
        Encoding::Dense(match info.dtype {
            Dtype::F16 => Dtype::F16,
            _ if info.shape.len() < 2 => Dtype::F32,
            _ => Dtype::F16,
        })
    }
}

/// The encoding of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Dense, with this element type.
    Dense(Dtype),
    /// Quantized: packed words, scales and, for some schemes, minima.
    Quantized(Scheme),
}

impl Encoding {
    /// The tensors that are stored for a tensor.
    pub fn stored(self, info: &TensorInfo) -> Vec<TensorInfo> {
        let dense = |dtype| {
            vec![TensorInfo {
                dtype,
                ..info.clone()
            }]
        };
        match (self, as_matrix(&info.shape)) {
            (Self::Quantized(scheme), Some((out, width))) => scheme
                .stored(&info.name, out, width)
                .unwrap_or_else(|| dense(info.dtype)),
            (Self::Dense(dtype), _) => dense(dtype),
            (Self::Quantized(_), None) => dense(info.dtype),
        }
    }

    /// Name of the scheme or element type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense(dtype) => dtype.name(),
            Self::Quantized(scheme) => scheme.name(),
        }
    }

    /// Encodes some rows of a tensor, given as a tensor of their own. Returns one tensor per entry of
    /// [`stored`](Self::stored), and the loss.
    pub fn encode(
        self,
        rows: TensorInfo,
        bytes: &[u8],
    ) -> Result<(Vec<TensorData>, Loss), PackError> {
        match self {
            Self::Dense(dtype) => {
                let (tensor, loss) = cast(rows, bytes, dtype)?;
                Ok((vec![tensor], loss))
            }
            Self::Quantized(scheme) => {
                quantize_rows(&rows, bytes, scheme)?.ok_or_else(|| PackError::NotQuantizable {
                    tensor: rows.name.clone(),
                    reason: format!("{} does not divide into blocks", rows.describe()),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(policy: &str, shape: &[usize], dtype: Dtype, value: f32) -> Encoding {
        let count: usize = shape.iter().product();
        let tensor = TensorData::from_f32("a.w", shape.into(), &vec![value; count]).unwrap();
        let (tensor, _) = cast(tensor.info, &tensor.bytes, dtype).unwrap();
        Policy::from_argument(policy)
            .unwrap()
            .encoding(&tensor)
            .unwrap()
    }

    #[test]
    fn shapes_and_values_decide() {
        use Encoding::{Dense, Quantized};
        assert_eq!(
            encoding("none", &[2, 32], Dtype::F32, 1.0),
            Dense(Dtype::F32)
        );
        assert_eq!(
            encoding("none", &[2, 32], Dtype::F16, 1.0),
            Dense(Dtype::F16)
        );
        assert_eq!(
            encoding("f16", &[2, 32], Dtype::F32, 1.0),
            Dense(Dtype::F16)
        );
        assert_eq!(
            encoding("f16", &[2, 32], Dtype::F32, 7e4),
            Dense(Dtype::F32),
            "f16 would be infinite"
        );
        assert_eq!(
            encoding("f16", &[2, 32], Dtype::F32, 65519.0),
            Dense(Dtype::F16)
        );
        assert_eq!(encoding("f16", &[64], Dtype::F32, 1.0), Dense(Dtype::F32));
        assert_eq!(
            encoding("q4", &[2, 32], Dtype::F32, 1.0),
            Quantized(Scheme::Q4)
        );
        assert_eq!(encoding("q8", &[2, 48], Dtype::F32, 1.0), Dense(Dtype::F16));
        assert_eq!(
            encoding("q8", &[2, 1, 32], Dtype::F32, 1.0),
            Dense(Dtype::F16)
        );
        assert_eq!(
            encoding("q8", &[2, 32, 3, 3], Dtype::F32, 1.0),
            Quantized(Scheme::Q8),
            "rows of 288"
        );
        assert_eq!(
            encoding("q8", &[2, 3, 3, 3], Dtype::F32, 1.0),
            Dense(Dtype::F16),
            "rows of 27"
        );
        assert_eq!(encoding("q4_1", &[32], Dtype::F32, 1.0), Dense(Dtype::F32));
        let ids = TensorData::new("ids", Dtype::I64, vec![1, 32], vec![0; 256]).unwrap();
        assert_eq!(
            Policy::from_argument("q4").unwrap().encoding(&ids).unwrap(),
            Dense(Dtype::I64)
        );
    }

    #[test]
    fn rules_and_their_errors() {
        let rule = |p: &str, q: &str| format!("[[rules]]\nmatch = \"{p}\"\nprecision = \"{q}\"\n");
        let text = format!(
            "default = \"q4\"\n{}{}",
            rule("lm.head.{x}", "q8"),
            rule("lm.{rest..}", "none")
        );
        let policy = Policy::from_toml(&text).unwrap();
        let q = Precision::Quantized;
        assert_eq!(policy.precision("lm.head.weight", 2), q(Scheme::Q8));
        assert_eq!(policy.precision("lm.norm.weight", 1), Precision::Keep);
        assert_eq!(policy.precision("vision.w", 4), q(Scheme::Q4));

        let text = "default = \"q4\"\n[[rules]]\nmatch = \"{all..}\"\ndims = 4\nprecision = \"q8\"";
        let policy = Policy::from_toml(text).unwrap();
        assert_eq!(policy.precision("unet.conv.weight", 4), q(Scheme::Q8));
        assert_eq!(policy.precision("unet.linear.weight", 2), q(Scheme::Q4));
        for bad in [
            "",
            "default = \"q5\"",
            "default = 4",
            "defualt = \"q4\"",
            &format!("default = \"q4\"\n{}", rule("a", "b")),
        ] {
            assert_eq!(
                Policy::from_toml(bad).unwrap_err().code(),
                "bad-policy",
                "{bad}"
            );
        }
        assert_eq!(
            Policy::from_toml(&format!("default = \"q4\"\n{}", rule("a..b", "q8")))
                .unwrap_err()
                .code(),
            "bad-rule"
        );
        assert_eq!(
            Policy::from_argument("int8").unwrap_err().code(),
            "bad-policy"
        );
        assert_eq!(Policy::from_argument("gone.toml").unwrap_err().code(), "io");
    }
}
