from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from deployments.router.access.keys import ApiKey, KeyFileError, KeyRing, hash_of, main, read_keys


def key(name: str, secret: str | None = None, **fields: object) -> ApiKey:
    return ApiKey.model_validate({"name": name, "sha256": hash_of(secret or name), **fields})


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    return str(path)


def test_only_hashes_are_kept() -> None:
    assert hash_of("secret") == hashlib.sha256(b"secret").hexdigest()
    assert "secret" not in repr(key("ann", "secret"))


@pytest.mark.parametrize(
    ("variable", "secrets"), [("", []), (" , ,", []), ("a", ["a"]), (" a, b c ,a", ["a", "b c"])]
)
def test_keys_of_the_variable_may_do_everything(variable: str, secrets: list[str]) -> None:
    keys = read_keys(None, variable)
    assert [k.sha256 for k in keys] == [hash_of(secret) for secret in secrets]
    assert all(k.admin and k.tokens_per_day is None for k in keys)
    assert [k.name for k in keys] == [f"environment-{n + 1}" for n in range(len(secrets))]


def test_keys_of_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"""
# whose
- {{name: ann, sha256: {hash_of("a")}, admin: true}}
- {{name: bob, sha256: {hash_of("b")}, requests_per_minute: 60, joules_per_day: 1.5e6}}
""",
    )
    assert read_keys(path, "") == (
        key("ann", "a", admin=True),
        key("bob", "b", requests_per_minute=60, joules_per_day=1.5e6),
    )
    assert [k.name for k in read_keys(path, "c")] == ["environment-1", "ann", "bob"]
    assert read_keys(written(tmp_path, ""), "") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: ann}", "0.sha256: Field required"),
        ("- {name: ann, sha256: abc}", "0.sha256"),
        ("- {name: 'a b', sha256: " + hash_of("a") + "}", "0.name"),
        ("- {name: ann, sha256: " + hash_of("a") + ", tokens_per_day: 0}", "0.tokens_per_day"),
        ("- {name: ann, sha256: " + hash_of("a") + ", limit: 1}", "0.limit"),
        ("ann", "tuple"),
        ("[", "while parsing"),
        (f"- {{name: ann, sha256: {hash_of('a')}}}\n- {{name: ann, sha256: {hash_of('b')}}}",
         "two keys have the name 'ann'"),
        (f"- {{name: ann, sha256: {hash_of('a')}}}\n- {{name: bob, sha256: {hash_of('a')}}}",
         "two keys have the sha256"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(KeyFileError, match=message) as raised:
        read_keys(path, "")
    assert path in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_keys(str(tmp_path / "none.yaml"), "")


def test_a_ring_finds_the_key_of_a_header() -> None:
    ann, bob = key("ann", "a"), key("bob", "b")
    ring = KeyRing([ann, bob])
    assert ring.find([(b"authorization", b"Bearer a")]) == ann
    assert ring.find([(b"authorization", b"bearer  b ")]) == bob
    assert ring.find([(b"x-api-key", b"a")]) == ring.find([(b"api-key", b" a")]) == ann
    assert ring.find([(b"x-api-key", b"b"), (b"authorization", b"Bearer a")]) == ann
    for wrong in (b"Bearer c", b"Basic a", b"a", b"", b"Bearer " + ann.sha256.encode()):
        assert ring.find([(b"authorization", wrong)]) is None
    assert ring.find([]) is None
    assert ring
    assert not KeyRing([])


def test_a_new_key_is_printed_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--name", "ann", "--admin", "--tokens-per-day", "1000", "--joules_per_minute", "2.5"]
    seen = set()
    for _ in range(2):
        assert main(["new", *options]) == 0
        paragraphs = capsys.readouterr().out.split("\n\n")
        secret, line = paragraphs[1], paragraphs[3]
        (entry,) = yaml.safe_load(line)
        assert list(entry) == ["name", "sha256", "admin", "tokens_per_day", "joules_per_minute"]
        assert line.count("\n") == 1
        (made,) = read_keys(written(tmp_path, line), "")
        assert made.name == "ann"
        assert KeyRing([made]).find([(b"x-api-key", secret.encode())]) == made
        assert secret.startswith("dls-")
        assert len(secret) == 4 + 43
        seen.add(secret)
    assert len(seen) == 2


@pytest.mark.parametrize(
    "options", [[], ["--name", "a b"], ["--name", "a", "--tokens_per_day", "0"]]
)
def test_a_key_that_the_file_would_not_take_is_not_made(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["new", *options])
    assert raised.value.code == 2
    assert "dls-" not in capsys.readouterr().out
