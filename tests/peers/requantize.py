"""Writes a GGUF file with its matrices in another format, by llama.cpp: for comparisons with programs that are made for that one.

Usage: python requantize.py MODEL.gguf OUT.gguf FORMAT

FORMAT is one of Q4_0, Q4_1, Q8_0, F16. What was rounded before is rounded again, so the model gets worse; its speed does not care.
"""

import ctypes
import sys

import llama_cpp

FORMATS = {
    name: getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    for name in ("Q4_0", "Q4_1", "Q8_0", "F16")
}


def main() -> None:
    if len(sys.argv) != 4 or sys.argv[3] not in FORMATS:
        sys.exit(__doc__)
    model, out, name = sys.argv[1:]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FORMATS[name]
    params.allow_requantize = True
    # Every matrix in the one format; otherwise llama.cpp chooses a finer one for some.
    params.pure = True
    params.nthread = 2
    failed = llama_cpp.llama_model_quantize(model.encode(), out.encode(), ctypes.byref(params))
    if failed:
        sys.exit(f"llama.cpp could not write {out}.")


if __name__ == "__main__":
    main()
