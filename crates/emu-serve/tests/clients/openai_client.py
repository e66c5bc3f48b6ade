"""The openai package for Python against a server with the fake engine (tests/serve/fake.rs)."""

import base64

import openai

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP43+AAAARBAcAM0e2RAAAAAElFTkSuQmCC"
)
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
PICTURE = {"type": "image_url", "image_url": {"url": URL}}

client = openai.OpenAI(max_retries=0)


def user(content):
    return {"role": "user", "content": content}


def chat(*messages, **options):
    return client.chat.completions.create(model="fake", messages=list(messages), **options)


def caption():
    answer = chat(user([PICTURE, {"type": "text", "text": "what is it?"}]))
    assert answer.choices[0].message.content == "[-] 1: *what is it?"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def turns_with_pictures():
    answer = chat(
        {"role": "system", "content": "be brief"},
        user([PICTURE, {"type": "text", "text": "?"}]),
        {"role": "assistant", "content": "a dog"},
        user([PICTURE, PICTURE]),
        n=2,
    )
    assert [choice.message.content for choice in answer.choices] == ["[be brief] 2: **"] * 2


def stream():
    text, usage = "", None
    for chunk in chat(user("count to 20"), stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage or usage
    assert text == "".join(f"{n} " for n in range(1, 21)), text
    assert usage.completion_tokens > 10


def stream_helper():
    with client.chat.completions.stream(model="fake", messages=[user("count to 9")]) as events:
        final = events.get_final_completion()
    assert final.choices[0].message.content == "1 2 3 4 5 6 7 8 9 "


def stop_and_seed():
    answer = chat(user("a"), temperature=1, seed=42, stop=["2"], max_completion_tokens=50)
    assert answer.choices[0].message.content == "[-] 1: a seed 4"


def leaving_a_stream():
    events = chat(user("count to 1000"), stream=True)
    next(iter(events))
    events.close()
    assert chat(user("next")).choices[0].message.content == "[-] 1: next"


def logprobs():
    answer = chat(user("count to 3"), logprobs=True, top_logprobs=1)
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "t0"


def picture_in_the_answer():
    answer = chat(user("draw"), seed=3, extra_body={"modalities": ["text", "image"]})
    parts = answer.choices[0].message.content
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    assert parts[1]["image_url"]["url"] == URL and parts[1]["seed"] == 3
    again = chat(user("draw"), {"role": "assistant", "content": parts}, user("again"))
    assert again.choices[0].message.content == "[-] 2: again"


def completions():
    answer = client.completions.create(model="fake", prompt=["a", "b"], max_tokens=2)
    assert [choice.text for choice in answer.choices] == [" and a", " and b"]
    events = client.completions.create(model="fake", prompt="c", stream=True)
    assert "".join(chunk.choices[0].text for chunk in events) == " and c again"


def draw():
    answer = client.images.generate(
        model="fake", prompt="a dog", n=2, size="512x512", response_format="b64_json", extra_body={"seed": 7}
    )
    assert [base64.b64decode(picture.b64_json) for picture in answer.data] == [PNG, PNG]
    assert answer.data[1].seed == 8


def blend():
    pictures = [("a.png", PNG), ("b.png", PNG)]
    answer = client.images.edit(model="fake", image=pictures, prompt="<image> like <image>", size="512x512")
    assert base64.b64decode(answer.data[0].b64_json) == PNG
    client.images.edit(model="fake", image=("a.png", PNG), prompt="one", n=1, extra_body={"steps": 2})


def embeddings():
    answer = client.embeddings.create(model="fake", input=[URL, URL])
    assert answer.data[1].embedding == [float(len(PNG)), 1.0, 2.0]
    answer = client.embeddings.create(model="fake", input=URL, encoding_format="float")
    assert answer.data[0].embedding == [float(len(PNG)), 1.0, 2.0]


def models():
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "tests"


def fails(call, kind, status, code, param=None):
    try:
        call()
    except kind as error:
        assert (error.status_code, error.code, error.param) == (status, code, param), error
    else:
        raise AssertionError(f"no {code}")


def errors():
    def bad(address):
        return lambda: chat(user([{"type": "image_url", "image_url": {"url": address}}]))

    stranger = openai.OpenAI(api_key="wrong", max_retries=0)
    fails(stranger.models.list, openai.AuthenticationError, 401, "invalid_api_key")
    fails(
        lambda: client.chat.completions.create(model="gpt-4", messages=[user("a")]),
        openai.NotFoundError, 404, "model_not_found", "model",
    )
    invalid = openai.BadRequestError
    fails(lambda: chat(user("a"), temperature=9), invalid, 400, "invalid_value", "temperature")
    fails(lambda: chat(user("a"), tools=[{"type": "function"}]), invalid, 400, "unsupported_parameter", "tools")
    fails(lambda: chat(user("too long")), invalid, 400, "context_length_exceeded")
    fails(lambda: chat(user("too long"), stream=True), invalid, 400, "context_length_exceeded")
    fails(lambda: chat(user("fail")), openai.InternalServerError, 500, "device")
    param = "messages[0].content[0].image_url.url"
    fails(bad("data:image/png;base64,dGV4dA=="), invalid, 400, "invalid_image_format", param)
    fails(bad("http://127.0.0.1/a.png"), invalid, 400, "image_fetch_disabled", param)
    fails(lambda: chat(user("x" * (6 << 20))), openai.APIStatusError, 413, "request_too_large")
    fails(
        lambda: client.images.generate(model="fake", prompt="a", response_format="url"),
        invalid, 400, "unsupported_parameter", "response_format",
    )


TESTS = [
    caption, turns_with_pictures, stream, stream_helper, stop_and_seed, leaving_a_stream, logprobs,
    picture_in_the_answer, completions, draw, blend, embeddings, models, errors,
]
for test in TESTS:
    test()
print(f"openai for Python {openai.__version__}: {len(TESTS)} passed")
