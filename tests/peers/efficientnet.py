"""Writes tests/fixtures/efficientnet: a tiny EfficientNet-Lite of random weights in the format of PyTorch before 1.6, a picture, and what
PyTorch computes from it; with the weights of EfficientNet-Lite2 also what those give for a picture made here.

    pip install torch numpy efficientnet-lite-pytorch==0.1.0
    python tests/peers/efficientnet.py tests/fixtures/efficientnet [efficientnet-lite2-9656183e.pth]
"""

import json
import pathlib
import sys

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import BlockArgs, GlobalParams

torch.set_num_threads(1)
torch.manual_seed(5)

# Strides and kernels of both kinds over an odd size, so that each side of the padding occurs; a stage with a skip.
BLOCKS = [
    # repeats, kernel, stride, expand, in, out, squeeze, skip
    BlockArgs(1, 3, [1], 1, 32, 64, None, True),
    BlockArgs(2, 3, [2], 6, 64, 96, None, True),
    BlockArgs(2, 5, [2], 4, 96, 160, None, True),
    BlockArgs(1, 3, [2], 2, 160, 192, None, True),
]
SIZE, CLASSES = 54, 10


def tiny():
    params = GlobalParams(
        width_coefficient=0.25, depth_coefficient=1.0, image_size=SIZE, dropout_rate=0.0, num_classes=CLASSES,
        batch_norm_momentum=0.99, batch_norm_epsilon=1e-3, drop_connect_rate=0.0, depth_divisor=8, min_depth=None,
        relu_fn="relu6", fix_head_stem=False, local_pooling=False, use_se=False,
    )
    net = EfficientNet(BLOCKS, params).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # Statistics and factors that folding must not confuse, large enough for ReLU6 to cut.
            n = module.num_features
            module.running_mean.copy_(torch.randn(n) * 0.3)
            module.running_var.copy_(torch.rand(n) * 2 + 0.1)
            module.weight.data.copy_(torch.rand(n) * 2 + 0.5)
            module.bias.data.copy_(torch.randn(n) * 1.5)
    return net


def picture(size, channels=3):
    """Smooth waves from -1 to 1, computed alike anywhere: sin of a sum of products of small integers."""
    c, y, x = np.meshgrid(np.arange(channels), np.arange(size), np.arange(size), indexing="ij")
    return np.sin(0.11 * x * (c + 1) + 0.07 * y + 0.9 * c).astype(np.float32)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    net = tiny()
    torch.save(net.state_dict(), out / "tiny.pth", _use_new_zipfile_serialization=False)
    x = torch.from_numpy(picture(SIZE))[None]
    with torch.no_grad():
        features, logits = net.extract_features(x)[0], net(x)[0]
    expected = {
        "size": SIZE, "shape": list(features.shape),
        "features": [round(v, 7) for v in features.flatten().tolist()],
        "logits": [round(v, 7) for v in logits.tolist()],
    }
    (out / "tiny.json").write_text(json.dumps(expected) + "\n")
    print(expected["shape"], features.min(), features.max(), (features == 6).float().mean(), logits)
    if len(sys.argv) > 2:
        net = EfficientNet.from_name("efficientnet-lite2").eval()
        net.load_state_dict(torch.load(sys.argv[2], map_location="cpu", weights_only=True))
        x = torch.from_numpy(picture(260))[None]
        with torch.no_grad():
            features, logits = net.extract_features(x)[0], net(x)[0]
        expected = {
            "size": 260, "shape": list(features.shape), "every": 97,
            "features": [round(v, 6) for v in features.flatten()[::97].tolist()],
            "logits": [round(v, 6) for v in logits.tolist()],
        }
        (out / "lite2.json").write_text(json.dumps(expected) + "\n")
        print(expected["shape"], features.mean(), logits.argmax(), logits.max())


if __name__ == "__main__":
    with torch.no_grad():
        main()
