import asyncio
import random
from pathlib import Path
from statistics import fmean

import pytest
from lengths import CONTEXT
from loadgen import LoadError
from openai_double import OpenAiDouble, serving
from replay import Answer, arrivals, replay
from simulated_cluster import Job

THREE = [Job(5.0, 10, 4), Job(5.1, 20, 4), Job(5.2, 30, 4)]


def replayed(double: OpenAiDouble, jobs: list[Job] = THREE) -> list[Answer]:
    async def run() -> list[Answer]:
        async with serving(double) as url:
            return await replay(url, jobs, {"model": "m"}, "seed")

    return asyncio.run(run())


def test_requests_are_sent_when_due_whatever_still_runs() -> None:
    double = OpenAiDouble(token_s=0.2)
    answers = replayed(double)
    assert double.most_at_once == 3
    assert sorted(len(prompt) for prompt in double.prompts) == [10, 20, 30]
    for answer, job in zip(answers, THREE, strict=True):
        assert answer.due_s == job.arrived_s
        # Four tokens, 0.2 s each; more is this machine's.
        assert answer.ttft_s >= 0.2
        assert answer.runtime_s >= 0.8
        assert answer.tpot_s == pytest.approx((answer.runtime_s - answer.ttft_s) / 3)
        assert (answer.model, answer.output_tokens, answer.energy_joules) == ("double", 4, 8.0)


def test_one_token_has_no_time_per_further_token() -> None:
    (answer,) = replayed(OpenAiDouble(), [Job(0.0, 5, 1)])
    assert answer.tpot_s is None


@pytest.mark.parametrize(
    ("double", "message"),
    [(OpenAiDouble(status=503), "status 503"), (OpenAiDouble(lost_tokens=1), "got 3")],
)
def test_a_request_that_fails_is_an_error(double: OpenAiDouble, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        replayed(double)


def test_arrivals_come_at_the_rate_and_fit_into_the_context() -> None:
    jobs = arrivals(None, rate_per_s=4.0, count=2000, seed=0)
    times = [job.arrived_s for job in jobs]
    assert times == sorted(times)
    assert len(jobs) / (times[-1] - times[0]) == pytest.approx(4.0, rel=0.1)
    assert max(job.input_tokens + job.output_tokens for job in jobs) < CONTEXT
    assert min(min(job.input_tokens, job.output_tokens) for job in jobs) >= 1
    assert fmean(job.input_tokens for job in jobs) > 3 * fmean(job.output_tokens for job in jobs)


def test_equal_seeds_give_equal_arrivals() -> None:
    assert arrivals(None, 4.0, 50, seed=1) == arrivals(None, 4.0, 50, seed=1)
    assert arrivals(None, 4.0, 50, seed=1) != arrivals(None, 4.0, 50, seed=2)


def test_lengths_of_a_trace_are_scaled_by_its_longest_request(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    draw = random.Random(0)
    rows = [f"2023-11-16 18:15:{i:02d}.0000000,{draw.randint(1, 900)},100" for i in range(59)]
    rows.append(f"2023-11-16 18:15:59.0000000,{2 * (CONTEXT - 2) - 100},100")
    trace.write_text("timestamp,input_tokens,output_tokens\n" + "\n".join(rows))
    jobs = arrivals(trace, rate_per_s=1.0, count=60, seed=0)
    assert {job.output_tokens for job in jobs} == {50}
    assert max(job.input_tokens for job in jobs) == CONTEXT - 2 - 50
