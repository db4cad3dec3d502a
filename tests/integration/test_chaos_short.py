"""The short form of the chaos suite: what needs no engine to start anew, on the shared cluster.

Here is one router replica: while it is replaced, or HAProxy is, clients are refused. `make chaos`
runs all cases on several raylets.
"""

from __future__ import annotations

import pytest
from chaos.cases import CASES, Case
from chaos.running import Row, questions, run_case
from chaos.site import Site
from chaos.strict_client import Fate, Question
from live_cluster import Cluster

pytestmark = pytest.mark.integration

# Others of the tests add models.
ROUTING = {"weights": {"accuracy": 1}, "models": ["tiny-phi3", "tiny-mistral"]}


@pytest.fixture(scope="module")
def site(cluster: Cluster) -> Site:
    site = Site(cluster)
    site.wait_until_well(60)
    return site


@pytest.fixture(scope="module")
def asked(site: Site) -> list[Question]:
    return questions(site, ROUTING, repeating=("tiny-mistral",))


@pytest.mark.parametrize("case", [c for c in CASES if c.short], ids=lambda case: case.name)
def test_nothing_is_lost_and_nothing_cut_looks_whole(
    site: Site, asked: list[Question], case: Case
) -> None:
    row: Row = run_case(site, case, asked)
    print(row.to_dict())
    assert row.problems == []
    assert row.fates[Fate.CUT] == row.lost == 0
    assert row.well_after_s is not None
    assert row.whole_afterwards == row.afterwards == len(asked)
    if not case.in_front:
        # What breaks in front breaks the connections of all who ask in the meantime.
        assert row.fates[Fate.WHOLE] + row.fates[Fate.CONTINUED] > 0
        assert row.fates[Fate.TRANSPORT] == 0
