//! `emu inspect`

use std::collections::BTreeMap;

use anyhow::Result;
use emu_kernels::device::open;
use emu_model::pack::ModelConfig;
use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::output::{bytes, json_line, print_now, spinner};
use crate::runtime::open_pack;

/// Says what a pack holds, what it needs, and whether this machine can run it.
pub fn run(args: &InspectArgs) -> Result<()> {
    let reader = open_pack(args.pack.as_deref())?;
    let manifest = reader.manifest();
    let config = ModelConfig::from_value(&manifest.config)?;
    if args.verify {
        let waiting = spinner("checking every byte");
        reader.verify()?;
        waiting.finish_and_clear();
    }

    // Stored values widen to f32 when they are loaded.
    let mut parameters: BTreeMap<&str, u64> = BTreeMap::new();
    for tensor in &manifest.tensors {
        let packed = manifest.quantization.get(&tensor.name);
        let values: u64 = tensor.shape.iter().map(|&n| n as u64).product();
        let values = match packed.map(|scheme| scheme.name()) {
            Some("q8") => values * 4,
            Some(_) => values * 8,
            None if tensor.name.ends_with(".scales") || tensor.name.ends_with(".mins") => 0,
            None => values,
        };
        *parameters.entry(tensor.component.as_str()).or_default() += values;
    }
    let loaded = parameters.values().sum::<u64>() * 4;
    let opened = open(args.device.device.into());
    let free = memory_available();
    let mut reasons = vec![];
    if let Err(error) = &opened {
        reasons.push(error.to_string());
    }
    if let Some(free) = free.filter(|&free| free < loaded) {
        reasons.push(format!(
            "It takes {} of memory, and {} are free. Close other programs, or use a smaller pack.",
            bytes(loaded),
            bytes(free)
        ));
    }
    let device = opened.map_or_else(|_| "none".to_owned(), |opened| opened.name);
    let (emu, size) = (&config.emu, |n: usize| json!(n));
    let summary = json!({
        "picture": size(emu.vision.image_size), "embeddings": size(emu.causal.queries),
        "encoder": [emu.vision.layers, emu.vision.width], "causal": [emu.causal.layers, emu.causal.d_model],
        "lm": [emu.lm.layers, emu.lm.width], "vocabulary": size(emu.lm.vocab), "context": size(emu.lm.context),
        "adapter": emu.adapter.map(|a| a.rank), "draws": config.decoder.as_ref().map(|d| d.image_size),
        "checks": config.safety.is_some(),
    });
    let components: BTreeMap<&str, Value> = manifest
        .components
        .iter()
        .map(|(name, part)| {
            let parameters = parameters.get(name.as_str()).copied().unwrap_or(0);
            (
                name.as_str(),
                json!({"bytes": part.bytes, "shards": part.shards.len(), "parameters": parameters}),
            )
        })
        .collect();
    let stored: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
    if args.json {
        return json_line(&json!({
            "name": manifest.name, "license": manifest.license, "attribution": manifest.attribution,
            "format": manifest.format, "model": summary, "components": components, "bytes": stored,
            "loaded_bytes": loaded, "quantized": manifest.quantization.len(), "requires": manifest.requires,
            "verified": args.verify, "device": device, "memory_available": free, "runs": reasons.is_empty(),
            "reasons": reasons,
        }));
    }
    let mut lines = vec![
        format!(
            "{} ({}) {}",
            manifest.name, manifest.license, manifest.attribution
        ),
        format!("model      {summary}"),
    ];
    for (name, part) in &manifest.components {
        let parameters = parameters.get(name.as_str()).copied().unwrap_or(0);
        lines.push(format!(
            "{name:10} {parameters} parameters, {} in {} shards",
            bytes(part.bytes),
            part.shards.len()
        ));
    }
    lines.push(format!(
        "stored     {}, {} tensors quantized",
        bytes(stored),
        manifest.quantization.len()
    ));
    lines.push(format!(
        "needs      {} of memory; largest buffer {}",
        bytes(loaded),
        bytes(manifest.requires.largest_buffer)
    ));
    let free = free.map_or_else(|| "unknown".into(), bytes);
    lines.push(format!("here       {device}; memory free: {free}"));
    match reasons.as_slice() {
        [] => lines.push("runs here  yes".into()),
        reasons => lines.push(format!("runs here  no: {}", reasons.join(" "))),
    }
    print_now(&(lines.join("\n") + "\n"))
}

/// Memory that programs can have, where the system says so.
pub fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
