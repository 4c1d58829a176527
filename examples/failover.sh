#!/usr/bin/env bash
# Two upstreams behind one endpoint: the first cuts every answer after 20 tokens, the client sees one whole answer.
# Takes the ports 9100 to 9102.
set -euo pipefail
coterie="${COTERIE:-.venv/bin/coterie}"
folder="$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$folder"' EXIT

"$coterie" testbed upstream --port 9101 --model demo=cut@20 >/dev/null &
"$coterie" testbed upstream --port 9102 --model demo=ok >/dev/null &

cat >"$folder/coterie.toml" <<TOML
state_dir = "$folder"
[server]
port = 9100
[[providers]]
name = "breaks"
base_url = "http://127.0.0.1:9101/v1"
models = ["demo"]
[[providers]]
name = "healthy"
base_url = "http://127.0.0.1:9102/v1"
models = ["demo"]
priority = 1
TOML
"$coterie" serve --config "$folder/coterie.toml" >/dev/null 2>"$folder/log" &
until curl -sf http://127.0.0.1:9100/health >/dev/null; do sleep 0.1; done

text="$(
  curl -fsSN http://127.0.0.1:9100/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "Count!"}]}' |
    sed -n 's/.*"content":"\([^"]*\)".*/\1/p' | tr -d '\n'
)"
echo "$text"
"$coterie" providers --url http://127.0.0.1:9100
[[ "$text" == *" w58 w59" ]] || { echo "the answer is not whole" >&2; exit 1; }
