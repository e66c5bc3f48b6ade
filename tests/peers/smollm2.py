"""What llama.cpp makes of texts and prompts, as a fixture for the tests of the language model alone.

Usage: smollm2.py MODEL.gguf OUT.json
"""

import hashlib
import json
import sys

import llama_cpp

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


def rounded(value):
    return round(float(value), 5)


def main(model, out):
    llama = llama_cpp.Llama(
        model, n_ctx=1024, n_threads=THREADS, n_threads_batch=THREADS, logits_all=True, verbose=False
    )

    def ids(text, special):
        return llama.tokenize(text.encode(), add_bos=False, special=special)

    texts = [{"text": text, "plain": ids(text, False), "marked": ids(text, True)} for text in TEXTS]

    answers = []
    for question in QUESTIONS:
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        turns = [("system", system), ("user", question)]
        prompt = "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns)
        prompt = ids(prompt + "<|im_start|>assistant\n", True)
        llama.reset()
        llama.eval(prompt)
        tokens, top = [], []
        for _ in range(TOKENS):
            logits = llama.scores[llama.n_tokens - 1]
            first, second = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:2]
            tokens.append(first)
            top.append([second, rounded(logits[first]), rounded(logits[second])])
            llama.eval([first])
        answers.append({"question": question, "prompt": prompt, "tokens": tokens, "top": top})

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
