# guidellm's load generator: two clients for ten seconds, and every request answered.
set -euo pipefail
export HF_HUB_OFFLINE=1
cd "$WORK"
for _ in $(seq 32); do
  echo '{"prompt": "Tell me something about the weather of this week, please."}'
done > prompts.jsonl
guidellm run --backend "kind=openai_http,target=${1%/v1},model=auto" \
  --profile kind=concurrent,streams=2 --constraint kind=max_duration,seconds=10 \
  --data kind=json_file,path=prompts.jsonl --output kind=json,path=out.json --disable-console
python - <<'PY'
import json

with open("out.json") as file:
    totals = json.load(file)["benchmarks"][0]["metrics"]["request_totals"]
print(totals)
assert totals["successful"] > 0
assert totals["errored"] == 0
PY
