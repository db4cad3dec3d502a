"""What the benchmark of the record writes is what the router writes."""

from record import build_record


def test_the_record_is_one_of_a_finished_decision() -> None:
    built = build_record()

    assert [attempt["model"] for attempt in built["attempts"]] == [built["model"]]
    assert built["observation"]["model"] == built["model"]
