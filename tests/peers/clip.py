"""clip.py OUT: a tiny random CLIP in transformers' layout, and what transformers computes with it: tests/fixtures/clip."""
import sys

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

out = sys.argv[1]
torch.manual_seed(7)
sizes = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4}
vision = {**sizes, "image_size": 32, "patch_size": 8}
text = {**sizes, "vocab_size": 16, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}
model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).eval()
# Norms and biases begin as ones and zeros, which would hide a mix-up.
for name, parameter in model.named_parameters():
    if parameter.ndim == 1:
        parameter.data += 0.2 * torch.randn_like(parameter)
model.save_pretrained(out, safe_serialization=True)
CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(out)
pixels = torch.randn(2, 3, 32, 32)
with torch.no_grad():
    tower = model.vision_model
    seen = tower(pixel_values=pixels)
    tokens = tower.post_layernorm(seen.last_hidden_state)
save_file({"pixels": pixels, "pooled": seen.pooler_output, "tokens": tokens.contiguous()}, f"{out}/golden.safetensors")
