# An answer and a stream, by curl alone.
set -euo pipefail
body='{"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16'
curl -sSf "$1/chat/completions" -H 'Content-Type: application/json' -H "Authorization: Bearer $OPENAI_API_KEY" \
  -d "$body}" | grep -o '"content":"[^"]*"'
curl -sSfN "$1/chat/completions" -H 'Content-Type: application/json' -H "Authorization: Bearer $OPENAI_API_KEY" \
  -d "$body, \"stream\": true}" | tail -n 2 | grep -x 'data: \[DONE\]'
