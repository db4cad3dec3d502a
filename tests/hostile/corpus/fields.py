"""Fields that reach into an engine or a router: transfers, salts, ids, routing."""

from __future__ import annotations

from collections.abc import Mapping

from hostile.cases import CHAT, LENIENT, REJECTED, Case, Fields, RawJson, Right, table

ODD: Mapping[str, Fields] = {
    "kv-transfer-pull": {
        "kv_transfer_params": {
            "do_remote_prefill": True,
            "remote_engine_id": "x",
            "remote_host": "127.0.0.1",
            "remote_port": 9,
            "remote_block_ids": [1],
        }
    },
    "kv-transfer-push": {"kv_transfer_params": {"do_remote_decode": True}},
    "kv-transfer-deep": {"kv_transfer_params": {"a": RawJson("[" * 500 + "]" * 500)}},
    "ec-transfer": {"ec_transfer_params": {"a": {"peer_host": "127.0.0.1", "peer_port": 9}}},
    "xargs": {"vllm_xargs": {"a": 1, "b": [1, 2], "__class__": "x"}},
    "xargs-20k": lambda: {"vllm_xargs": {f"k{i}": i for i in range(20_000)}},
    "cache-salt-1mb": lambda: {"cache_salt": "s" * 10**6},
    "cache-salt": {"cache_salt": "\0\ud800"},
    "request-id": {"request_id": "same"},
    "request-id-lines": {"request_id": "a\r\nX-Evil: 1"},
    "request-id-1mb": lambda: {"request_id": "r" * 10**6},
    "session-id-1mb": lambda: {"session_id": "s" * 10**6},
    "user-1mb": lambda: {"user": "u" * 10**6},
    "user-object": {"user": {"a": 1}},
    "metadata-20k": lambda: {"metadata": {f"k{i}": "v" for i in range(20_000)}},
    "unknown-20k": lambda: {f"unknown{i}": i for i in range(20_000)},
    "unknown-deep": {"unknown": RawJson("[" * 1_000 + "]" * 1_000)},
    "lora": {"lora_name": "x", "lora_request": {"lora_path": "/etc"}},
    "mm-kwargs": {"mm_processor_kwargs": {"num_crops": 10**9}},
    "media-kwargs": {"media_io_kwargs": {"video": {"num_frames": 10**9}}},
    "rank": {"data_parallel_rank": 99},
    "reasoning": {"reasoning_effort": "high", "include_reasoning": True},
    "modalities": {"modalities": ["audio"], "audio": {"voice": "x", "format": "wav"}},
    "prediction": {"prediction": {"type": "content", "content": "x" * 100_000}},
    "service-tier": {"service_tier": "gold", "store": True, "verbosity": "x"},
    "logits-processors": {"logits_processors": ["os.system"]},
    "name-empty": {"": 1, "\0": 2, "\ud800": 3},
    "stream-options-alone": {"stream_options": {"include_usage": True}},
    "repetition-patterns": {
        "repetition_detection": {
            "max_pattern_size": 10**9,
            "min_pattern_size": 2_001,
            "min_count": 2,
        }
    },
    "repetition-text": {"repetition_detection": {"max_pattern_size": "100000", "min_count": "2"}},
    "continuous-usage": {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
}

WRONG: Mapping[str, Fields] = {
    "kv-transfer-text": {"kv_transfer_params": "x"},
    "xargs-nested": {"vllm_xargs": {"a": {"b": {"c": 1}}}},
    "cache-salt-number": {"cache_salt": 5},
    "routing-text": {"routing": "fast"},
    "routing-list": {"routing": []},
    "routing-unknown": {"routing": {"speed": 1}},
    "routing-weights-nan": {"routing": {"weights": {"energy": float("nan")}}},
    "routing-weights-negative": {"routing": {"weights": {"energy": -1}}},
    "routing-weights-infinite": {"routing": {"weights": {"energy": RawJson("1e400")}}},
    "routing-weights-zero": {"routing": {"weights": {"energy": 0, "time": 0, "accuracy": 0}}},
    "routing-models-empty": {"routing": {"models": []}},
    "routing-models-numbers": {"routing": {"models": [1]}},
    "routing-models-60k": lambda: {"routing": {"models": [1] * 60_000}},
    "routing-unknown-60k": lambda: {"routing": {f"k{i}": 0 for i in range(60_000)}},
    "routing-priority": {"routing": {"priority": "highest"}},
    "routing-policy": {"routing": {"policy": "__init__"}},
    "routing-task": lambda: {"routing": {"task": "t" * 10**6}},
    "routing-latency": {"routing": {"constraints": {"max_latency_s": -1}}},
    "routing-latency-nan": {"routing": {"constraints": {"max_latency_s": float("nan")}}},
    "routing-confidence": {"routing": {"constraints": {"confidence": 2}}},
    "routing-deep": {"routing": {"weights": RawJson("[" * 900 + "]" * 900)}},
}


def cases() -> list[Case]:
    """Of this family."""
    right = Right(REJECTED | {404})
    return [
        *table("fields", ODD, Right(LENIENT), short=("kv-transfer-pull", "xargs", "request-id")),
        *table("routing", WRONG, right, paths=(CHAT,), short=("routing-weights-nan",)),
    ]
