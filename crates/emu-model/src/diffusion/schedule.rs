//! Noise schedule: the noise levels that training adds and sampling removes.
//!
//! `a[t]` (`alphas_cumprod`) is the fraction of signal variance left after t + 1 noise steps:
//! `noisy = sqrt(a[t]) x + sqrt(1 - a[t]) noise`, and the velocity is `sqrt(a[t]) noise - sqrt(1 - a[t]) x` (Salimans
//! and Ho, "Progressive Distillation", 2022).

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::foreign::Foreign;
use crate::config::ConfigError;

/// Sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerKind {
    /// Linear multistep of order four; one more evaluation than steps.
    #[default]
    #[serde(rename = "pndm")]
    Pndm,
    /// First order.
    #[serde(rename = "ddim")]
    Ddim,
    /// Second order in the log-SNR; good from about 10 steps.
    #[serde(rename = "dpm++")]
    DpmSolver,
}

impl core::str::FromStr for SchedulerKind {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        match name {
            "pndm" => Ok(Self::Pndm),
            "ddim" => Ok(Self::Ddim),
            "dpm++" => Ok(Self::DpmSolver),
            _ => Err(ConfigError(format!(
                "there is no scheduler {name:?} (pndm, ddim and dpm++ are)"
            ))),
        }
    }
}

/// What the UNet predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    #[default]
    Epsilon,
    /// The velocity, a linear combination of noise and image.
    VPrediction,
}

/// Spacing of the betas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Betas evenly spaced.
    Linear,
    /// Square roots of the betas evenly spaced.
    #[default]
    ScaledLinear,
}

/// Which timesteps a sampler visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of `train_timesteps / steps`, shifted by `steps_offset`.
    Leading,
    /// `steps` timesteps evenly spaced from the last one down, without timestep 0.
    Linspace,
    /// Evenly spaced down from the last timestep, which leading spacing never visits.
    Trailing,
}

/// Noise schedule and sampler configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Default sampler.
    #[serde(default)]
    pub sampler: SchedulerKind,
    /// Number of noise levels.
    pub train_timesteps: usize,
    /// Beta of the first noise level.
    pub beta_start: f64,
    /// Beta of the last noise level.
    pub beta_end: f64,
    /// Spacing of the betas between them.
    #[serde(default)]
    pub beta_schedule: BetaSchedule,
    /// What the UNet predicts.
    #[serde(default)]
    pub prediction: Prediction,
    /// Added to the timesteps of leading spacing.
    #[serde(default)]
    pub steps_offset: usize,
    /// The final step ends at alpha 1 (no noise) instead of the first noise level.
    #[serde(default)]
    pub set_alpha_to_one: bool,
    /// DDIM clips the predicted clean sample to -1..1.
    #[serde(default)]
    pub clip_sample: bool,
    /// Timestep spacing; by default leading for PNDM and DDIM, linspace for DPM-Solver++.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing: Option<Spacing>,
    /// The last level is pure noise: zero terminal SNR (Lin et al., "Common Diffusion Noise Schedules and Sample Steps
    /// are Flawed", 2023).
    #[serde(default)]
    pub zero_terminal_snr: bool,
}

impl Default for SchedulerConfig {
    /// The schedule of Stable Diffusion 1.5.
    fn default() -> Self {
        Self {
            sampler: SchedulerKind::Pndm,
            train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction: Prediction::Epsilon,
            steps_offset: 1,
            set_alpha_to_one: false,
            clip_sample: false,
            spacing: None,
            zero_terminal_snr: false,
        }
    }
}

impl SchedulerConfig {
    /// The schedule of small models trained from scratch: velocity prediction, DDIM from pure noise.
    pub fn emu_mini() -> Self {
        Self {
            sampler: SchedulerKind::Ddim,
            prediction: Prediction::VPrediction,
            set_alpha_to_one: true,
            steps_offset: 0,
            spacing: Some(Spacing::Trailing),
            zero_terminal_snr: true,
            ..Self::default()
        }
    }

    /// Reads the `scheduler_config.json` of diffusers.
    ///
    /// # Errors
    /// Names the first field that has an unexpected type or requests an unsupported feature.
    pub fn from_diffusers(value: &Value) -> Result<Self, ConfigError> {
        let mut from = Foreign::new("scheduler_config.json", value)?;
        let sampler = match from.str("_class_name", "PNDMScheduler")? {
            "PNDMScheduler" => SchedulerKind::Pndm,
            "DDIMScheduler" => SchedulerKind::Ddim,
            "DPMSolverMultistepScheduler" => SchedulerKind::DpmSolver,
            _ => {
                let known = "PNDMScheduler, DDIMScheduler or DPMSolverMultistepScheduler";
                return Err(from.wrong("_class_name", known));
            }
        };
        let beta_schedule = match from.str("beta_schedule", "linear")? {
            "linear" => BetaSchedule::Linear,
            "scaled_linear" => BetaSchedule::ScaledLinear,
            _ => return Err(from.wrong("beta_schedule", "linear or scaled_linear")),
        };
        let prediction = match from.str("prediction_type", "epsilon")? {
            "epsilon" => Prediction::Epsilon,
            "v_prediction" => Prediction::VPrediction,
            _ => return Err(from.wrong("prediction_type", "epsilon or v_prediction")),
        };
        let spacing = match from.get("timestep_spacing").map(Value::as_str) {
            None => None,
            Some(Some("leading")) => Some(Spacing::Leading),
            Some(Some("linspace")) => Some(Spacing::Linspace),
            Some(Some("trailing")) => Some(Spacing::Trailing),
            Some(_) => return Err(from.wrong("timestep_spacing", "leading, linspace or trailing")),
        };
        if sampler == SchedulerKind::Pndm {
            from.only("skip_prk_steps", &["true"])?;
            if from.get("skip_prk_steps").is_none() {
                return Err(from.wrong("skip_prk_steps", "true"));
            }
        }
        from.only("trained_betas", &[])?;
        from.only("thresholding", &["false"])?;
        from.only("clip_sample_range", &["1"])?;
        from.only("algorithm_type", &["\"dpmsolver++\""])?;
        from.only("solver_order", &["2"])?;
        from.only("solver_type", &["\"midpoint\""])?;
        from.only("lower_order_final", &["true"])?;
        from.only("final_sigmas_type", &["\"zero\"", "\"sigma_min\""])?;
        let ends_at_zero = from.str("final_sigmas_type", "sigma_min")? == "zero";
        // Options of thresholding, which is off, and a bound for schedules that are not supported. `skip_prk_steps` is
        // checked above.
        from.ignore(&[
            "dynamic_thresholding_ratio",
            "sample_max_value",
            "lambda_min_clipped",
            "skip_prk_steps",
        ]);
        let defaults_to_one = sampler == SchedulerKind::Ddim || ends_at_zero;
        let config = Self {
            sampler,
            train_timesteps: from.usize("num_train_timesteps", 1000)?,
            beta_start: from.f64("beta_start", 0.0001)?,
            beta_end: from.f64("beta_end", 0.02)?,
            beta_schedule,
            prediction,
            steps_offset: from.usize("steps_offset", 0)?,
            set_alpha_to_one: from.bool("set_alpha_to_one", defaults_to_one)?,
            clip_sample: from.bool("clip_sample", sampler == SchedulerKind::Ddim)?,
            spacing,
            zero_terminal_snr: from.bool("rescale_betas_zero_snr", false)?,
        };
        from.finish()?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the invariants of the arithmetic.
    ///
    /// # Errors
    /// Names the first inconsistent value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |what: String| Err(ConfigError(format!("scheduler: {what}")));
        if !(2..=1 << 20).contains(&self.train_timesteps) {
            return wrong(format!(
                "{} training timesteps, where 2 or more are needed",
                self.train_timesteps
            ));
        }
        let ordered =
            0.0 < self.beta_start && self.beta_start <= self.beta_end && self.beta_end < 1.0;
        if !ordered {
            return wrong(format!(
                "betas {} to {} do not rise between 0 and 1",
                self.beta_start, self.beta_end
            ));
        }
        if self.steps_offset >= self.train_timesteps {
            return wrong(format!(
                "steps_offset {} is beyond the last timestep",
                self.steps_offset
            ));
        }
        if self.zero_terminal_snr && self.prediction == Prediction::Epsilon {
            return wrong(
                "zero_terminal_snr needs v_prediction: pure noise tells nothing about its noise"
                    .into(),
            );
        }
        Ok(())
    }

    /// Computes the noise levels.
    ///
    /// # Errors
    /// As [`SchedulerConfig::validate`].
    pub fn noise_schedule(&self) -> Result<NoiseSchedule, ConfigError> {
        self.validate()?;
        let mut betas = self.betas();
        let mut alphas_cumprod = cumulative(&betas);
        if self.zero_terminal_snr {
            betas = rescaled(&alphas_cumprod);
            alphas_cumprod = cumulative(&betas);
            // Not quite zero, so that first-order steps can divide by it.
            if let Some(last) = alphas_cumprod.last_mut() {
                *last = f32::powi(2.0, -24);
            }
        }
        Ok(NoiseSchedule {
            betas,
            alphas_cumprod,
            prediction: self.prediction,
        })
    }

    fn betas(&self) -> Vec<f32> {
        let n = self.train_timesteps;
        match self.beta_schedule {
            BetaSchedule::Linear => linspace(self.beta_start as f32, self.beta_end as f32, n),
            BetaSchedule::ScaledLinear => {
                let roots = linspace(
                    libm::sqrt(self.beta_start) as f32,
                    libm::sqrt(self.beta_end) as f32,
                    n,
                );
                roots.into_iter().map(|root| root * root).collect()
            }
        }
    }
}

/// `n` values from `start` to `end` in f32, computed from the nearer end as in PyTorch.
fn linspace(start: f32, end: f32, n: usize) -> Vec<f32> {
    let step = (end - start) / (n.max(2) - 1) as f32;
    (0..n)
        .map(|i| {
            if i < n / 2 {
                start + step * i as f32
            } else {
                end - step * (n - 1 - i) as f32
            }
        })
        .collect()
}

/// Cumulative product of `1 - beta`: accumulated in f64, stored in f32, as in PyTorch.
fn cumulative(betas: &[f32]) -> Vec<f32> {
    let step = |product: &mut f64, beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0f64, step).collect()
}

/// Betas of the levels shifted and scaled so that the last one has no signal left and the first one is unchanged (Lin
/// et al., Algorithm 1).
fn rescaled(alphas_cumprod: &[f32]) -> Vec<f32> {
    let roots: Vec<f64> = alphas_cumprod
        .iter()
        .map(|a| libm::sqrt(f64::from(*a)))
        .collect();
    let (first, last) = (
        roots.first().copied().unwrap_or(1.0),
        roots.last().copied().unwrap_or(0.0),
    );
    let scale = first / (first - last);
    let squares: Vec<f64> = roots
        .iter()
        .map(|r| ((r - last) * scale) * ((r - last) * scale))
        .collect();
    let before = core::iter::once(1.0).chain(squares.iter().copied());
    squares
        .iter()
        .zip(before)
        .map(|(now, before)| (1.0 - now / before) as f32)
        .collect()
}

/// Noise levels and the training targets.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// Noise variance added by each step.
    pub betas: Vec<f32>,
    /// Fraction of signal variance left after each step.
    pub alphas_cumprod: Vec<f32>,
    /// What the UNet predicts.
    pub prediction: Prediction,
}

impl NoiseSchedule {
    /// `a[t]`; timesteps beyond the last level use the last level.
    pub fn alpha(&self, timestep: usize) -> f64 {
        self.alphas_cumprod
            .get(timestep)
            .or(self.alphas_cumprod.last())
            .map_or(1.0, |a| f64::from(*a))
    }

    /// Signal-to-noise ratio of a timestep, `a / (1 - a)`.
    pub fn snr(&self, timestep: usize) -> f64 {
        let a = self.alpha(timestep);
        a / (1.0 - a)
    }

    /// Adds noise to clean latents, with one level per row.
    ///
    /// # Shapes
    /// - `clean`, `noise`: `[B, L, H, W]`; `timesteps`: B values
    pub fn add_noise(&self, clean: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let (signal, sigma) = self.roots(timesteps, &clean.device());
        clean * signal + noise * sigma
    }

    /// The velocity target; shapes as in [`NoiseSchedule::add_noise`].
    pub fn velocity(&self, clean: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        let (signal, sigma) = self.roots(timesteps, &clean.device());
        noise * signal - clean * sigma
    }

    /// The training target of the UNet; shapes as in [`NoiseSchedule::add_noise`].
    pub fn target(&self, clean: Tensor<4>, noise: Tensor<4>, timesteps: &[usize]) -> Tensor<4> {
        match self.prediction {
            Prediction::Epsilon => noise,
            Prediction::VPrediction => self.velocity(clean, noise, timesteps),
        }
    }

    /// The clean latents that a prediction implies, with one timestep for all rows.
    pub fn clean(&self, prediction: Tensor<4>, noisy: Tensor<4>, timestep: usize) -> Tensor<4> {
        let (signal, sigma) = self.levels(timestep);
        match self.prediction {
            Prediction::Epsilon => (noisy - prediction.mul_scalar(sigma)).div_scalar(signal),
            Prediction::VPrediction => noisy.mul_scalar(signal) - prediction.mul_scalar(sigma),
        }
    }

    /// The noise that a prediction implies, with one timestep for all rows.
    pub fn noise(&self, prediction: Tensor<4>, noisy: Tensor<4>, timestep: usize) -> Tensor<4> {
        let (signal, sigma) = self.levels(timestep);
        match self.prediction {
            Prediction::Epsilon => prediction,
            Prediction::VPrediction => prediction.mul_scalar(signal) + noisy.mul_scalar(sigma),
        }
    }

    /// `sqrt(a)` and `sqrt(1 - a)` of a timestep.
    pub fn levels(&self, timestep: usize) -> (f64, f64) {
        let a = self.alpha(timestep);
        (libm::sqrt(a), libm::sqrt(1.0 - a))
    }

    /// `sqrt(a)` and `sqrt(1 - a)` of each row, `[B, 1, 1, 1]`.
    fn roots(&self, timesteps: &[usize], device: &Device) -> (Tensor<4>, Tensor<4>) {
        let (signal, sigma): (Vec<f32>, Vec<f32>) = timesteps
            .iter()
            .map(|t| {
                let (signal, sigma) = self.levels(*t);
                (signal as f32, sigma as f32)
            })
            .unzip();
        let column = |values: Vec<f32>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n, 1, 1, 1]), device)
        };
        (column(signal), column(sigma))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn levels_of_stable_diffusion() {
        let schedule = SchedulerConfig::default().noise_schedule().unwrap();
        assert!(
            (schedule.betas[0] - 0.00085).abs() < 1e-9
                && (schedule.betas[999] - 0.012).abs() < 1e-8
        );
        assert!((schedule.alphas_cumprod[999] - 0.004_660_1).abs() < 1e-6);
        assert!(schedule.snr(0) > schedule.snr(999));
    }

    #[test]
    fn rescaled_levels_end_in_noise() {
        let schedule = SchedulerConfig::emu_mini().noise_schedule().unwrap();
        let plain = SchedulerConfig::default().noise_schedule().unwrap();
        assert!(schedule.alpha(999) < 1e-7);
        assert!((schedule.alpha(0) - plain.alpha(0)).abs() < 1e-6);
        assert!(schedule.alphas_cumprod.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn predictions_invert_the_noise() {
        let device = Device::flex();
        for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
            let schedule = SchedulerConfig {
                prediction,
                ..Default::default()
            }
            .noise_schedule()
            .unwrap();
            let clean: Tensor<4> = Tensor::from_data([[[[0.5f32, -1.0]]]], &device);
            let noise: Tensor<4> = Tensor::from_data([[[[0.25f32, 2.0]]]], &device);
            let noisy = schedule.add_noise(clean.clone(), noise.clone(), &[321]);
            let target = schedule.target(clean.clone(), noise.clone(), &[321]);
            let close = |a: Tensor<4>, b: &Tensor<4>| {
                a.sub(b.clone()).abs().max().into_scalar::<f32>() < 1e-5
            };
            assert!(close(
                schedule.clean(target.clone(), noisy.clone(), 321),
                &clean
            ));
            assert!(close(schedule.noise(target, noisy, 321), &noise));
        }
    }

    #[test]
    fn reads_diffusers() {
        let value = json!({
            "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
            "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        });
        assert_eq!(
            SchedulerConfig::from_diffusers(&value).unwrap(),
            SchedulerConfig::default()
        );
        for (value, needle) in [
            (
                json!({"_class_name": "EulerDiscreteScheduler"}),
                "EulerDiscreteScheduler",
            ),
            (
                json!({"_class_name": "PNDMScheduler", "skip_prk_steps": false}),
                "skip_prk_steps",
            ),
            (json!({"_class_name": "PNDMScheduler"}), "skip_prk_steps"),
            (
                json!({"_class_name": "DDIMScheduler", "beta_schedule": "cosine"}),
                "cosine",
            ),
            (
                json!({"_class_name": "DDIMScheduler", "thresholding": true}),
                "thresholding",
            ),
            (
                json!({"_class_name": "DDIMScheduler", "trained_betas": [0.1]}),
                "trained_betas",
            ),
            (
                json!({"_class_name": "DDIMScheduler", "beta_start": 0.5}),
                "do not rise",
            ),
            (
                json!({"_class_name": "DDIMScheduler", "num_train_timesteps": 0}),
                "timesteps",
            ),
            (
                json!({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true}),
                "v_prediction",
            ),
            (
                json!({"_class_name": "DDIMScheduler", "use_karras_sigmas": true}),
                "use_karras_sigmas",
            ),
        ] {
            let error = SchedulerConfig::from_diffusers(&value)
                .unwrap_err()
                .to_string();
            assert!(error.contains(needle), "{value}: {error}");
        }
    }
}
