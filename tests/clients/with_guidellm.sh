# guidellm's load generator, ten seconds.
set -euo pipefail
export HF_HUB_OFFLINE=1
cd "$WORK"
for _ in $(seq 32); do echo '{"prompt": "Tell me something about the weather of this week, please."}'; done > prompts.jsonl
guidellm benchmark run --target "${1%/v1}" --model auto --profile concurrent --rate 2 --max-seconds 10 \
  --data prompts.jsonl --output-dir "$WORK" --outputs json --disable-console-interactive
test -s "$WORK/benchmarks.json"
