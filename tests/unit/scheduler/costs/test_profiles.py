from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_examples import REFERENCE, profile

from scheduler.costs.forms import FORMS, terms_of
from scheduler.costs.profiles import SCHEMA_VERSION, LinearModel, ProfileSet
from scheduler.errors import ProfileError
from scheduler.preferences import Metric

SET = ProfileSet(
    profiles=(profile("a", accuracy=None), profile("b", runtime=(0.1, 0.02, 1 / 3))),
    reference=REFERENCE,
    source="made for the tests",
)

coefficients = st.floats(-1e3, 1e3)


@pytest.mark.parametrize(
    ("form", "values", "cost"),
    [
        ("linear", (1.0, 2.0, 3.0), 1 + 2 * 10 + 3 * 4),
        ("interaction", (1.0, 2.0, 3.0, 0.5), 1 + 2 * 10 + 3 * 4 + 0.5 * 40),
        ("context", (1.0, 2.0, 3.0, 0.5), 1 + 2 * 10 + 3 * 4 + 0.5 * 4 * 12),
        ("linear+load", (1.0, 2.0, 3.0, 0.5, 0.25), 1 + 2 * 10 + 3 * 4 + 8 * (0.5 * 10 + 0.25 * 4)),
        (
            "context+shared",
            (1, 2, 3, 0.5, 6, 4, 8),
            1 + 2 * 10 + 3 * 4 + 0.5 * 48 + (6 + 40 + 32) / 8,
        ),
    ],
)
def test_prediction_by_hand(form: str, values: tuple[float, ...], cost: float) -> None:
    assert LinearModel(form, values).predict(10, 4, 8) == cost


def test_one_request_alone_is_what_is_predicted_unless_said_otherwise() -> None:
    model = LinearModel("linear+load", (1.0, 2.0, 3.0, 0.5, 0.25))
    assert model.predict(10, 4) == model.predict(10, 4, 1)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data(), tin=st.integers(0, 10**5), tout=st.integers(0, 10**5), c=st.floats(1, 1000))
def test_prediction_is_the_sum_over_the_terms(
    form: str, data: Any, tin: int, tout: int, c: float
) -> None:
    values = tuple(data.draw(coefficients) for _ in FORMS[form])
    terms = terms_of(form, values, tin, tout, c)
    expected = pytest.approx(math.fsum(terms), abs=1e-9 * max(map(abs, terms), default=1) + 1e-12)
    assert LinearModel(form, values).predict(tin, tout, c) == expected


def test_every_form_begins_alike() -> None:
    assert {terms[:3] for terms in FORMS.values()} == {("1", "tin", "tout")}


@pytest.mark.parametrize("form", FORMS)
def test_a_load_term_is_in_the_forms_that_say_so(form: str) -> None:
    model = LinearModel(form, (1.0,) * len(FORMS[form]))
    assert (model.predict(10, 4, 3) != model.predict(10, 4, 1)) is ("+" in form)


def test_round_trip_keeps_everything() -> None:
    again = ProfileSet.from_json(SET.to_json())
    assert again == SET
    assert again.version == SET.version
    assert json.loads(SET.to_json())["version"] == SET.version


def test_a_file_of_the_first_schema_says_nothing_of_load() -> None:
    data = json.loads(SET.to_json())
    data["schema_version"] = 1
    for fitted in data["profiles"]:
        del fitted["concurrency_range"]
    stated = data.pop("version")
    assert stated == SET.version
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    data["version"] = hashlib.sha256(canonical).hexdigest()[:16]

    again = ProfileSet.from_json(json.dumps(data))

    assert [p.concurrency_range for p in again.profiles] == [(1, 1), (1, 1)]
    assert again.profiles == tuple(replace(p, concurrency_range=(1, 1)) for p in SET.profiles)
    assert again.schema_version == SCHEMA_VERSION


def test_fit_id_names_the_regressions_and_nothing_else() -> None:
    one = profile("a")
    assert len(one.fit_id) == 16
    assert replace(one, accuracy=0.1, mean_output_tokens=7.0, source="x").fit_id == one.fit_id
    assert profile("a", runtime=(1.0, 0.0, 1e-9)).fit_id != one.fit_id
    assert profile("a", energy=(10.0, 0.0, 1e-9)).fit_id != one.fit_id


def test_version_follows_the_content() -> None:
    other = replace(SET, source="another")
    assert other.version != SET.version
    assert len(SET.version) == 16


def test_reference_by_metric() -> None:
    assert REFERENCE[Metric.TIME] is REFERENCE.runtime_s
    assert REFERENCE[Metric.ENERGY] is REFERENCE.energy_joules
    assert REFERENCE[Metric.ACCURACY] is REFERENCE.accuracy_cost


def test_find_takes_the_accelerator_or_any() -> None:
    other = replace(profile("a"), accelerator="other")
    both = ProfileSet((profile("a"), other))
    assert both.find("a") == profile("a")
    assert both.find("a", "other") == other
    assert both.find("a", "third") is None
    assert both.find("x") is None


def test_merged_replaces_the_same_model_on_the_same_accelerator() -> None:
    newer = ProfileSet((profile("b", accuracy=0.9), profile("c")))
    merged = SET.merged(newer)
    assert [p.model for p in merged.profiles] == ["a", "b", "c"]
    assert merged.find("b") == profile("b", accuracy=0.9)
    assert (merged.reference, merged.source) == (SET.reference, SET.source)


def test_a_model_stands_there_once_per_accelerator() -> None:
    with pytest.raises(ProfileError, match="'a' on 'test' stands there twice"):
        ProfileSet((profile("a"), profile("a")))


def changed(path: tuple[str | int, ...], value: Any) -> str:
    """The file with one value changed, `...` to remove it, and no hash that would give it away."""
    data = json.loads(SET.to_json())
    del data["version"]
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data)


FIRST = ("profiles", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON, or cut off"),
        (SET.to_json()[:-200], "not JSON, or cut off"),
        ("[]", "must be a JSON object, got list"),
        ("{}", "schema_version: this program reads 1 to 3, got None"),
        (changed(("schema_version",), 4), "schema_version: this program reads 1 to 3, got 4"),
        (changed(("schema_version",), 0), "schema_version: this program reads 1 to 3, got 0"),
        (changed(("schema_version",), True), "schema_version: .* got True"),
        (changed(("profiles",), ...), "profiles: missing"),
        (changed(("profiles",), None), "profiles: must be a list, got None"),
        (changed(("profiles",), ["a"]), "malformed"),
        (changed(("reference",), [1]), "malformed"),
        (changed(("reference", "runtime_s"), ...), "malformed: .*runtime_s"),
        (changed(("reference", "runtime_s", "std"), -1.0), r"^reference.runtime_s.std: .*-1.0"),
        (changed(("reference", "energy_joules", "mean"), "1"), "mean: must be .*, got '1'"),
        (changed((*FIRST, "runtime"), ...), "runtime: missing"),
        (changed((*FIRST, "model"), ...), "malformed: .*model"),
        (changed((*FIRST, "new_field"), 1), "malformed: .*new_field"),
        (changed((*FIRST, "accuracy"), 1.5), "accuracy: must be in 0..1, got 1.5"),
        (changed((*FIRST, "mean_output_tokens"), math.nan), "mean_output_tokens: .* got nan"),
        ("[" * 100_000 + "]" * 100_000, "not a profile set: nested too deeply"),
        (changed(("source",), None), "source: must be text, got None"),
        (changed((*FIRST, "runtime", "form"), "cubic"), "form: unknown 'cubic', known: linear"),
        (changed((*FIRST, "runtime", "coefficients"), [1.0]), "has 3 terms, got 1"),
        (changed((*FIRST, "runtime", "coefficients"), [1, 2, math.nan]), "must be finite"),
        (changed((*FIRST, "runtime", "ratio_low"), math.nan), "ratio_low, ratio_high"),
        (changed((*FIRST, "runtime", "ratio_low"), 3.0), "got 3.0 and 2.0"),
        (SET.to_json().replace("made for", "changed for"), "version: says .* content hashes to"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        ProfileSet.from_json(text)


@pytest.mark.parametrize("name", ["input_tokens_range", "output_tokens_range", "concurrency_range"])
@pytest.mark.parametrize(
    "values",
    [[1], [0, 0], [10, 1], [-5, -1], [math.nan, 1], [1, math.inf], [1, 10**400], ["1", "2"], None,
     5, "12"],
)  # fmt: skip
def test_a_range_that_cannot_be_is_named(name: str, values: object) -> None:
    message = rf"^profiles\[0\]\.{name}: must be two finite numbers >= 0 in this order"
    with pytest.raises(ProfileError, match=message):
        ProfileSet.from_json(changed((*FIRST, name), values))
    if isinstance(values, list):
        given: dict[str, Any] = {name: tuple(values)}
        with pytest.raises(ProfileError, match=f"^{name}: must be two finite"):
            replace(SET.profiles[0], **given)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("model", 5, "must be text, got 5"),
        ("model", None, "must be text, got None"),
        ("model", ["a"], r"must be text, got \['a'\]"),
        ("model", "\ud800", r"must be Unicode text, got '\\ud800'"),
        ("accelerator", 5, "must be text, got 5"),
        ("energy_source", None, "must be text, got None"),
        ("source", 1, "must be text, got 1"),
        ("mean_output_tokens", None, "must be a finite number >= 0, got None"),
        ("mean_output_tokens", "128", "must be a finite number >= 0, got '128'"),
        ("accuracy", "0.5", "must be in 0..1, got '0.5'"),
        ("accuracy", True, "must be in 0..1, got True"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(name: str, value: object, wanted: str) -> None:
    with pytest.raises(ProfileError, match=rf"^profiles\[0\]\.{name}: {wanted}$"):
        ProfileSet.from_json(changed((*FIRST, name), value))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *((name, value, "must be a number or null") for name in ("r2", "mape", "heldout_mape")
          for value in ("1", [1], 10**400)),
        *(("n", value, "must be a whole number >= 0") for value in (None, "7", [7], 1.5, -1, True)),
        ("ratio_low", None, ".*must be finite and in this order, got None and 2.0"),
        ("ratio_low", "0", ".*must be finite and in this order, got '0' and 2.0"),
        ("log_variance", None, "must be a finite number >= 0, got None"),
        ("estimator", 1, "must be text, got 1"),
        ("form", ["linear"], "must be text, got"),
        ("coefficients", 1, "must be a list, got 1"),
        ("standard_errors", None, "must be a list, got None"),
        ("log_covariance", [1], "must be a list, got 1"),
        ("coefficients", [1, 2, "3"], "must be finite numbers, got"),
        ("standard_errors", [1, 2], "must be 3 numbers, or none, got"),
        ("standard_errors", [1, 2, "3"], "must be 3 numbers, or none, got"),
    ],
)  # fmt: skip
def test_a_figure_of_the_wrong_kind_is_named(name: str, value: object, wanted: str) -> None:
    with pytest.raises(ProfileError, match=rf"^profiles\[0\]\.runtime\.{name}.*: {wanted}"):
        ProfileSet.from_json(changed((*FIRST, "runtime", name), value))


@given(st.integers(0, len(SET.to_json()) - 3))
def test_a_file_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(ProfileError):
        ProfileSet.from_json(SET.to_json()[:length])
