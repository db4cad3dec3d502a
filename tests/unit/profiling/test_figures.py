from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from profiling.figures.concurrency import joules_per_token
from profiling.figures.dominance import cells, winners
from profiling.figures.predictions import Comparison, draw_predictions
from profiling.figures.residuals import draw_residuals
from profiling.figures.sensitivity import draw_sensitivity, sweep, with_weight
from profiling.figures.style import COLORS, house_style, label_points, model_styles, new_figure
from profiling.figures.tradeoffs import pareto_front
from profiling.replay.predictions import PredictedCost
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.preferences import Metric, Weights
from scheduler.types import ClusterState, ModelState, RoutingRequest


def test_pareto_front_by_hand() -> None:
    x = {"cheap": 1.0, "middle": 2.0, "beaten": 2.5, "best": 4.0, "worst": 5.0}
    y = {"cheap": 9.0, "middle": 5.0, "beaten": 6.0, "best": 1.0, "worst": 9.0}
    assert pareto_front(x, y) == ["cheap", "middle", "best"]


def test_pareto_front_of_equals_names_one() -> None:
    assert pareto_front({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 2.0}) == ["a"]


@given(
    st.dictionaries(
        st.text(max_size=3), st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=8
    )
)
def test_pareto_front_holds_just_what_nothing_beats(points: dict[str, tuple[float, float]]) -> None:
    x = {name: point[0] for name, point in points.items()}
    y = {name: point[1] for name, point in points.items()}
    front = pareto_front(x, y)

    def beaten(name: str) -> bool:
        return any(
            x[other] <= x[name] and y[other] <= y[name] and points[other] != points[name]
            for other in points
        )

    assert {points[name] for name in front} == {points[n] for n in points if not beaten(n)}


@given(st.integers(1, 25))
def test_cells_tile_the_simplex(resolution: int) -> None:
    grid = cells(resolution)
    assert len(grid) == resolution**2
    assert len({cell.center for cell in grid}) == resolution**2
    for cell in grid:
        assert sum(cell.center) == pytest.approx(1)
        assert min(cell.center) > 0
        area = abs(np.linalg.det(np.array(cell.corners)))
        assert area == pytest.approx(1 / resolution**2)


def profile(model: str, cost: float, accuracy: float) -> ModelProfile:
    linear = LinearModel("linear", (cost, 0.0, 0.0))
    return ModelProfile(model, "cpu", linear, linear, "nvml", (1, 99), (1, 99), accuracy=accuracy)


def test_winners_are_the_schedulers() -> None:
    state = ClusterState(
        tuple(
            ModelState(p.model, profile=p)
            for p in (profile("cheap", 1, 0.3), profile("good", 9, 0.9))
        ),
        "v",
    )
    request = RoutingRequest("d", {"cheap": 10, "good": 10})
    grid = cells(8)
    won = dict(zip((cell.center for cell in grid), winners(request, state, grid), strict=True))
    # Two models keep only the signs, so the better half of the weights decides.
    assert all(model == ("good" if center[0] > 0.5 else "cheap") for center, model in won.items())


def compared(role: str, predicted: list[float], ratio_high: float = 1.5) -> Comparison:
    return Comparison(
        model="m",
        target="runtime",
        role=role,
        regression=LinearModel("linear", (0.0, 0.0, 1.0), ratio_low=0.5, ratio_high=ratio_high),
        predicted=np.array(predicted),
        actual=np.array([8.0, 20.0, 40.0, 5.0]),
        concurrency=np.array([1.0, 1.0, 8.0, 8.0]),
    )


def test_errors_and_coverage_by_hand() -> None:
    comparison = compared("serves:", [10.0, 10.0, 40.0, -5.0])
    assert comparison.errors == pytest.approx([0.25, 0.5, 0, 2])
    assert comparison.coverage == pytest.approx(2 / 4)


def test_the_regressions_of_one_cost_share_their_axes_and_tell_their_errors() -> None:
    with house_style():
        figure = draw_predictions(
            [compared("for comparison:", [10, 10, 40, -5]), compared("serves:", [8, 20, 40, 5])],
            "trials.csv",
        )
    other, serving = figure.axes
    assert other.get_xlim() == other.get_ylim() == serving.get_xlim() == serving.get_ylim()
    assert other.get_title(loc="left").splitlines() == [
        "m, runtime",
        "for comparison: linear/ols",
        "MAPE 68.8% (alone 37.5%, loaded 100.0%)",
        "50% of 4 in the band; 1 predicted 0 or less",
    ]
    assert serving.get_title(loc="left").splitlines()[2:] == [
        "MAPE 0.0% (alone 0.0%, loaded 0.0%)",
        "100% of 4 in the band",
    ]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1", "8"]


def test_a_model_looks_the_same_in_every_order_and_no_two_look_alike() -> None:
    names = [f"model-{i}" for i in range(len(COLORS) * 2)]
    styles = model_styles(names)
    assert styles == model_styles(reversed(names))
    assert len({(style.color, style.marker) for style in styles.values()}) == len(names)


def test_names_do_not_cover_each_other_nor_points() -> None:
    points = {
        "smollm2-135m": (1.0, 1.0),
        "smollm2-135m-int8": (1.02, 1.01),
        "smollm2-135m-lite": (1.01, 0.99),
        "phi-3-mini": (1.9, 1.9),
    }
    with house_style():
        figure = new_figure(6, 5, "title", "subtitle")
        axes = figure.subplots()
        axes.set(xlim=(0, 2), ylim=(0, 2))
        figure.canvas.draw()
        label_points(axes, points, [])
        names = [t for t in axes.texts if isinstance(t, Annotation) and t.get_text()]
        boxes = [name.get_window_extent() for name in names]
        pixels = [axes.transData.transform(point) for point in points.values()]
        assert [name.get_text() for name in names] == list(points)
        assert not any(Bbox.intersection(a, b) for a, b in combinations(boxes, 2))
        assert not any(box.contains(*pixel) for box in boxes for pixel in pixels)
        frame = axes.get_window_extent()
        assert all(frame.containsx(box.x1) and frame.containsy(box.y1) for box in boxes)


def predicted_cost(ratio: float, target: str = "runtime", at: float = 0.0) -> PredictedCost:
    return PredictedCost("small", target, at, predicted=2.0, low=1.8, high=2.2, actual=2.0 * ratio)


def test_residuals_say_how_many_lie_in_their_intervals() -> None:
    requests = [
        predicted_cost(1.0),
        predicted_cost(1.05, at=100.0),
        predicted_cost(2.0, at=400.0),
        predicted_cost(1.0, at=600.0),
    ]
    with house_style():
        figure = draw_residuals(requests, model_styles(["small", "large"]), "log")
    runtime, energy = figure.axes
    assert runtime.get_title(loc="left") == (
        "Runtime: 4 requests, MAPE 13.7%, 75% inside their 90 % interval"
    )
    assert energy.get_title(loc="left") == "Energy: none measured"
    assert energy.get_xlabel() == "time since the first request (min)"
    ticks = {label.get_text() for label in runtime.get_yticklabels()}
    assert ticks == {"÷2", "÷1.5", "1", "×1.5", "×2"}
    # Both directions have the same room.
    low, high = runtime.get_ylim()
    assert low * high == pytest.approx(1)


def test_energy_per_token_by_model_and_concurrency() -> None:
    trials = pd.DataFrame(
        {
            "model": ["small"] * 4 + ["large"],
            "concurrency": [1, 1, 1, 8, 1],
            "output_tokens": [10, 10, 0, 10, 5],
            "energy_joules": [10.0, 30.0, 5.0, 5.0, 40.0],
        }
    )
    table = joules_per_token(trials).set_index(["model", "concurrency"])
    assert table.loc[("small", 1), "median"] == 2.0
    assert table.loc[("small", 1), "n"] == 2
    assert table.loc[("small", 8), "median"] == 0.5
    assert table.loc[("large", 1), "median"] == 8.0


def test_one_weight_moves_and_the_others_keep_their_ratio() -> None:
    moved = with_weight(Weights(accuracy=2, energy=1, time=1), Metric.ACCURACY, 0.2)
    assert [moved.accuracy, moved.energy, moved.time] == pytest.approx([0.2, 0.4, 0.4])
    alone = with_weight(Weights(accuracy=1, energy=0, time=0), Metric.ACCURACY, 0.5)
    assert [alone.accuracy, alone.energy, alone.time] == pytest.approx([0.5, 0.25, 0.25])


def test_a_weight_that_moves_hands_over_to_the_model_that_is_best_at_it() -> None:
    models = tuple(
        ModelState(m, profile=profile(m, cost, accuracy))
        for m, cost, accuracy in (("cheap", 1.0, 0.5), ("good", 4.0, 0.9))
    )
    state = ClusterState(models, "v1")
    request = RoutingRequest("d", dict.fromkeys(("cheap", "good"), 10), output_tokens=10)
    won = [decision.model for decision in sweep(request, state, Metric.ACCURACY, steps=10)]
    # Two candidates keep only the sign: at half of all the weight it is a tie, then it turns over.
    assert won == ["cheap"] * 5 + ["good"] * 6
    figure = draw_sensitivity(request, state, model_styles(["cheap", "good"]), "a request")
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["50%"], ["0%"], ["0%"]]
