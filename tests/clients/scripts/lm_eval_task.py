"""lm-eval: a task of its own, of four questions with generated answers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MODEL, URL, report
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

TASK = """
task: sums
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
  until: []
  max_gen_toks: 8
metric_list:
  - metric: exact_match
"""
with TemporaryDirectory() as folder:
    data = Path(folder) / "sums.jsonl"
    questions = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(4)]
    data.write_text("\n".join(map(json.dumps, questions)))
    (Path(folder) / "sums.yaml").write_text(TASK.format(data=data))
    result = simple_evaluate(
        model="local-chat-completions",
        model_args={
            "model": MODEL,
            "base_url": f"{URL}/v1/chat/completions",
            "num_concurrent": 2,
            "tokenizer_backend": None,
        },
        tasks=["sums"],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        apply_chat_template=True,
        log_samples=True,
    )
samples = result["samples"]["sums"]
assert len(samples) == 4
assert all(isinstance(sample["resps"][0][0], str) for sample in samples)
report("lm_eval", answers=len(samples), tokenizer=os.path.basename(os.environ["TOKENIZER"]))
