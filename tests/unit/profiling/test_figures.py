from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from profiling.figures.dominance import cells, winners
from profiling.figures.predictions import Comparison, draw_predictions
from profiling.figures.style import COLORS, house_style, label_points, model_styles, new_figure
from profiling.figures.tradeoffs import pareto_front
from scheduler.profiles import LinearModel, ModelProfile
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
