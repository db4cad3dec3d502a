from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from profiling.costs.choices import Choice, as_json, choices, idle_models, print_choices
from scheduler.costs.priors.origins import CALIBRATED, MEASURED, SHIPPED
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet


def profile(
    model: str, seconds: float, joules: float, accuracy: float | None = None, spread: float = 1.1
) -> ModelProfile:
    """Costs of a request, its length included, and how far off they may be."""
    runtime, energy = (
        LinearModel("linear", (cost, 0.0, 0.0), ratio_low=1 / spread, ratio_high=spread)
        for cost in (seconds, joules)
    )
    return ModelProfile(
        model, "cpu", runtime, energy, "rapl", (1, 99), (1, 99), mean_output_tokens=64.0,
        accuracy=accuracy, accuracy_source="scores.csv, n 280, standard_error 0.02, seed 0",
    )  # fmt: skip


def found(*profiles: ModelProfile) -> dict[str, Choice]:
    known = ProfileSet(profiles)
    states = idle_models(known, [(p.model, p.accelerator) for p in profiles])
    return {choice.weight: choice for choice in choices(known, states)}


def test_each_weight_names_its_model_and_its_lead() -> None:
    chosen = found(profile("lite", 2.0, 7.2, 0.13), profile("int8", 1.0, 12.4, 0.36))
    assert chosen["energy"].text == "lite, 7.2 J, 42% less than int8 (12.4 J)"
    assert chosen["time"].text == "int8, 1 s, 50% less than lite (2 s)"
    assert chosen["accuracy"].text == "int8, 36.0% right, 23.0 points more than lite (13.0% right)"
    assert all(choice.told_apart for choice in chosen.values())


def test_what_the_trials_do_not_tell_apart_is_said() -> None:
    chosen = found(
        profile("a", 1.0, 7.0, 0.36, spread=1.5), profile("b", 1.1, 9.0, 0.35, spread=1.5)
    )
    for choice in chosen.values():
        assert choice.model == "a"
        assert choice.told_apart is False
        assert choice.text.endswith("within the interval, the trials do not tell them apart")


@pytest.mark.parametrize(
    ("origin", "trials", "covariance", "told_apart"),
    [
        # As much as single requests differ, where no trial says how far off it is here.
        (SHIPPED, 400, None, False),
        # A shape that was kept: its scale is known, its form is not.
        (CALIBRATED, 12, None, False),
        # Three coefficients of 300 trials.
        (MEASURED, 300, None, True),
        # A posterior says how well the mean is known.
        (CALIBRATED, 12, 1e-4, True),
        (CALIBRATED, 12, 0.05, False),
    ],
)
def test_trials_average_what_differs_from_request_to_request(
    origin: str, trials: int, covariance: float | None, told_apart: bool
) -> None:
    def known(name: str, joules: float) -> ModelProfile:
        found = profile(name, 1.0, joules, spread=1.5)
        rows: tuple[tuple[float, ...], ...] = ()
        if covariance is not None:
            rows = tuple(
                tuple(covariance if row == column else 0.0 for column in range(3))
                for row in range(3)
            )
        energy = replace(found.energy, n=trials, log_covariance=rows)
        return replace(found, energy=energy, origin=origin)

    assert found(known("a", 7.0), known("b", 9.0))["energy"].told_apart is told_apart


def test_equal_models_and_a_single_one() -> None:
    chosen = found(profile("a", 1.0, 7.0, 0.3), profile("b", 1.0, 7.0, 0.3))
    assert chosen["energy"].text.startswith("a, 7 J, the same as b")
    assert chosen["energy"].told_apart is False
    assert found(profile("a", 1.0, 7.0))["time"].text == "a, 1 s"


def test_models_without_a_measured_accuracy_are_named() -> None:
    chosen = found(profile("a", 1.0, 7.0, 0.3), profile("b", 1.0, 7.0))
    assert chosen["accuracy"].text == "a, 30.0% right (not known of b)"
    nothing = found(profile("a", 1.0, 7.0), profile("b", 2.0, 7.0))["accuracy"]
    assert nothing.model is None
    assert nothing.text == "no model has a figure to choose by"


def test_an_accuracy_of_unknown_origin_has_no_interval() -> None:
    one, two = (
        replace(profile(m, 1.0, 1.0, a), accuracy_source="guess")
        for m, a in (("a", 0.5), ("b", 0.4))
    )
    assert found(one, two)["accuracy"].told_apart is None


@pytest.mark.parametrize("costs", [-1.0, 0.0])
def test_a_model_that_cannot_be_predicted_is_not_chosen(costs: float) -> None:
    chosen = found(profile("broken", -1.0, costs), profile("b", 1.0, 7.0))
    assert chosen["time"].model == "b"
    assert found(profile("broken", -1.0, -1.0))["time"].model is None


def test_the_usual_answer_counts() -> None:
    long = replace(
        profile("long", 1.0, 1.0),
        energy=LinearModel("linear", (0.0, 0.0, 1.0)),
        mean_output_tokens=200.0,
    )
    short = replace(long, model="short", mean_output_tokens=20.0)
    assert found(long, short)["energy"].text == "short, 20 J, 90% less than long (200 J)"


def test_only_models_that_run_and_on_what_they_run() -> None:
    known = ProfileSet((profile("a", 1.0, 7.0), replace(profile("a", 9.0, 9.0), accelerator="L4")))
    states = idle_models(known, [("a", "L4"), ("a", "cpu"), ("b", None)])
    assert [(s.model, s.profile and s.profile.accelerator) for s in states] == [
        ("a", "L4"),
        ("b", None),
    ]
    assert {c.model for c in choices(known, states) if c.weight != "accuracy"} == {"a"}
    assert all(choice.model is None for choice in choices(ProfileSet(()), []))


def test_as_table_and_for_scripts() -> None:
    known = ProfileSet((profile("lite", 2.0, 7.2, 0.13), profile("int8", 1.0, 12.4, 0.36)))
    chosen = choices(known, idle_models(known, [("lite", None), ("int8", None)]))
    text = io.StringIO()
    print_choices(chosen, Console(file=text, width=100))
    lines = text.getvalue().splitlines()
    assert lines[0].startswith("what each weight alone chooses for 32 input tokens")
    assert any(line.split() == ["energy:", *chosen[1].text.split()] for line in lines)
    document = as_json(chosen)
    assert [entry["weight"] for entry in document] == ["accuracy", "energy", "time"]
    assert document[1]["better_by"] == pytest.approx(0.419, abs=0.001)
    assert document[1]["text"] == chosen[1].text
