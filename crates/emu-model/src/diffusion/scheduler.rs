//! Samplers that step from noise to clean latents: PNDM, DDIM, DPM-Solver++ (2M).
//!
//! A [`Scheduler`] keeps timesteps and coefficients on the host and updates latents that stay on the device:
//!
//! ```text
//! while let Some(t) = sampler.timestep() { sample = sampler.step(unet(sample, t), sample) }
//! ```
//!
//! Sources: Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds" (2022), as implemented in
//! diffusers 0.15.1 (`skip_prk_steps`); Song et al., "Denoising Diffusion Implicit Models" (2021), eta 0; Lu et al.,
//! "DPM-Solver++" (2022), second-order multistep.

use burn::tensor::Tensor;

use super::schedule::{NoiseSchedule, SchedulerConfig, SchedulerKind, Spacing};
use crate::config::ConfigError;

/// State of one sampling run.
#[derive(Clone, Debug)]
pub struct Scheduler {
    schedule: NoiseSchedule,
    /// Noise level at the start of each step, noisiest first.
    levels: Vec<usize>,
    /// Noise level at the end of each step; `None` means `final_alpha`.
    next: Vec<Option<usize>>,
    /// Timesteps of the UNet evaluations.
    timesteps: Vec<usize>,
    position: usize,
    final_alpha: f64,
    clip: bool,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Pndm {
        /// Last UNet outputs, newest last, at most four.
        outputs: Vec<Tensor<4>>,
        /// Sample before the first step, which is evaluated twice.
        start: Option<Tensor<4>>,
    },
    Ddim,
    DpmSolver {
        /// Clean latents predicted at the previous step, and the step size h of that step.
        before: Option<(Tensor<4>, f64)>,
    },
}

/// With fewer steps than this, the last DPM-Solver++ step is of first order, which is more stable.
const FEW_STEPS: usize = 15;

impl SchedulerConfig {
    /// Creates a sampler with this many steps.
    ///
    /// # Errors
    /// If the configuration is invalid, or there are fewer noise levels than steps.
    pub fn sampler(&self, kind: SchedulerKind, steps: usize) -> Result<Scheduler, ConfigError> {
        let schedule = self.noise_schedule()?;
        let n = self.train_timesteps;
        let wrong = || {
            ConfigError(format!(
                "{steps} steps do not fit {n} noise levels (20 to 50 are usual)"
            ))
        };
        if steps == 0 || steps > n {
            return Err(wrong());
        }
        let default = if kind == SchedulerKind::DpmSolver {
            Spacing::Linspace
        } else {
            Spacing::Leading
        };
        let spacing = self.spacing.unwrap_or(default);
        let ratio = n / steps;
        let levels: Vec<usize> = match spacing {
            Spacing::Leading => (0..steps)
                .rev()
                .map(|i| i * ratio + self.steps_offset)
                .collect(),
            Spacing::Linspace => {
                let gap = (n - 1) as f64 / steps as f64;
                (1..=steps)
                    .rev()
                    .map(|i| libm::rint(i as f64 * gap) as usize)
                    .collect()
            }
            Spacing::Trailing => {
                let gap = n as f64 / steps as f64;
                (1..=steps)
                    .rev()
                    .map(|i| (libm::rint(i as f64 * gap) as usize).saturating_sub(1))
                    .collect()
            }
        };
        if levels.first().is_none_or(|t| *t >= n) {
            return Err(wrong());
        }
        let following = |(i, t): (usize, &usize)| match spacing {
            Spacing::Leading => t.checked_sub(ratio),
            Spacing::Linspace | Spacing::Trailing => levels.get(i + 1).copied(),
        };
        let next = levels.iter().enumerate().map(following).collect();
        let mut timesteps = levels.clone();
        let rule = match kind {
            SchedulerKind::Pndm => {
                // The first step is evaluated twice, the second time at its end point.
                if let Some(second) = levels.get(1) {
                    timesteps.insert(1, *second);
                }
                Rule::Pndm {
                    outputs: vec![],
                    start: None,
                }
            }
            SchedulerKind::Ddim => Rule::Ddim,
            SchedulerKind::DpmSolver => Rule::DpmSolver { before: None },
        };
        let final_alpha = if self.set_alpha_to_one {
            1.0
        } else {
            schedule.alpha(0)
        };
        let clip = self.clip_sample && kind == SchedulerKind::Ddim;
        Ok(Scheduler {
            schedule,
            levels,
            next,
            timesteps,
            position: 0,
            final_alpha,
            clip,
            rule,
        })
    }
}

impl Scheduler {
    /// Timesteps of all UNet evaluations, in order.
    pub fn timesteps(&self) -> &[usize] {
        &self.timesteps
    }

    /// The timestep of the next UNet evaluation; `None` at the end.
    pub fn timestep(&self) -> Option<usize> {
        self.timesteps.get(self.position).copied()
    }

    /// Number of evaluations so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The clean latents that the UNet's output at [`Scheduler::timestep`] implies, for previews.
    pub fn clean(&self, output: Tensor<4>, sample: Tensor<4>) -> Tensor<4> {
        self.schedule
            .clean(output, sample, self.timestep().unwrap_or(0))
    }

    /// Advances the sample by one evaluation. After the end, the sample is returned unchanged.
    ///
    /// # Shapes
    /// - `output`, `sample`: `[B, L, H, W]`, returned in the same shape
    pub fn step(&mut self, output: Tensor<4>, sample: Tensor<4>) -> Tensor<4> {
        let evaluation = self.position;
        // The second evaluation of PNDM belongs to the first step.
        let step = if matches!(self.rule, Rule::Pndm { .. }) {
            evaluation.saturating_sub(1)
        } else {
            evaluation
        };
        let (Some(&from), Some(&to)) = (self.levels.get(step), self.next.get(step)) else {
            return sample;
        };
        if evaluation >= self.timesteps.len() {
            return sample;
        }
        self.position += 1;
        let (a, b) = (
            self.schedule.alpha(from),
            to.map_or(self.final_alpha, |t| self.schedule.alpha(t)),
        );
        let schedule = &self.schedule;
        match &mut self.rule {
            Rule::Pndm { outputs, start } => {
                let (output, sample) = pndm_slope(evaluation, output, sample, outputs, start);
                transfer(schedule.noise(output, sample.clone(), from), sample, a, b)
            }
            Rule::Ddim => {
                let clean = schedule.clean(output.clone(), sample.clone(), from);
                let clean = if self.clip {
                    clean.clamp(-1.0, 1.0)
                } else {
                    clean
                };
                clean.mul_scalar(libm::sqrt(b))
                    + schedule
                        .noise(output, sample, from)
                        .mul_scalar(libm::sqrt(1.0 - b))
            }
            Rule::DpmSolver { before } => {
                let clean = schedule.clean(output, sample.clone(), from);
                let last_of_few = step + 1 == self.levels.len() && self.levels.len() < FEW_STEPS;
                dpm_solver_step(clean, sample, a, b, before, last_of_few)
            }
        }
    }
}

/// Slope and start sample of a PNDM step: Adams-Bashforth of the highest order that the stored outputs allow.
fn pndm_slope(
    evaluation: usize,
    output: Tensor<4>,
    sample: Tensor<4>,
    outputs: &mut Vec<Tensor<4>>,
    start: &mut Option<Tensor<4>>,
) -> (Tensor<4>, Tensor<4>) {
    if evaluation == 1 {
        // Heun's method: the mean of the slopes at both ends of the first step, applied from its start.
        let first = outputs.last().cloned().unwrap_or_else(|| output.clone());
        return (
            (output + first).mul_scalar(0.5),
            start.take().unwrap_or(sample),
        );
    }
    if outputs.len() == 4 {
        outputs.remove(0);
    }
    outputs.push(output);
    if evaluation == 0 {
        *start = Some(sample.clone());
    }
    let weights: &[f64] = match outputs.len() {
        1 => &[1.0],
        2 => &[-1.0 / 2.0, 3.0 / 2.0],
        3 => &[5.0 / 12.0, -16.0 / 12.0, 23.0 / 12.0],
        _ => &[-9.0 / 24.0, 37.0 / 24.0, -59.0 / 24.0, 55.0 / 24.0],
    };
    let terms = outputs
        .iter()
        .zip(weights)
        .map(|(output, weight)| output.clone().mul_scalar(*weight));
    (
        terms
            .reduce(|sum, term| sum + term)
            .unwrap_or_else(|| sample.zeros_like()),
        sample,
    )
}

/// Equation 11 of the PNDM paper: moves the sample from level `a` to level `b` along this noise.
fn transfer(noise: Tensor<4>, sample: Tensor<4>, a: f64, b: f64) -> Tensor<4> {
    let divisor = a * libm::sqrt(1.0 - b) + libm::sqrt(a * (1.0 - a) * b);
    sample.mul_scalar(libm::sqrt(b / a)) - noise.mul_scalar((b - a) / divisor)
}

/// DPM-Solver++ step from level `a` to level `b`, in the half log-SNR `l`: with `h = l(b) - l(a)`,
/// `x' = σ(b)/σ(a) x - α(b) (exp(-h) - 1) D`, where D extrapolates the clean latents to the middle of the step.
fn dpm_solver_step(
    clean: Tensor<4>,
    sample: Tensor<4>,
    a: f64,
    b: f64,
    before: &mut Option<(Tensor<4>, f64)>,
    first_order: bool,
) -> Tensor<4> {
    let log_ratio = |a: f64| 0.5 * (libm::log(a) - libm::log(1.0 - a));
    let h = log_ratio(b) - log_ratio(a);
    let towards = match before.take() {
        Some((earlier, h_before)) if !first_order && h.is_finite() && h_before > 0.0 => {
            let reach = 0.5 * h / h_before;
            clean.clone().mul_scalar(1.0 + reach) - earlier.mul_scalar(reach)
        }
        _ => clean.clone(),
    };
    *before = Some((clean, h));
    let keep = libm::sqrt((1.0 - b) / (1.0 - a));
    sample.mul_scalar(keep) - towards.mul_scalar(libm::sqrt(b) * libm::expm1(-h))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::schedule::Prediction;
    use super::*;

    fn all() -> [SchedulerKind; 3] {
        [
            SchedulerKind::Pndm,
            SchedulerKind::Ddim,
            SchedulerKind::DpmSolver,
        ]
    }

    /// For data of a single point the exact prediction is known everywhere; every sampler must converge to the point.
    #[test]
    fn arrive_at_a_point() {
        let device = Device::flex();
        for kind in all() {
            for prediction in [Prediction::Epsilon, Prediction::VPrediction] {
                for spacing in [
                    None,
                    Some(Spacing::Leading),
                    Some(Spacing::Trailing),
                    Some(Spacing::Linspace),
                ] {
                    let config = SchedulerConfig {
                        prediction,
                        spacing,
                        ..Default::default()
                    };
                    let schedule = config.noise_schedule().unwrap();
                    let mut sampler = config.sampler(kind, 20).unwrap();
                    let point: Tensor<4> = Tensor::from_data([[[[0.7f32, -0.4]]]], &device);
                    let mut x: Tensor<4> = Tensor::from_data([[[[-1.2f32, 0.6]]]], &device);
                    while let Some(t) = sampler.timestep() {
                        let (signal, sigma) = schedule.levels(t);
                        let noise =
                            (x.clone() - point.clone().mul_scalar(signal)).div_scalar(sigma);
                        let output = match prediction {
                            Prediction::Epsilon => noise,
                            Prediction::VPrediction => {
                                noise.mul_scalar(signal) - point.clone().mul_scalar(sigma)
                            }
                        };
                        x = sampler.step(output, x);
                    }
                    let off = (x - point).abs().max().into_scalar::<f32>();
                    assert!(off < 0.1, "{kind:?} {prediction:?} {spacing:?}: {off}");
                }
            }
        }
    }

    /// For normal data of variance s² the exact solution scales x by the ratio of standard deviations; samplers of
    /// higher order come closer to it. Compared after three quarters of the steps, before the log-SNR diverges.
    #[test]
    fn higher_orders_are_closer() {
        let device = Device::flex();
        let config = SchedulerConfig {
            spacing: Some(Spacing::Linspace),
            ..Default::default()
        };
        let schedule = config.noise_schedule().unwrap();
        let total = |t: usize| schedule.alpha(t) * 0.09 + 1.0 - schedule.alpha(t);
        let error = |kind, steps: usize| {
            let mut sampler = config.sampler(kind, steps).unwrap();
            let (first, last) = (sampler.levels[0], sampler.levels[steps * 3 / 4]);
            let mut x: Tensor<4> = Tensor::from_data([[[[1.5f32]]]], &device);
            while sampler.timestep() != Some(last) {
                let t = sampler.timestep().unwrap();
                let output = x
                    .clone()
                    .mul_scalar((1.0 - schedule.alpha(t)).sqrt() / total(t));
                x = sampler.step(output, x);
            }
            (f64::from(x.into_scalar::<f32>()) - 1.5 * (total(last) / total(first)).sqrt()).abs()
        };
        let [ddim, pndm, dpm] = [
            SchedulerKind::Ddim,
            SchedulerKind::Pndm,
            SchedulerKind::DpmSolver,
        ]
        .map(|kind| error(kind, 20));
        assert!(
            pndm < ddim / 3.0 && dpm < ddim / 3.0,
            "ddim {ddim}, pndm {pndm}, dpm++ {dpm}"
        );
        // Doubling the steps halves the error in first order and quarters it in second order.
        assert!(error(SchedulerKind::Ddim, 40) > ddim / 3.0);
        assert!(error(SchedulerKind::DpmSolver, 40) < dpm / 3.0);
    }

    #[test]
    fn zero_terminal_levels_can_be_sampled() {
        let device = Device::flex();
        for kind in all() {
            let mut sampler = SchedulerConfig::emu_mini().sampler(kind, 24).unwrap();
            assert_eq!(sampler.timesteps()[0], 999);
            let mut x: Tensor<4> = Tensor::from_data([[[[1.0f32]]]], &device);
            while sampler.timestep().is_some() {
                x = sampler.step(x.zeros_like(), x);
            }
            assert!(x.into_scalar::<f32>().is_finite(), "{kind:?}");
        }
    }

    #[test]
    fn steps_are_checked() {
        let config = SchedulerConfig::default();
        for kind in all() {
            assert!(config.sampler(kind, 0).is_err() && config.sampler(kind, 1001).is_err());
            assert!(config.sampler(kind, 1).is_ok());
        }
        let error = config
            .sampler(SchedulerKind::Ddim, 1000)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("1000 steps"),
            "the offset leaves the levels: {error}"
        );
        assert_eq!(
            config
                .sampler(SchedulerKind::DpmSolver, 4)
                .unwrap()
                .timesteps(),
            [999, 749, 500, 250]
        );
        assert!("euler".parse::<SchedulerKind>().is_err());
        assert_eq!("dpm++".parse(), Ok(SchedulerKind::DpmSolver));
    }

    #[test]
    fn after_the_end_nothing_moves() {
        let device = Device::flex();
        let mut sampler = SchedulerConfig::default()
            .sampler(SchedulerKind::Ddim, 1)
            .unwrap();
        let x: Tensor<4> = Tensor::from_data([[[[1.0f32]]]], &device);
        let x = sampler.step(x.clone(), x);
        let before = x.clone().into_scalar::<f32>();
        assert_eq!(sampler.step(x.ones_like(), x).into_scalar::<f32>(), before);
    }
}
