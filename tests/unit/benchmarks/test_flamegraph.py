from flamegraph import Profile, as_json, retitled, tables
from rich.console import Console

RAW = """\
main (app/main.py:1);serve (uvicorn/server.py:2);parse (json/decoder.py:3) 30
main (app/main.py:1);serve (uvicorn/server.py:2) 10
main (app/main.py:1);walk (app/tree.py:4);walk (app/tree.py:4) 60
"""
PROFILE = Profile.from_raw(RAW)


def test_samples_in_the_function_itself() -> None:
    assert PROFILE.samples == 100
    assert PROFILE.own == {
        "walk (app/tree.py:4)": 60,
        "parse (json/decoder.py:3)": 30,
        "serve (uvicorn/server.py:2)": 10,
    }


def test_recursion_counts_once_and_what_everything_runs_in_not_at_all() -> None:
    assert "main (app/main.py:1)" not in PROFILE.cumulative
    assert PROFILE.cumulative["serve (uvicorn/server.py:2)"] == 40
    assert PROFILE.cumulative["walk (app/tree.py:4)"] == 60


def test_by_package() -> None:
    assert PROFILE.packages == {"app": 60, "json": 30, "uvicorn": 10}
    assert Profile.from_raw("select (selectors.py:5) 2").packages == {"selectors": 2}
    assert Profile.from_raw("__init__ (<string>:2) 3").packages == {"<string>": 3}


def test_the_largest_shares_are_printed() -> None:
    console = Console(width=110)
    with console.capture() as capture:
        for table in tables("router", PROFILE, top=1):
            console.print(table)
    text = " ".join(capture.get().split())
    assert text.count("60.0% walk (app/tree.py:4)") == 2
    assert "60.0% app" in text
    assert "parse" not in text


def test_json_has_shares() -> None:
    assert as_json(PROFILE, top=2)["self"] == {
        "walk (app/tree.py:4)": 0.6,
        "parse (json/decoder.py:3)": 0.3,
    }


def test_the_picture_gets_a_title_of_its_own() -> None:
    svg = '<svg><text id="title" x="50%">/home/me/py-spy record</text><text x="1">main</text></svg>'
    assert retitled(svg, "1 -> 2") == (
        '<svg><text id="title" x="50%">1 -&gt; 2</text><text x="1">main</text></svg>'
    )
