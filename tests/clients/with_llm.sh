# The `llm` command line, streaming and not.
set -euo pipefail
export LLM_USER_PATH="$WORK/user"
mkdir -p "$LLM_USER_PATH"
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<YAML
- model_id: auto
  model_name: auto
  api_base: "$1"
YAML
llm --no-log -m auto -o max_tokens 16 -o temperature 0 --no-stream 'What is the capital of France?' | grep .
llm --no-log -m auto -o max_tokens 16 -o temperature 0 'What is the capital of France?' | grep .
