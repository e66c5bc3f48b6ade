"""What llama.cpp makes of texts and prompts, as a fixture for the tests of the language model alone.

Usage: smollm2.py MODEL.gguf OUT.json

llama.cpp multiplies quantized weights with activations that it rounds to 8 bits, which moves logits by up to one or
two. So each answer is computed twice: with the file as it is (`tokens` and `top`), and, fed the same tokens, with a
copy in which the same weights are written out as F32 (`exact`), where nothing is rounded.
"""

import hashlib
import json
import struct
import sys
import tempfile

import llama_cpp
import numpy as np

TOKENS = 64
THREADS = 2

# One question each, so that answers differ in kind: prose, lists, numbers, code, other scripts.
QUESTIONS = [
    "What is the capital of France, and what is it known for?",
    "Write a short story about a lighthouse keeper.",
    "List five kinds of trees and where they grow.",
    "Explain gravity to a child.",
    "Write a Python function that reverses a list.",
    "What is 17 plus 25? Explain each step.",
    "Translate 'good morning' to Spanish, French and German.",
    "Give me a recipe for pancakes.",
    "Who wrote Hamlet, and what is the play about?",
    "Why is the sky blue?",
]

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n",
    " \n \n",
    "\t\tif x:\n\t\t\treturn 1\n",
    "Hello, world!",
    "  leading and trailing  ",
    "a  b   c    d",
    "don't they'll we've I'm he'd you're it's DON'T",
    "CamelCase snake_case kebab-case SCREAMING_CASE",
    "1234567890",
    "In 1984, 3.14159 and 2,718,281 of 100%",
    " 1 12 123 1234",
    "x1y22z333",
    "٣٤٥ ४५६ ²³ ½ Ⅷ",
    "naïve café Zürich Ångström",
    "e\u0301 n\u0303 combining",
    "Привет, как дела?",
    "你好，世界。今天是2024年5月1日。",
    "こんにちは世界 カタカナ",
    "안녕하세요 세계",
    "שלום עולם",
    "مرحبا بالعالم",
    "ภาษาไทย",
    "🦀🚀 🎉",
    "👩‍👩‍👧‍👦 family 🇫🇷 flag 👍🏽",
    "zero\u200bwidth\u00a0nbsp\u3000ideographic\u2003em",
    "\u2028line\u2029paragraph\u0085next",
    "\ufeffbom",
    "control\u0001\u001f\u007f",
    "...!!!???---***###",
    "\"quoted\" 'single' `code` “curly” «guillemets»",
    "https://example.org/path?query=1&other=two#part",
    "mail@example.org",
    "def f(x):\n    return x**2  # square\n\n\nprint(f(3))\n",
    "{\"a\": [1, 2.5e-3, null], \"b\": true}",
    "<html><body class=\"x\">&amp;</body></html>",
    "$x^2 + \\frac{1}{2}$",
    "∑∫√∞≠≤≥ αβγ",
    "a\r\nb\rc",
    "word\n",
    "\nword",
    " \tmixed \t white \n space\t",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "= = == === ====",
    "The quick brown fox jumps over the lazy dog.",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "a<|endoftext|>b",
    " <|im_end|> x <|im_end|>\n\n",
    "<|im_start|><|im_start|>",
    "<|im_star <repo_name>x<file_sep> <reponame>",
    "<jupyter_code>1<jupyter_output>",
]


# Fixed sizes of metadata values by type; 8 is a string, 9 a list.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
F32, Q4_1, Q8_0 = 0, 3, 8


def widened(kind, elements, data):
    """The values of a tensor as F32 bytes."""
    if kind == F32:
        return data[: 4 * elements].tobytes()
    blocks = data[: elements // 32 * (20 if kind == Q4_1 else 34)].reshape(elements // 32, -1)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if kind == Q8_0:
        return (blocks[:, 2:].view(np.int8).astype(np.float32) * scale).tobytes()
    if kind == Q4_1:
        least = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
        q = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
        return (q.astype(np.float32) * scale + least).tobytes()
    sys.exit(f"tensors of the type {kind} cannot be written out as F32; take a file of F32, Q4_1 and Q8_0")


def write_exact(model, out):
    """Copies a GGUF file with every tensor as F32."""
    file = np.fromfile(model, np.uint8)
    at = 0

    def take(form):
        nonlocal at
        size = struct.calcsize("<" + form)
        value = struct.unpack("<" + form, file[at : at + size].tobytes())[0]
        at += size
        return value

    def skip(kind):
        nonlocal at
        if kind == 8:
            length = take("Q")  # moves `at` first
            at += length
        elif kind == 9:
            kind, count = take("I"), take("Q")
            for _ in range(count):
                skip(kind)
        else:
            at += SIZES[kind]

    at = 8
    tensors, values = take("Q"), take("Q")
    for _ in range(values):
        skip(8)
        skip(take("I"))
    head, table = file[:at].tobytes(), []
    for _ in range(tensors):
        start = at
        skip(8)
        sizes = [take("Q") for _ in range(take("I"))]
        name = file[start:at].tobytes()  # the sizes too
        table.append((name, int(np.prod(sizes)), take("I"), take("Q")))
    data = file[-(-at // 32) * 32 :]
    offset, infos = 0, b""
    for name, elements, _, _ in table:
        infos += name + struct.pack("<IQ", F32, offset)
        offset += -(-4 * elements // 32) * 32
    out.write(head + infos)
    out.write(bytes(-len(head + infos) % 32))
    for _, elements, kind, start in table:
        out.write(widened(kind, elements, data[start:]))
        out.write(bytes(-4 * elements % 32))
    out.flush()


def open_model(path):
    return llama_cpp.Llama(
        path,
        n_ctx=256,
        n_threads=THREADS,
        n_threads_batch=THREADS,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )


def top_two(logits):
    """The two most likely tokens and their logits."""
    first, second = (int(i) for i in np.argsort(-logits, kind="stable")[:2])
    return [first, second, round(float(logits[first]), 5), round(float(logits[second]), 5)]


def main(model, out):
    llama = open_model(model)
    with tempfile.NamedTemporaryFile(suffix=".gguf") as copy:
        write_exact(model, copy)
        exact = open_model(copy.name)

    def ids(text, special):
        return llama.tokenize(text.encode(), add_bos=False, special=special)

    texts = [{"text": text, "plain": ids(text, False), "marked": ids(text, True)} for text in TEXTS]

    answers = []
    for question in QUESTIONS:
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        turns = [("system", system), ("user", question)]
        prompt = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
        prompt = ids(prompt + "<|im_start|>assistant\n", True)
        tokens, top = [], []
        llama.reset()
        llama.eval(prompt)
        for _ in range(TOKENS):
            top.append(top_two(llama.scores[llama.n_tokens - 1]))
            tokens.append(top[-1][0])
            llama.eval(tokens[-1:])
        exact.reset()
        exact.eval(prompt + tokens[:-1])
        sure = [top_two(exact.scores[len(prompt) - 1 + i]) for i in range(TOKENS)]
        answers.append({"question": question, "prompt": prompt, "tokens": tokens, "top": top, "exact": sure})

    with open(model, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    made = f"llama-cpp-python {llama_cpp.__version__}"
    with open(out, "w", encoding="utf-8") as file:
        # A line for each entry, so that changes can be read.
        file.write('{\n"made_with": %s,\n"sha256": %s' % (json.dumps(made), json.dumps(sha256)))
        for name, entries in [("texts", texts), ("answers", answers)]:
            lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
            file.write(f',\n"{name}": [\n{lines}\n]')
        file.write("\n}\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
