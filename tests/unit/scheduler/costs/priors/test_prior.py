import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.costs.forms import ENGINE, SHARES
from scheduler.costs.priors.accelerators import TABLE_FILE, AcceleratorTable
from scheduler.costs.priors.library import library_for, library_profile, shipped_library
from scheduler.costs.priors.model_card import ModelCard
from scheduler.costs.priors.origins import MODEL_CARD
from scheduler.costs.priors.prior import (
    Accelerator,
    Efficiencies,
    card_profile,
    predict_from_card,
    spreads_of,
    without_zeros,
)
from scheduler.errors import ModelCardError, ProfileError

PLAIN = Efficiencies(
    bandwidth=0.5, compute=0.5, narrow=0.5, narrow_experts=0.5, layer_s=1e-3, link_s=1e-3,
    bend_s=0.02, sequence_s=0.001, request_s=0.1, static_power=0.4, memory_power=0.2,
    compute_power=0.5, host_power=0.1, runtime_spread=0.2, energy_spread=0.3,
)  # fmt: skip
DEVICE = Accelerator("test", 1e12, {16: 1e14, 8: 2e14}, 10.0, 100.0, PLAIN)
# 10 billion weights of 2 bytes, 10 layers, a cache of 1 kB a token.
CARD = ModelCard(10, 1024, 10e9, 10e9, 0.0, 1.0, 2.0, 16, 1000.0, 1e6, 8)
TABLE = AcceleratorTable.shipped()


def test_the_roofline_by_hand() -> None:
    costs = predict_from_card(CARD, DEVICE)
    weights, token = 20e9 / 0.5e12, 2 * 10e9 / 0.5e14
    context = 1000 / 0.5e12 + 1e6 / 0.5e14
    assert costs.runtime == pytest.approx(
        (0.1, 0, weights + 0.01, 0.02, 0, token + 0.001, context, token, 0.5e6 / 0.5e14)
    )
    # 40 W while it works less 10 W idle; 20 W more while reading, 50 computing, 10 waiting.
    assert costs.energy == pytest.approx(
        (
            40 * 0.1,
            80 * token,
            80 * token + 40 * 0.001,
            40 * 0.02,
            0,
            50 * weights + 40 * 0.01,
            50 * 1000 / 0.5e12 + 80 * 1e6 / 0.5e14,
            80 * 0.5e6 / 0.5e14,
        )
    )
    total = predict_from_card(CARD, DEVICE, above_idle=False)
    assert total.energy[1] == pytest.approx(90 * token)
    assert (costs.runtime_spread, costs.energy_spread) == (0.2, 0.3)


def test_two_devices_share_weights_and_talk() -> None:
    one, two = (predict_from_card(CARD, DEVICE, n) for n in (1, 2))
    assert two.runtime[2] == pytest.approx(0.02 + 10 * 2e-3)
    assert two.runtime[7] == pytest.approx(one.runtime[7] / 2)


@pytest.mark.parametrize(("share", "faster"), [(0.5, 1.0), (0.75, 1.5), (0.2, 1.0)])
def test_narrow_numbers_compute_faster_but_not_twice(share: float, faster: float) -> None:
    device = replace(DEVICE, efficiencies=replace(PLAIN, narrow=share))
    narrow = predict_from_card(replace(CARD, compute_bits=8), device)
    wide = predict_from_card(CARD, device)
    assert narrow.runtime[7] == pytest.approx(wide.runtime[7] / faster)


@pytest.mark.parametrize("name", ["A100", "A10G", "H100", "B200", "L4", "MI300X", "cpu"])
@pytest.mark.parametrize(("width", "weight_bytes"), [(8, 1.0), (4, 0.53)])
@pytest.mark.parametrize("experts", [0.0, 9e9])
@pytest.mark.parametrize("request_", [(100, 500, 256), (8000, 10, 64), (100, 500, 1)])
def test_narrow_weights_cost_no_more_than_wide_ones(
    name: str, width: int, weight_bytes: float, experts: float, request_: tuple[int, int, int]
) -> None:
    device = TABLE.find(name)
    wide = replace(CARD, expert_parameters=experts, active_share=1 / 16 if experts else 1.0)
    narrow = replace(wide, compute_bits=width, weight_bytes=weight_bytes)
    few, many = (card_profile("m", card, device) for card in (narrow, wide))
    assert few.runtime.predict(*request_) <= many.runtime.predict(*request_)
    assert few.energy.predict(*request_) <= many.energy.predict(*request_)


def test_a_device_without_narrow_units_computes_in_16_bits() -> None:
    mixture = replace(CARD, always_read=1e9, expert_parameters=9e9, active_share=1 / 16)
    narrow = replace(mixture, compute_bits=8)
    assert predict_from_card(narrow, TABLE.find("A100")) == predict_from_card(
        mixture, TABLE.find("A100")
    )


def test_a_mixture_costs_more_and_more_weights() -> None:
    mixture = replace(CARD, always_read=1e9, expert_parameters=9e9, active_share=1 / 16)
    costs = predict_from_card(mixture, DEVICE)

    def read(c: float) -> float:
        step = costs.runtime[2] - 0.01 + (costs.runtime[3] - 0.02) * c / (c + 16)
        return (step + costs.runtime[4] * math.sqrt(c)) * 0.5e12 / 2

    for c in (1, 8, 64, 512):
        assert read(c) == pytest.approx(mixture.weights_read(c), rel=0.25)


@given(
    card=st.builds(
        lambda layers, always, experts, share, width: ModelCard(
            layers, 1024, always + experts, always, experts, share, width / 8, width, 1e5, 1e6, 8
        ),
        st.integers(1, 200),
        st.floats(1e6, 1e12),
        st.just(0.0) | st.floats(1e6, 1e12),
        st.floats(1e-3, 1),
        st.sampled_from([4, 8, 16, 32]),
    ),
    device=st.sampled_from(TABLE.accelerators),
    devices=st.sampled_from([1, 2, 4, 8]),
)
def test_every_card_costs_something_and_nothing_below_zero(
    card: ModelCard, device: Accelerator, devices: int
) -> None:
    profile = card_profile("m", card, device, devices)
    for model in (profile.runtime, profile.energy):
        assert min(model.coefficients) >= 0
        costs = [model.predict(100, 100, c) for c in (1, 4, 64, 1024)]
        assert min(costs) > 0
        assert math.isfinite(max(costs))
    assert profile.origin == MODEL_CARD
    assert profile.runtime.n == 0


def test_a_tensor_parallel_degree_below_one() -> None:
    with pytest.raises(ModelCardError, match="tensor_parallel: must be 1 or more, got 0"):
        predict_from_card(CARD, DEVICE, 0)


def test_zeros_become_small() -> None:
    held = without_zeros(SHARES, (0, 0, 1, 0, 0, 0, 0, 0))
    assert min(held) > 0
    # Of 256 J for 256 + 256 tokens.
    assert held[:3] == pytest.approx((0.02 * 256, 0.02, 1))
    assert held[6] * 256 * 384 == pytest.approx(2e-4 * 256)
    assert len(spreads_of(ENGINE)) == 9
    with pytest.raises(ModelCardError, match="must predict a cost above 0"):
        without_zeros(SHARES, (0.0,) * 8)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("h100", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("AMD Instinct MI300X", "MI300X"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
        ("cpu", "cpu"),
    ],
)
def test_finds_devices_as_their_drivers_call_them(name: str, found: str) -> None:
    device = TABLE.find(name)
    assert device.name == found
    assert "is not in the table" not in device.note


def test_a_device_that_is_not_in_the_table() -> None:
    device, h100 = TABLE.find("NVIDIA H800"), TABLE.find("H100")
    assert device.name == "H100"
    assert "'NVIDIA H800' is not in the table; the figures of 'H100'" in device.note
    assert device.efficiencies.runtime_spread > h100.efficiencies.runtime_spread
    profile = card_profile("m", CARD, device, name="NVIDIA H800")
    assert profile.accelerator == "NVIDIA H800"
    assert "not in the table" in profile.source
    with pytest.raises(ModelCardError, match="accelerator: must be a name, got ''"):
        TABLE.find("")


def test_every_figure_of_the_table_has_a_source() -> None:
    table = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    for entry in table["accelerators"].values():
        figures = {"bandwidth_gb_per_s", "teraflops", "idle_watts", "board_watts"}
        assert set(entry["source"]) == figures
        assert all(entry["source"].values())
    assert all(entry["source"] for entry in table["efficiencies"].values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["accelerators"]["H100"].pop("idle_watts"), "idle_watts: missing"),
        (lambda t: t["accelerators"]["H100"].update(board_watts="x"), "H100: board_watts: .*'x'"),
        (lambda t: t["efficiencies"]["cpu"].pop("layer_s"), "layer_s: missing"),
        (lambda t: t["accelerators"].clear(), "the table is empty"),
        (lambda t: t["accelerators"]["H100"].update(teraflops={"16": 0}), "teraflops: must be"),
    ],
)
def test_a_broken_table_names_the_entry(change: Callable[[Any], object], message: str) -> None:
    table = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    change(table)
    with pytest.raises(ModelCardError, match=message):
        AcceleratorTable.from_json(json.dumps(table))


def test_the_library_has_each_model_once_with_its_fewest_devices() -> None:
    library = shipped_library()
    profiles = library_for(library, "h100").profiles
    models = [profile.model for profile in profiles]
    assert len(models) == len(set(models)) > 5
    assert all(p.accelerator.endswith("H100") and "ML.ENERGY" in p.source for p in profiles)
    (large,) = [p for p in profiles if p.model == "Qwen/Qwen3-30B-A3B-Instruct-2507"]
    assert large.accelerator == "H100"
    assert {p.accelerator for p in library_for(library, "2 x H100").profiles} == {"2 x H100"}
    with pytest.raises(ProfileError, match="nothing for 'a100', only for B200, H100"):
        library_for(library, "a100")


def test_the_library_entry_of_a_source_on_a_device() -> None:
    library = shipped_library()
    entry = library_profile(library, "Qwen/Qwen3-8B", "NVIDIA H100 80GB HBM3")
    assert entry is not None
    assert entry.energy.predict(100, 500, 8) > 3 * entry.energy.predict(100, 500, 128)
    assert library_profile(library, "Qwen/Qwen3-8B", "NVIDIA H100 80GB HBM3", 4) is None
    assert library_profile(library, "Qwen/Qwen3-8B", "NVIDIA A100-SXM4-80GB") is None
    assert library_profile(library, "Qwen/Qwen3-8B", "NVIDIA H800") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2 x H100", "must be one device, got '2 x H100'"),
        ("8xA100", "must be one device, got '8xA100'"),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "is a MIG slice"),
        ("", "must be a name, got ''"),
    ],
)
def test_a_prior_is_of_a_whole_device(name: str, message: str) -> None:
    with pytest.raises(ModelCardError, match=f"accelerator: .*{message}"):
        TABLE.find_whole(name)
    assert TABLE.find_whole("NVIDIA H100 80GB HBM3") == TABLE.find("H100")


def test_the_library_has_nothing_for_a_slice() -> None:
    library = shipped_library()
    assert library_profile(library, "Qwen/Qwen3-8B", "NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
