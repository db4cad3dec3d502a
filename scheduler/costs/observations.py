"""What finished requests were measured to take, alone and next to what was predicted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Observation:
    """What a finished request really took.

    Attributes:
        input_tokens: Prompt tokens.
        output_tokens: Generated tokens.
        cached_input_tokens: Prompt tokens that came from the prefix cache.
        queue_time_s: From arrival in the replica to the first step of the engine.
        ttft_s: To the first token.
        runtime_s: End to end, in the replica.
        energy_joules: Joules attributed to the request, idle power not included; `None` where the
            counter failed meanwhile.
        energy_source: `nvml`, `nvml_power`, `rapl` or `cpu_time`.
        concurrency: Requests in the replica while this one ran, itself included, averaged over
            its time.
        cut: The generation was stopped by a limit on its tokens, not by the model.
        mean_logprob: Mean log probability of the generated tokens, `None` where not asked for.
        stopped: The request was cancelled before its end; all figures are until then, so that its
            tokens say nothing about the length of an answer.
    """

    model: str
    accelerator: str
    replica_id: str
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    queue_time_s: float
    ttft_s: float | None
    runtime_s: float
    energy_joules: float | None
    energy_source: str
    concurrency: float = 1.0
    cut: bool = False
    mean_logprob: float | None = None
    stopped: bool = False

    @property
    def tpot_s(self) -> float | None:
        """Seconds per generated token after the first, `None` below two tokens."""
        if self.ttft_s is None or self.output_tokens < 2:
            return None
        return (self.runtime_s - self.ttft_s) / (self.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished request next to what was predicted of it, each with its actual token counts.

    Attributes:
        fit_id: `ModelProfile.fit_id` of the profile that predicted.
        predicted_runtime_s: The profile's, at the concurrency that it really ran with.
        told_runtime_s: What the decision predicted: at the load seen then, corrected as then known.
        runtime_factor: The correction of then, `None` where it is not known.
        predicted_energy_joules: As `predicted_runtime_s`.
        told_energy_joules: As `told_runtime_s`.
        energy_factor: As `runtime_factor`.
    """

    model: str
    accelerator: str
    fit_id: str
    predicted_runtime_s: float
    told_runtime_s: float
    runtime_s: float
    predicted_energy_joules: float
    told_energy_joules: float
    energy_joules: float | None
    runtime_factor: float | None = None
    energy_factor: float | None = None
