# lm-eval's harness on a task that lies beside the results: three sums, generated and compared.
set -euo pipefail
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME="$WORK/huggingface"
task="$WORK/task"
mkdir -p "$task"
for sum in '2 + 3:5' '4 + 4:8' '10 + 5:15'; do
  printf '{"question": "What is %s? Answer with the number only.", "answer": "%s"}\n' "${sum%:*}" "${sum#*:}"
done > "$task/sums.jsonl"
cat > "$task/sums.yaml" <<YAML
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: "$task/sums.jsonl"}}
output_type: generate_until
test_split: test
doc_to_text: question
doc_to_target: answer
generation_kwargs: {until: ["\n"], max_gen_toks: 16}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
YAML
lm_eval --model local-chat-completions --tasks sums --include_path "$task" --apply_chat_template \
  --model_args "model=auto,base_url=$1/chat/completions,num_concurrent=2,tokenized_requests=False" | grep sums
