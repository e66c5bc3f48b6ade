//! Diffusion decoder against the goldens: UNet, VAE, schedulers, denoising, its loss and gradients, the safety checker.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData as BurnData};
use emu_media::image::{ClipFeatureExtractor, RgbImage, picture_from_decoded};
use emu_pack::{KeyMap, Mapped, PackError, TensorSource, check};
use serde_json::Value;

use super::{Bound, Goldens, ParityError, Row, compare, exact};
use crate::diffusion::{
    Decoder, DecoderConfig, Denoise, DrawOptions, SchedulerConfig, SchedulerKind, keys,
};
use crate::probe::Probe;
use crate::safety::{SafetyChecker, SafetyConfig, is_flagged};
use crate::weights;

/// A published network.
#[derive(Clone, Copy)]
pub struct Published<'a> {
    /// Its `config.json`.
    pub config: &'a Value,
    /// Its weights.
    pub weights: &'a dyn TensorSource,
}

/// All inputs of the decoder's goldens.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// The goldens.
    pub goldens: Goldens<'a>,
    /// The UNet.
    pub unet: Published<'a>,
    /// The VAE.
    pub vae: Published<'a>,
    /// The safety checker.
    pub safety: Published<'a>,
    /// PNDM's `scheduler_config.json`.
    pub pndm: &'a Value,
    /// DDIM's.
    pub ddim: &'a Value,
    /// The checker's `preprocessor_config.json`.
    pub extractor: &'a [u8],
}

/// Bound of f32 tables that are computed by the same arithmetic.
const TABLE: Bound = Bound::Absolute(2e-7);

/// Bound of 8-bit image values.
const PICTURE: Bound = Bound::Absolute(1.0);

impl Reference<'_> {
    /// Compares all forward goldens. Needs no gradients.
    ///
    /// # Errors
    /// If weights or a configuration cannot be read. A golden that cannot be compared is a failed row.
    pub fn forward(&self, device: &Device) -> Result<Vec<Row>, ParityError> {
        let (config, decoder) = self.decoder(device)?;
        let mut rows = self.schedules()?;
        rows.extend(self.unet(&decoder, device)?);
        rows.extend(self.vae(&decoder, device)?);
        rows.extend(self.denoising(&decoder, &config, device)?);
        rows.extend(self.pipeline(&decoder, &config, device)?);
        rows.extend(self.safety(device)?);
        Ok(rows)
    }

    /// Names of the goldens that [`Reference::forward`] and [`Reference::training`] do not compare because they are
    /// their inputs.
    pub fn inputs() -> &'static [&'static str] {
        &[
            "unet.context",
            "unet.latents",
            "vae.image",
            "sched.alone.start",
            "sched.alone.eps",
            "sched.noise",
            "train.latents",
            "train.noise",
            "train.timesteps",
            "safety.clip_input",
            "pipe.prompt_embeds",
        ]
    }

    /// The decoder with the published weights.
    ///
    /// # Errors
    /// If weights or a configuration cannot be read or are inconsistent.
    pub fn decoder(&self, device: &Device) -> Result<(DecoderConfig, Decoder), ParityError> {
        let (shape, _) = self.goldens.floats("unet.context")?;
        let tokens = shape.get(1).copied().unwrap_or(0);
        let (unet, vae) = (self.unet, self.vae);
        let config = DecoderConfig::from_diffusers(unet.config, vae.config, self.pndm, tokens)?;
        let mut decoder = config.init(device)?;
        decoder.unet = loaded(decoder.unet, device, unet.weights, &keys::unet()?)?;
        decoder.vae = loaded(decoder.vae, device, vae.weights, &keys::vae()?)?;
        Ok((config, decoder))
    }

    /// Compares noise levels, timesteps, and the samplers alone.
    ///
    /// # Errors
    /// If a configuration or an input cannot be read.
    pub fn schedules(&self) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let device = Device::flex();
        let configs = self.samplers()?;
        let mut rows = vec![];

        let schedule = configs[0].1.noise_schedule()?;
        for (name, values) in [
            ("sched.betas", &schedule.betas),
            ("sched.alphas_cumprod", &schedule.alphas_cumprod),
        ] {
            rows.push(goldens.compare_data(
                name,
                &BurnData::new(values.clone(), [values.len()]),
                TABLE,
            ));
        }

        for (steps, lists) in goldens.cases("timesteps") {
            for (kind, config) in &configs {
                let name = format!("timesteps.{steps}.{}", kind_name(*kind));
                let want: Option<Vec<usize>> = lists.get(kind_name(*kind)).and_then(|list| {
                    list.as_array()?
                        .iter()
                        .map(|t| t.as_u64().map(|t| t as usize))
                        .collect()
                });
                rows.push(match (want, steps.parse::<usize>()) {
                    (Some(want), Ok(n)) => {
                        exact(&name, config.sampler(*kind, n)?.timesteps(), &want)
                    }
                    _ => Row::failed(name, "its list in the JSON cannot be read"),
                });
            }
        }

        let (shape, outputs) = goldens.floats("sched.alone.eps")?;
        let width: usize = shape.iter().skip(1).product();
        let start: Tensor<4> = goldens.tensor("sched.alone.start", &device)?;
        for (kind, config) in &configs {
            let name = format!("sched.alone.{}", kind_name(*kind));
            let (_, want) = goldens.floats(&name)?;
            let evaluations = want.len() / width.max(1);
            let mut sampler = config.sampler(*kind, steps_of(*kind, evaluations))?;
            let mut sample = start.clone();
            let mut got = vec![];
            for output in outputs.chunks(width.max(1)).take(evaluations) {
                let output =
                    Tensor::from_data(BurnData::new(output.to_vec(), start.dims()), &device);
                sample = sampler.step(output, sample);
                got.extend(sample.to_data().iter::<f32>());
            }
            rows.push(compare(&name, &got, &want, Bound::Denoising));
        }
        Ok(rows)
    }

    /// Compares the intermediate tensors of one forward pass, and the outputs at other timesteps.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn unet(&self, decoder: &Decoder, device: &Device) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let latents: Tensor<4> = goldens.tensor("unet.latents", device)?;
        let context: Tensor<3> = goldens.tensor("unet.context", device)?;
        let context = decoder.unet.prepare_context(context);
        let [b, ..] = latents.dims();
        let mut rows = vec![];
        let mut stages = None;
        for name in goldens
            .names()
            .filter(|name| name.starts_with("unet.sample_t"))
        {
            let Some(timesteps) = timesteps_of(name, b) else {
                rows.push(Row::failed(name, "its name holds no timesteps"));
                continue;
            };
            // The goldens' intermediate tensors are those of timestep 1.
            let first = timesteps.iter().all(|t| *t == 1.0);
            let mut probe = if first { Probe::on("") } else { Probe::off() };
            let unet = &decoder.unet;
            let sample = unet.forward_probed(latents.clone(), &timesteps, &context, &mut probe);
            rows.push(goldens.compare(name, &sample, Bound::Forward));
            stages = if first {
                Some(probe.into_seen())
            } else {
                stages
            };
        }
        let stages = stages.unwrap_or_default();
        let inputs = Self::inputs();
        let rest = goldens
            .names()
            .filter(|n| n.starts_with("unet.") && !n.starts_with("unet.sample_t"));
        rows.extend(
            rest.filter(|n| !inputs.contains(n))
                .map(|n| seen(goldens, &stages, n)),
        );
        Ok(rows)
    }

    /// Compares the intermediate tensors of encoder and decoder.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn vae(&self, decoder: &Decoder, device: &Device) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let mut probe = Probe::on("");
        decoder
            .vae
            .encode_probed(goldens.tensor("vae.image", device)?, &mut probe);
        decoder
            .vae
            .decode_probed(goldens.tensor("vae.mean", device)?, &mut probe);
        let stages = probe.into_seen();
        let names = goldens
            .names()
            .filter(|n| n.starts_with("vae.") && *n != "vae.image");
        Ok(names.map(|name| seen(goldens, &stages, name)).collect())
    }

    /// Compares guided sampling with the UNet: predictions and latents of every step.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn denoising(
        &self,
        decoder: &Decoder,
        config: &DecoderConfig,
        device: &Device,
    ) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let (condition, negative) = halves(goldens.tensor("unet.context", device)?);
        let start: Tensor<4> = goldens.tensor("sched.noise", device)?;
        let mut rows = vec![];
        for (kind, scheduler) in self.samplers()? {
            let name = |what: &str| format!("sched.{}.{what}", kind_name(kind));
            let (shape, want_latents) = goldens.floats(&name("latents"))?;
            let (_, want_outputs) = goldens.floats(&name("noise_pred"))?;
            let evaluations = shape.first().copied().unwrap_or(0);
            let config = DecoderConfig {
                scheduler,
                ..config.clone()
            };
            let options = DrawOptions {
                steps: steps_of(kind, evaluations),
                sampler: kind,
                guidance: self.guidance(),
                ..DrawOptions::new(&config, 0)
            };
            let (condition, negative) = (condition.clone(), Some(negative.clone()));
            let start = start.clone();
            let walk =
                Denoise::from_latents(decoder, &config, condition, negative, &options, start);
            let mut walk = match walk {
                Ok(walk) => walk,
                Err(error) => {
                    rows.push(Row::failed(name("latents"), error));
                    continue;
                }
            };
            let (mut outputs, mut latents) = (vec![], vec![]);
            while let Some(output) = walk.evaluate() {
                outputs.extend(output.to_data().iter::<f32>());
                walk.advance(output);
                latents.extend(walk.latents().to_data().iter::<f32>());
            }
            rows.push(compare(
                &name("noise_pred"),
                &outputs,
                &want_outputs,
                Bound::Denoising,
            ));
            rows.push(compare(
                &name("latents"),
                &latents,
                &want_latents,
                Bound::Denoising,
            ));
        }
        Ok(rows)
    }

    /// Compares the whole pipeline: from the embeddings of a prompt to the image and the checker's result.
    ///
    /// # Errors
    /// If an input cannot be read.
    pub fn pipeline(
        &self,
        decoder: &Decoder,
        config: &DecoderConfig,
        device: &Device,
    ) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let (condition, negative) = halves(goldens.tensor("pipe.prompt_embeds", device)?);
        let start: Tensor<4> = goldens.tensor("sched.noise", device)?;
        let options = DrawOptions {
            steps: self
                .pipe("num_inference_steps")
                .and_then(Value::as_u64)
                .unwrap_or(50) as usize,
            guidance: self.guidance(),
            ..DrawOptions::new(config, 0)
        };
        let mut rows = vec![];
        let walk =
            Denoise::from_latents(decoder, config, condition, Some(negative), &options, start);
        let mut walk = match walk {
            Ok(walk) => walk,
            Err(error) => return Ok(vec![Row::failed("pipe.final_latents", error)]),
        };
        while let Some(output) = walk.evaluate() {
            walk.advance(output);
        }
        rows.push(goldens.compare("pipe.final_latents", &walk.latents(), Bound::Denoising));

        // Decoded from the golden's latents, so that the bound applies to the VAE alone.
        let latents: Tensor<4> = goldens.tensor("pipe.final_latents", device)?;
        let decode = |latents: Tensor<4>| {
            decoder
                .vae
                .decode(latents.div_scalar(config.vae.scaling_factor))
        };
        rows.push(goldens.compare("pipe.decoded", &decode(latents), Bound::Forward));

        // The image of our own sampling.
        let decoded = decode(walk.latents());
        let [_, _, h, w] = decoded.dims();
        let values: Vec<f32> = decoded.to_data().iter::<f32>().collect();
        let picture = match picture_from_decoded(&values, w as u32, h as u32) {
            Ok(picture) => picture,
            Err(error) => {
                rows.push(Row::failed("pipe.image_u8", error));
                return Ok(rows);
            }
        };
        let (shape, want) = goldens.ints("pipe.image_u8")?;
        let bytes = |values: &[u8]| values.iter().map(|v| f32::from(*v)).collect::<Vec<_>>();
        let want: Vec<u8> = want.iter().map(|v| *v as u8).collect();
        rows.push(compare(
            "pipe.image_u8",
            &bytes(picture.as_raw()),
            &bytes(&want),
            PICTURE,
        ));
        rows.extend(self.picture_check(shape, want, device)?);
        Ok(rows)
    }

    /// Compares the checker's result on the golden image.
    fn picture_check(
        &self,
        shape: Vec<usize>,
        bytes: Vec<u8>,
        device: &Device,
    ) -> Result<Vec<Row>, ParityError> {
        const NAME: &str = "pipe.safety_clip_input";
        let wrong = || ParityError::Shape {
            tensor: "pipe.image_u8".into(),
            shape: shape.clone(),
        };
        let [h, w, _] = <[usize; 3]>::try_from(shape.as_slice()).map_err(|_| wrong())?;
        let picture = RgbImage::from_raw(w as u32, h as u32, bytes).ok_or_else(wrong)?;
        let clip =
            ClipFeatureExtractor::from_json_bytes(self.extractor).and_then(|e| e.apply(&picture));
        let (values, h, w) = match clip {
            Ok(clip) => clip,
            Err(error) => return Ok(vec![Row::failed(NAME, error)]),
        };
        let input = BurnData::new(values, [1, 3, h as usize, w as usize]);
        let mut rows = vec![self.goldens.compare_data(NAME, &input, Bound::Forward)];
        if let Some(want) = self.pipe("nsfw").and_then(Value::as_bool) {
            let got = flags(
                &self.checker(device)?,
                Tensor::from_data(input, device),
                &mut Probe::off(),
            );
            rows.push(exact("pipe.nsfw", &got, &[want]));
        }
        Ok(rows)
    }

    /// Compares the intermediate tensors of the checker, and which images it flags.
    ///
    /// # Errors
    /// If weights, the configuration or an input cannot be read.
    pub fn safety(&self, device: &Device) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let mut probe = Probe::on("");
        let got = flags(
            &self.checker(device)?,
            goldens.tensor("safety.clip_input", device)?,
            &mut probe,
        );
        let stages = probe.into_seen();
        let names = goldens
            .names()
            .filter(|n| n.starts_with("safety.") && *n != "safety.clip_input");
        let mut rows: Vec<Row> = names.map(|name| seen(goldens, &stages, name)).collect();
        let case = goldens.json.get("safety");
        for key in ["has_nsfw", "blacked"] {
            let list = case
                .and_then(|case| case.get(key))
                .and_then(Value::as_array);
            let want: Option<Vec<bool>> =
                list.and_then(|list| list.iter().map(Value::as_bool).collect());
            if let Some(want) = want {
                rows.push(exact(&format!("safety.{key}"), &got, &want));
            }
        }
        Ok(rows)
    }

    /// Compares the denoising loss and its gradients. Needs a device with automatic differentiation.
    ///
    /// # Errors
    /// If weights, a configuration or an input cannot be read.
    pub fn training(&self, device: &Device) -> Result<Vec<Row>, ParityError> {
        let goldens = &self.goldens;
        let map = keys::unet()?;
        let (config, decoder) = self.decoder(device)?;
        let schedule = config.scheduler.noise_schedule()?;
        let (_, timesteps) = goldens.ints("train.timesteps")?;
        let timesteps: Vec<usize> = timesteps.iter().map(|t| (*t).max(0) as usize).collect();
        let latents: Tensor<4> = goldens.tensor("train.latents", device)?;
        let noise: Tensor<4> = goldens.tensor("train.noise", device)?;
        let context: Tensor<3> = goldens.tensor("unet.context", device)?;

        let noisy = schedule.add_noise(latents.clone(), noise.clone(), &timesteps);
        let floats: Vec<f32> = timesteps.iter().map(|t| *t as f32).collect();
        let predicted = decoder.unet.forward(noisy.clone(), &floats, context);
        let target = schedule.target(latents, noise, &timesteps);
        let loss = (predicted.clone() - target).square().mean();
        let mut rows = vec![
            goldens.compare("train.noisy", &noisy, Bound::Forward),
            goldens.compare("train.pred", &predicted, Bound::Forward),
            goldens.compare("train.loss", &loss, Bound::Forward),
        ];
        let gradients = gradients(&decoder.unet, &loss.backward());
        for name in goldens.names() {
            let Some(key) = name.strip_prefix("train.grad/") else {
                continue;
            };
            let ours = match map.to_model(key) {
                Some(Mapped::Name(ours)) => gradients.get(&ours),
                _ => None,
            };
            rows.push(match ours {
                Some(ours) => goldens.compare_data(name, ours, Bound::Gradient),
                None => Row::failed(name, "no parameter of this name has a gradient"),
            });
        }
        Ok(rows)
    }

    fn checker(&self, device: &Device) -> Result<SafetyChecker, ParityError> {
        let checker = SafetyConfig::from_transformers(self.safety.config)?.init(device)?;
        Ok(loaded(
            checker,
            device,
            self.safety.weights,
            &keys::safety()?,
        )?)
    }

    fn samplers(&self) -> Result<[(SchedulerKind, SchedulerConfig); 2], ParityError> {
        Ok([
            (
                SchedulerKind::Pndm,
                SchedulerConfig::from_diffusers(self.pndm)?,
            ),
            (
                SchedulerKind::Ddim,
                SchedulerConfig::from_diffusers(self.ddim)?,
            ),
        ])
    }

    fn pipe(&self, key: &str) -> Option<&Value> {
        self.goldens.json.get("pipe")?.get(key)
    }

    /// Guidance scale of the pipeline, which the traces were made with.
    fn guidance(&self) -> f64 {
        self.pipe("guidance_scale")
            .and_then(Value::as_f64)
            .unwrap_or(7.5)
    }
}

/// Fills a module from a checkpoint that has exactly its parameters.
///
/// # Errors
/// A missing, unused or misshapen key, or a tensor that cannot be read.
pub fn loaded<M: Module>(
    module: M,
    device: &Device,
    source: &dyn TensorSource,
    map: &KeyMap,
) -> Result<M, PackError> {
    let plan = check(source.tensors(), &weights::parameters(&module), map)?;
    weights::load(module, device, |name| plan.read(source, name))
}

fn kind_name(kind: SchedulerKind) -> &'static str {
    match kind {
        SchedulerKind::Pndm => "pndm",
        SchedulerKind::Ddim => "ddim",
        SchedulerKind::DpmSolver => "dpm++",
    }
}

/// PNDM evaluates its first step twice.
fn steps_of(kind: SchedulerKind, evaluations: usize) -> usize {
    if kind == SchedulerKind::Pndm {
        evaluations.saturating_sub(1)
    } else {
        evaluations
    }
}

/// `unet.sample_t37_912`: one timestep per row, or one for all.
fn timesteps_of(name: &str, rows: usize) -> Option<Vec<f32>> {
    let list = name.strip_prefix("unet.sample_t")?;
    let list: Vec<f32> = list
        .split('_')
        .map(|t| t.parse().ok())
        .collect::<Option<_>>()?;
    (list.len() == 1 || list.len() == rows).then_some(list)
}

/// Compares an intermediate tensor of the probe with its golden. A tensor computed once for all rows is compared with
/// each row.
fn seen(goldens: &Goldens<'_>, stages: &BTreeMap<String, BurnData>, name: &str) -> Row {
    let Some(got) = stages.get(name) else {
        return Row::failed(name, "the network shows no stage of this name");
    };
    let bound = Bound::Forward;
    let rows = goldens
        .tensors
        .info(name)
        .and_then(|info| info.shape.first().copied())
        .unwrap_or(1);
    let dims: Vec<usize> = got.shape().iter().copied().collect();
    if dims.first() == Some(&1) && rows > 1 {
        let one: Vec<f32> = got.iter::<f32>().collect();
        let shape: Vec<usize> = core::iter::once(rows)
            .chain(dims.into_iter().skip(1))
            .collect();
        return goldens.compare_data(name, &BurnData::new(one.repeat(rows), shape), bound);
    }
    goldens.compare_data(name, got, bound)
}

/// Splits a guided batch into conditions and negative conditions.
fn halves(both: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let [rows, ..] = both.dims();
    (
        both.clone().narrow(0, 0, rows / 2),
        both.narrow(0, rows / 2, rows - rows / 2),
    )
}

fn flags(checker: &SafetyChecker, images: Tensor<4>, probe: &mut Probe) -> Vec<bool> {
    let cosines = checker.cosines_probed(images, probe);
    let floats = |data: BurnData| data.iter::<f32>().collect::<Vec<f32>>();
    let thresholds = floats(checker.concept_embeds_weights.val().to_data());
    let special = floats(checker.special_care_embeds_weights.val().to_data());
    let concepts = floats(cosines.concepts.to_data());
    let care = floats(cosines.special_care.to_data());
    let rows = concepts
        .chunks(thresholds.len().max(1))
        .zip(care.chunks(special.len().max(1)));
    rows.map(|(row, care)| is_flagged(row, &thresholds, care, &special))
        .collect()
}

/// Gradients by parameter name.
pub fn gradients<M: Module>(module: &M, gradients: &Gradients) -> BTreeMap<String, BurnData> {
    let mut collect = Collect {
        path: vec![],
        gradients,
        found: BTreeMap::new(),
    };
    module.visit(&mut collect);
    collect.found
}

struct Collect<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, BurnData>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.found.insert(self.path.join("."), gradient.to_data());
        }
    }
}
