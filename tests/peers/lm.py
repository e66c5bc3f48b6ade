"""Tokens a second of a language model: llama.cpp, `emu` and (where it is given) candle in turn, in one run, on the same
processors.

Usage: lm.py MODEL.gguf EMU [--candle PROGRAM] [--rounds N] [--threads N] [--tokens N] [--json]

Prefill is the time until the first token is known, over the tokens of the prompt; decoding what follows, over the
tokens after the first. Each figure is the median over the rounds, in which they take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

QUESTION = "Write a very long story. It begins so: " + " ".join(
    f"On day {day} the keeper climbed {day + 40} steps to the lamp, looked over the grey sea and counted the ships."
    for day in range(1, 17)
)


class Emu:
    name = "emu"

    def __init__(self, args):
        self.command = [args.emu, "chat", "--model", args.model, "--device", "cpu", "--json"]
        self.command += ["--max-new-tokens", str(args.tokens), QUESTION]
        self.environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}

    def measure(self):
        lines = subprocess.run(self.command, env=self.environment, check=True, capture_output=True, text=True).stdout
        usage = json.loads(lines.splitlines()[-1])
        first, whole, tokens = usage["first_token_seconds"], usage["seconds"], usage["tokens"]
        return usage["prompt_tokens"], usage["prompt_tokens"] / first, (tokens - 1) / (whole - first)


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, args):
        import llama_cpp

        self.tokens = args.tokens
        self.llama = llama_cpp.Llama(
            args.model, n_ctx=2048, n_threads=args.threads, n_threads_batch=args.threads, verbose=False
        )
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        prompt = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        self.prompt = self.llama.tokenize(prompt.encode(), add_bos=False, special=True)

    def measure(self):
        self.llama.reset()
        start, first, count = time.perf_counter(), None, 0
        for _ in self.llama.generate(self.prompt, temp=0.0, repeat_penalty=1.0, reset=True):
            count += 1
            first = first or time.perf_counter()
            if count == self.tokens:
                break
        end = time.perf_counter()
        return len(self.prompt), len(self.prompt) / (first - start), (count - 1) / (end - first)


class Candle:
    """The program of tests/peers/candle, fed the token ids of llama.cpp."""

    name = "candle"

    def __init__(self, args, prompt):
        self.program = args.candle
        self.request = json.dumps({"model": args.model, "ids": prompt, "tokens": args.tokens})
        self.environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}

    def measure(self):
        run = {"env": self.environment, "check": True, "capture_output": True, "text": True}
        found = json.loads(subprocess.run([self.program], input=self.request, **run).stdout)
        prompt, tokens = found["prompt_tokens"], found["tokens"]
        return prompt, prompt / found["first_seconds"], (tokens - 1) / found["rest_seconds"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("emu")
    parser.add_argument("--candle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=65)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    # What runs from here on, children too, has just these processors.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])

    llama = LlamaCpp(args)
    peers = [llama, Emu(args)]
    if args.candle:
        peers.append(Candle(args, llama.prompt))
    found = {peer.name: [] for peer in peers}
    for _ in range(args.rounds):
        for peer in peers:
            found[peer.name].append(peer.measure())
    for name, rounds in found.items():
        prompt, prefill, decode = (statistics.median(figures) for figures in zip(*rounds))
        if args.json:
            print(json.dumps({"peer": name, "prompt_tokens": prompt, "prefill_tokens_per_s": prefill,
                              "decode_tokens_per_s": decode, "threads": args.threads, "rounds": args.rounds}))
        else:
            print(f"{name:10} prefill {prefill:8.1f} tokens/s of {prompt:.0f}, decoding {decode:7.1f} tokens/s")


if __name__ == "__main__":
    main()
