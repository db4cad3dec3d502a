"""The short form of the hostile suite, on the shared cluster: bad requests harm only their senders.

`make hostile` runs the whole corpus, in all its forms, on a cluster of its own.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from chaos.site import Site
from hostile.cases import Target
from hostile.corpus import corpus
from hostile.report import figures, problems
from hostile.running import Options, Outcome, run
from live_cluster import Cluster

pytestmark = pytest.mark.integration

# Others of the tests add models.
MODELS = ("tiny-phi3", "tiny-mistral")
OPTIONS = Options(seconds=75, baseline_s=8, rate=3, forms=1, thorough=False, recovery_s=200)


@pytest.fixture(scope="module")
def outcome(cluster: Cluster) -> Outcome:
    site = Site(cluster)
    site.wait_until_well(60)
    address = urlsplit(cluster.url)
    assert address.hostname is not None
    assert address.port is not None
    target = Target((address.hostname, address.port), MODELS)
    cases = [case for case in corpus() if case.short]
    outcome = run(target, cases, OPTIONS, print)
    for line in problems(outcome):
        print(line)
    for name, value, goal in figures(outcome):
        print(f"{name}: {value} (goal: {goal})")
    return outcome


def test_no_ordinary_request_fails(outcome: Outcome) -> None:
    failed = [f"{row.case.name}: {a.kind}: {a.fault}" for row in outcome.rows for a in row.failed]
    assert failed == []
    assert sum(row.ordinary for row in outcome.rows) > 0


def test_no_replica_is_lost(outcome: Outcome) -> None:
    assert outcome.watched
    assert [f"{row.case.name}: {p}" for row in outcome.rows for p in row.lost] == []


def test_every_answer_is_right(outcome: Outcome) -> None:
    assert outcome.rows
    assert [line for line in problems(outcome) if line.startswith("WRONG")] == []
