use serde_json::json;

use super::*;

#[test]
fn squares_become_channels_and_pixels_again() {
    let values: Vec<f32> = (0..2 * 3 * 4 * 6).map(|i| i as f32).collect();
    let data = burn::tensor::TensorData::new(values.clone(), [2, 3, 4, 6]);
    let x: Tensor<4> = Tensor::from_data(data, &Device::flex());
    let y = pixels_to_channels(x, 2);
    assert_eq!(y.dims(), [2, 12, 2, 3]);
    let first: Vec<f32> = y
        .clone()
        .narrow(0, 0, 1)
        .narrow(2, 0, 1)
        .narrow(3, 0, 1)
        .to_data()
        .iter()
        .collect();
    assert_eq!(
        first[..4],
        [0.0, 1.0, 6.0, 7.0],
        "a square's pixels, row by row"
    );
    let back: Vec<f32> = channels_to_pixels(y, 2).to_data().iter().collect();
    assert_eq!(back, values);
}

#[test]
fn small_models_have_no_middle() {
    let config = VaeConfig::emu_mini();
    assert_eq!(config.factor(), 4);
    let vae = config.init(&Device::flex()).unwrap();
    assert!(vae.decoder.mid_block.resnets.is_empty());
    let posterior = vae.encode(Tensor::zeros([1, 3, 16, 24], &Device::flex()));
    assert_eq!(posterior.mean.dims(), [1, 4, 4, 6]);
    assert_eq!(vae.decode(posterior.mean).dims(), [1, 3, 16, 24]);
    assert!(
        VaeConfig {
            mid_attention: true,
            ..config.clone()
        }
        .validate()
        .is_err()
    );
    assert!(VaeConfig { patch: 0, ..config }.validate().is_err());
}

#[test]
fn reads_diffusers() {
    let value = json!({
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
    });
    assert_eq!(
        VaeConfig::from_diffusers(&value).unwrap(),
        VaeConfig::emu_14b()
    );
    assert_eq!(VaeConfig::emu_14b().factor(), 8);
}

#[test]
fn bad_configurations_are_named() {
    for (value, needle) in [
        (json!({"block_out_channels": [32, 32]}), "down_block_types"),
        (
            json!({"down_block_types": ["AttnDownEncoderBlock2D"]}),
            "down_block_types",
        ),
        (json!({"act_fn": "relu"}), "act_fn"),
        (json!({"use_quant_conv": false}), "use_quant_conv"),
        (json!({"scaling_factor": 0}), "scaling_factor"),
        (json!({"norm_num_groups": 48}), "groups"),
        (json!({"latents_mean": [0.1]}), "latents_mean"),
    ] {
        let error = VaeConfig::from_diffusers(&value).unwrap_err().to_string();
        assert!(error.contains(needle), "{value}: {error}");
    }
}
