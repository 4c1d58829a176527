#!/bin/sh
# The models, an answer, a stream and an error. Needs curl alone.
set -eu
url=${COTERIE_URL:-http://127.0.0.1:8000/v1}
key=${COTERIE_API_KEY:-none}
model=${COTERIE_MODEL:-smollm2-135m-instruct}

ask() { curl -sS -N "$url/$1" -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$2"; echo; }

echo '# The served models'
curl -sS "$url/models" -H "Authorization: Bearer $key"
echo

echo '# An answer'
ask chat/completions '{"model": "'"$model"'", "max_tokens": 30, "messages": [{"role": "user", "content": "Say hello!"}]}'

echo '# The same as a stream'
ask chat/completions '{"model": "'"$model"'", "max_tokens": 5, "stream": true,
  "messages": [{"role": "user", "content": "Say hello!"}]}'

echo '# A mistake: the error names its place'
ask chat/completions '{"model": "'"$model"'", "messages": [{"role": "user", "content": [{"type": "text"}]}]}'
