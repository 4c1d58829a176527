"""A response in the background whose connection is cut: it goes on, and its events are read on from where they broke.

Needs a server (`make serve`) and `pip install openai`.
"""

from __future__ import annotations

import os

from openai import OpenAI

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")


def main() -> None:
    client = OpenAI(
        base_url=os.environ.get("COTERIE_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("COTERIE_API_KEY", "none"),
    )
    stream = client.responses.create(
        model=MODEL, input="Tell a story about a lighthouse.", max_output_tokens=60, background=True, stream=True
    )
    response_id, last = "", -1
    for event in stream:
        if event.type == "response.created":
            response_id = event.response.id
        last = event.sequence_number
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
            if last >= 12:
                break
    stream.close()
    print(" [cut] ", end="", flush=True)

    for event in client.responses.retrieve(response_id, stream=True, starting_after=last):
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
    print(f"\n[{client.responses.retrieve(response_id).status}]")


if __name__ == "__main__":
    main()
