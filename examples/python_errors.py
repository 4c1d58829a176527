"""Each kind of failure, and what a program does with it."""

import os

import openai

url = os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1")
key = os.environ.get("COTERIE_API_KEY", "none")
client = openai.OpenAI(base_url=url, api_key=key)
model = client.models.list().data[0].id
hello = [{"role": "user", "content": "Hello"}]


def show(what: str, **request: object) -> None:
    """Send a request that fails, and print what the SDK makes of it."""
    print(f"# {what}")
    try:
        client.chat.completions.create(**{"model": model, "messages": hello, "max_tokens": 5, **request})
    except openai.APIStatusError as error:
        # The class says what kind of failure it is, `code` exactly which one, `param` where in the request.
        print(f"{type(error).__name__} {error.status_code}: code={error.code} param={error.param}")
        print(f"  {error.body['message']}")
        print(f"  request id {error.request_id}\n")
    else:
        print("no failure\n")


show("A model that is not served", model="gpt-5")
show("A value out of its bounds", temperature=3)
show("A place deep in the request", messages=[{"role": "user", "content": [{"type": "text"}]}])
show("An image that is not base64", messages=[
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,###"}}]}
])  # fmt: skip
show("A prompt that is too long", messages=[{"role": "user", "content": "word " * 20_000}])
show("A parameter that nothing here can honour", web_search_options={})
show("A schema that cannot be enforced", response_format={
    "type": "json_schema",
    "json_schema": {"name": "age", "schema": {"type": "integer", "multipleOf": 5}},
})  # fmt: skip

print("# A server that is not there: the SDK has tried three times")
try:
    openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none").models.list()
except openai.APIConnectionError as error:
    print(f"{type(error).__name__}: {error}")
