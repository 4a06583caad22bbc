"""Whatever the bytes are: a tree with places, or one clear SpecError."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest

from agent.model.errors import SpecError
from agent.model.positions import LARGEST_FILE, Node, parse, to_plain


def plain(text: str | bytes) -> Any:
    return to_plain(parse(text.encode() if isinstance(text, str) else text, "f.yaml"))


def failure(text: str | bytes) -> str:
    with pytest.raises(SpecError) as caught:
        plain(text)
    return str(caught.value)


def test_places_count_from_one() -> None:
    tree = parse(b"a:\n  - b: c\n", "f.yaml")
    inner = tree.entries["a"].node.value[0].entries["b"]
    assert (str(inner.place), str(inner.node.place)) == ("f.yaml:2:5", "f.yaml:2:8")


def test_scalars() -> None:
    text = "{a: 1, b: 0x10, c: 1.5, d: true, e: yes, f: ~, g: '1', h: 2020-01-01, i: 1_000, j: -3, k: !!str 5, l: 0o17}"
    values = {"a": 1, "b": 16, "c": 1.5, "d": True, "e": "yes", "f": None, "g": "1", "h": "2020-01-01"}
    assert plain(text) == values | {"i": 1000, "j": -3, "k": "5", "l": 15}


def test_json_with_tabs_and_surrogates() -> None:
    assert plain('{\n\t"a":\t[1, "\\ud83d\\ude00", "\\/", "a\\tb"]\n}') == {"a": [1, "\U0001f600", "/", "a\tb"]}
    assert plain('{"a": "\\ud83d"}')["a"].encode("utf-8")  # a lone half becomes something that can be written


def test_anchors_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\none: {<<: *b, y: 9}\ntwo:\n  <<: [*b, *m]\n"
    assert plain(text)["one"] == {"x": 1, "y": 9}
    assert plain(text)["two"] == {"x": 1, "y": 2, "z": 4}


def test_a_bom_is_no_error() -> None:
    assert plain(b"\xef\xbb\xbfa: 1") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: key 'a' is given twice; the first is on line 1"),
        ("a:\n\tb: 1", "f.yaml:2:1: not valid YAML: "),
        ("a:\n\tb: 1", "indent with spaces: YAML does not allow tabs"),
        ("a: b: c", "f.yaml:1:5: not valid YAML: mapping values are not allowed here"),
        ("a: [1", "not valid YAML: while parsing a flow sequence"),
        ("a: *nope", "f.yaml:1:4: not valid YAML: found undefined alias 'nope'"),
        ("a: &a [*a]", "f.yaml:1:4: an alias refers to what it is part of"),
        ("a: &a {b: *a}", "an alias refers to what it is part of"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: !!python/object:os.system x", "f.yaml:1:4: the tag !!python/object:os.system is not supported"),
        ("a: !secret x", "the tag !secret is not supported"),
        ("a: !!binary aGk=", "the tag !!binary is not supported"),
        ("? [1]\n: 2", "f.yaml:1:3: a key must be text"),
        ("<<: 5", "'<<' needs a mapping"),
        ("<<: [5]", "'<<' needs a mapping"),
        ("a: " + "9" * 5000, "not a number that can be read"),
        ("a: 1e999", "not a number that can be read"),
        (b"a: 1\nb: \xff\n", "f.yaml:2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "the text is UTF-16"),
        (b"\x7fELF\x02\x01\x01\x00", "is not allowed in YAML"),
        (b"\x00" * 100, "is not allowed in YAML"),
        ("[" * 1000, "nested too deeply"),
        ("{a: " * 70 + "}" * 70, "nested too deeply"),
        (b"a" * (LARGEST_FILE + 1), "at most 1048576 bytes"),
    ],
)
def test_what_cannot_be_read(text: str | bytes, says: str) -> None:
    assert says in failure(text)


def test_a_bomb_does_not_go_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "too many values" in failure("\n".join(lines))


def test_a_bomb_of_merge_keys_does_not_go_off() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}], k{n}: 1}}" for n in range(1, 12)]
    assert "too many values" in failure("\n".join(lines))


def test_one_anchor_twice_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plain("a: &x 1\nb: &x 2\nc: *x") == {"a": 1, "b": 2, "c": 2}


def test_damaged_files_never_raise_anything_else() -> None:
    """Bytes flipped, cut and doubled at random in a real specification."""
    chance = random.Random(5)
    good = (
        b"metadata: {name: a}\nspec: &s\n  env:\n  - {name: A, value: 'x'}\n  build: {<<: *s}\n"
        b'  x: "a\\u00e9"\n  z: |\n    text\n  y: !!int 5\n? q\n: >-\n  folded\n'
    )
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b"\t", b"*", b"&", b"!", b"\x80", b": ", b"- ", b"{", b"'", b"%"]
            )
        try:
            assert isinstance(parse(bytes(data), "f.yaml"), Node)
        except SpecError as error:
            assert str(error).startswith("f.yaml")
