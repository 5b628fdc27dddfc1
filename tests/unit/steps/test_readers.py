"""Whatever the rows and however they are cut by reading windows, they come out as they went in, or with a reason."""

import base64
import io
import json
import os
import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presets.errors import ConfigError, DataError
from steps import json_rows, table_rows
from steps.docker_config import Credentials, DockerConfig
from steps.messages import Conversation
from steps.near_duplicates import shingles, signatures
from steps.privacy import has_email, has_secret
from steps.registry_auth import challenges
from steps.row_keys import row_keys
from steps.scripts import script
from steps.spool import from_batch, to_batch

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=8)


class Slowly(io.BytesIO):
    """A stream that gives a few bytes at a time, as a window that cuts anywhere."""

    def __init__(self, data, step):
        super().__init__(data)
        self.step = step

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(self.step, size) if size and size > 0 else self.step)


@given(OBJECTS, st.integers(1, 40), st.sampled_from([None, 1, 4]), st.booleans())
def test_a_list_is_read_as_json_reads_it_wherever_the_window_cuts(rows, step, indent, ascii_only):
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", errors="surrogatepass")
    try:
        text.decode()
    except UnicodeDecodeError:
        return  # a lone surrogate is no UTF-8
    assert [value for _, value, _ in json_rows.elements(Slowly(text, step), "x")] == rows


@given(st.dictionaries(st.text(), JSON | st.integers(-(2**80), 2**80), max_size=4))
def test_a_line_is_read_as_json_reads_it_large_numbers_and_odd_characters_too(row):
    line = json.dumps(row).encode()
    assert list(json_rows.lines(io.BytesIO(line))) == [(1, row, None)]


def test_what_json_takes_beyond_its_standard_is_taken_in_lines_too():
    [(_, row, problem)] = json_rows.lines(io.BytesIO(b'{"a": NaN, "b": -Infinity}'))
    assert (str(row["a"]), row["b"], problem) == ("nan", float("-inf"), None)


@given(st.binary(max_size=200), st.integers(1, 40))
def test_any_bytes_give_rows_or_a_reason(data, step):
    for read in (lambda: json_rows.elements(Slowly(data, step), "x"), lambda: json_rows.lines(io.BytesIO(data))):
        try:
            list(read())
        except DataError as error:
            assert error.fix


@given(st.text(alphabet='[]{},:"0 \n\\ua1', max_size=60), st.integers(1, 9))
def test_what_json_refuses_is_refused_and_what_it_takes_is_taken(text, step):
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    try:
        found = [value for _, value, _ in json_rows.elements(Slowly(text.encode(), step), "x")]
    except DataError:
        found = None
    if isinstance(whole, list):
        assert found == whole
    elif whole is None:
        assert found is None


CELL = st.text(alphabet=string.ascii_letters + string.digits + " ,;\t\"\n'é€", max_size=12)


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_a_sheet_is_read_as_it_was_written(rows):
    import csv

    text = io.StringIO(newline="")
    csv.writer(text).writerows([("question", "answer"), *rows])
    found = list(table_rows.csv_rows(io.BytesIO(text.getvalue().encode()), "a.csv"))
    assert [(v["question"], v["answer"]) for _, v, problem in found if not problem] == rows


TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})


@given(st.lists(st.lists(TURN, min_size=1, max_size=3), min_size=1, max_size=5))
def test_rows_come_out_of_the_spool_as_they_went_in(rows):
    conversations = [Conversation(list(messages)) for messages in rows]
    try:
        json.dumps(rows, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return  # what no file can hold is replaced
    assert list(from_batch(to_batch(conversations))) == conversations


def test_tools_and_their_calls_come_out_of_the_spool():
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    answer = {"role": "tool", "content": "2", "name": "f", "tool_call_id": "1"}
    row = Conversation(
        [{"role": "user", "content": "q"}, call, answer, {"role": "assistant", "content": "2"}], [{"x": 1}]
    )
    plain = Conversation([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    assert list(from_batch(to_batch([row, plain]))) == [row, plain]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
def test_shingles_of_a_text_do_not_depend_on_its_neighbours(texts):
    import numpy as np

    encoded = [text.encode("utf-8", errors="replace") for text in texts]

    def of(parts):
        bounds = np.cumsum([0, *map(len, parts)])
        hashes, begins = shingles(np.frombuffer(b"".join(parts), dtype=np.uint8), bounds)
        return [hashes[a:b].tolist() for a, b in pairwise(begins)]

    assert of(encoded) == [of([part])[0] for part in encoded]


def pair(question, answer):
    return Conversation([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def test_signatures_do_not_depend_on_the_batch():
    rows = [pair(f"what is {i}", f"it is {i} and nothing else") for i in range(9)]
    whole = signatures(to_batch(rows))
    for index, row in enumerate(rows):
        alone = signatures(to_batch([row]))
        assert all(alone[name][0] == whole[name][index] for name in whole)


def test_case_and_white_space_make_no_other_row_and_words_do():
    keys = list(
        zip(*row_keys([pair(q, "a") for q in ("What is  it", "what\nis it", "what was it")], b"1"), strict=True)
    )
    assert keys[0][1] == keys[1][1] != keys[2][1]
    assert len({content for content, _ in keys}) == 3


@pytest.mark.parametrize(
    ("text", "secret", "email"),
    [
        ("AKIA" + "ABCD" * 4, True, False),
        ("-----BEGIN RSA PRIVATE KEY-----", True, False),
        ("hf_" + "aB3" * 12, True, False),
        ("risk-free and task-oriented", False, False),
        ("hf_hub_download(x)", False, False),
        ("write to ann@firm.io", False, True),
        ("write to ann@example.com or a@b.test", False, False),
        ("@decorator\ndef f(): pass", False, False),
    ],
)
def test_secrets_and_addresses_are_told_from_other_text(text, secret, email):
    assert (has_secret(text), has_email(text)) == (secret, email)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hello", "latin"),
        ("привет", "cyrillic"),
        ("你好", "han"),
        ("こんにちは世界", "japanese"),
        ("مرحبا", "arabic"),
        ("1 + 2", "none"),
    ],
)
def test_the_script_of_a_text_is_told(text, name):
    assert script(text) == name


CREDENTIALS = {"username": "u", "password": "p"}


@pytest.mark.parametrize(
    ("key", "registry", "repository", "found"),
    [
        ("ghcr.io", "ghcr.io", "a/b", True),
        ("https://ghcr.io/v1/", "ghcr.io", "a/b", True),
        ("ghcr.io/a", "ghcr.io", "a/b", True),
        ("ghcr.io/a", "ghcr.io", "ab/b", False),
        ("*.azurecr.io", "team.azurecr.io", "a", True),
        ("*.azurecr.io", "a.b.azurecr.io", "a", False),
        ("ghcr.io", "ghcr.io.evil.example", "a", False),
        ("https://index.docker.io/v1/", "docker.io", "library/x", True),
        ("localhost:5000", "localhost:5001", "a", False),
    ],
)
def test_credentials_go_to_their_registry_alone(key, registry, repository, found):
    config = DockerConfig([{"auths": {key: CREDENTIALS}}])
    assert (config.find(registry, repository) is not None) == found


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"auth": base64.b64encode(b"me:pass:word").decode()}, Credentials("me", "pass:word")),
        ({"username": "me", "password": "p"}, Credentials("me", "p")),
        ({"identitytoken": "t"}, Credentials(identity_token="t")),
        ({"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": "t"}, Credentials("<token>", "", "t")),
        ({"registrytoken": "t"}, Credentials(registry_token="t")),
        ({"auth": "no base64 \u00e9"}, None),
        ({}, None),
    ],
    ids=["auth", "user and password", "identity token", "both", "bearer token", "damaged", "empty"],
)
def test_every_form_of_entry_is_read(entry, found):
    assert DockerConfig([{"auths": {"r.io": entry}}]).find("r.io", "a") == found


HELPER = """#!/bin/sh
read server
echo "$1 $server" >> "$(dirname "$0")/asked"
case $server in
  r.io) echo '{"Username": "me", "Secret": "s"}' ;;
  token.io) echo '{"Username": "<token>", "Secret": "t"}' ;;
  https://index.docker.io/v1/) echo '{"Username": "hub", "Secret": "h"}' ;;
  odd.io) echo '{"Secret": "s"}' ;;
  text.io) echo 'not json' ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
@pytest.mark.parametrize(
    ("registry", "found"),
    [
        ("r.io", Credentials("me", "s")),
        ("token.io", Credentials(identity_token="t")),
        ("docker.io", Credentials("hub", "h")),
        ("unknown.io", None),
        ("odd.io", None),
        ("text.io", None),
    ],
)
def test_a_credential_helper_is_asked_as_docker_asks_it(tmp_path, monkeypatch, key, registry, found):
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    body = {key: {registry: "mine"} if key == "credHelpers" else "mine"}
    assert DockerConfig([body]).find(registry, "a") == found
    asked = {"docker.io": "https://index.docker.io/v1/"}.get(registry, registry)
    assert (tmp_path / "asked").read_text() == f"get {asked}\n"


@pytest.mark.parametrize("key", ["r.io", "https://r.io/v2/"])
def test_a_registrys_own_helper_stands_above_what_a_login_has_left(tmp_path, monkeypatch, key):
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    stale = {"auths": {"r.io": {"username": "old", "password": "old"}}}
    assert DockerConfig([{**stale, "credHelpers": {key: "mine"}}]).find("r.io", "a") == Credentials("me", "s")
    assert DockerConfig([{**stale, "credsStore": "mine"}]).find("r.io", "a") == Credentials("old", "old")


@pytest.mark.parametrize("text", ["[]", "null", '"x"', "{", "[" * 100_000])
def test_a_docker_config_that_is_none_is_refused_by_its_name(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        DockerConfig.read([path])


@pytest.mark.parametrize(
    "body",
    [{"auths": "x"}, {"auths": {"r.io": 5}}, {"credHelpers": {"r.io": 5}}, {"credHelpers": []}, {"credsStore": {}}],
)
def test_parts_of_it_that_are_none_hold_nothing(body):
    assert DockerConfig([body]).find("r.io", "a") is None


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ('Bearer realm="https://r/t",service="r"', {"bearer": {"realm": "https://r/t", "service": "r"}}),
        ('Basic realm="x"', {"basic": {"realm": "x"}}),
        ('Bearer Realm="https://r/t", Basic realm="x"', {"bearer": {"realm": "https://r/t"}, "basic": {"realm": "x"}}),
        (
            'Basic realm="a, b", Bearer realm=https://r/t',
            {"basic": {"realm": "a, b"}, "bearer": {"realm": "https://r/t"}},
        ),
        ("Negotiate", {"negotiate": {}}),
        ("", {}),
    ],
)
def test_every_challenge_of_a_header_is_read(header, found):
    assert challenges(header) == found


def test_a_helper_is_asked_for_its_registry_alone_and_never_by_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = DockerConfig([{"credHelpers": {"r.io": "mine", "evil.io": "../../bin/sh"}}])
    assert config.find("other.io", "a") is None
    assert config.find("evil.io", "a") is None
    assert config.find("r.io", "a") is None  # not installed


def test_the_longest_path_wins_and_the_first_file():
    def entry(name):
        return {"username": name, "password": "p"}

    first = {"auths": {"r.io": entry("host"), "r.io/a": entry("path")}}
    config = DockerConfig([first, {"auths": {"r.io/a/b": entry("later")}}])
    assert [config.find("r.io", repository).username for repository in ("a/b", "c")] == ["path", "host"]  # type: ignore[union-attr]
