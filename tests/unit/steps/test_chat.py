"""Which tokens the loss is taken on, with a toy tokenizer whose template is plain to see."""

import re

import pytest

from steps.chat import IGNORED, encode
from steps.messages import Conversation


class Letters:
    """One token a character, ``<...>`` as one special token."""

    eos_token: str | None = "<e>"
    eos_token_id: int | None = 1
    all_special_ids: list[int] = [1, 2]

    def __init__(self, end="<e>\n", think=False):
        self.end = end
        self.think = think

    def apply_chat_template(self, conversation, *, tokenize=True, add_generation_prompt=False, **_):
        assert not tokenize
        messages = conversation
        text = "".join(f"{m['role'][0]}:{m['content']}{self.end}" for m in messages)
        return text + (f"a:{'<t>' if self.think else ''}" if add_generation_prompt else "")

    def decode(self, ids):
        return "".join({1: "<e>", 2: "<t>"}.get(i, chr(i)) for i in ids)

    def __call__(self, text, **_):
        spans = [match.span() for match in re.finditer(r"<\w>|.|\n", text)]
        ids = [{"<e>": 1, "<t>": 2}.get(text[a:b], ord(text[a])) for a, b in spans]
        return {"input_ids": ids, "offset_mapping": spans}


def supervised(tokenizer, messages, **options):
    row = encode(tokenizer, Conversation(messages), **{"assistant_only": True, "max_tokens": 999, **options})
    assert len(row.ids) == len(row.labels)
    assert all(label in (IGNORED, token) for token, label in zip(row.ids, row.labels, strict=True))
    return "".join({1: "<e>", 2: "<t>"}.get(label, chr(label)) for label in row.labels if label != IGNORED)


def turns(*contents):
    return [{"role": ("ua"[i % 2] == "u" and "user") or "assistant", "content": c} for i, c in enumerate(contents)]


def test_the_answer_and_its_end_token_are_supervised_and_nothing_else():
    assert supervised(Letters(), turns("hi", "yes")) == "yes<e>"


def test_every_answer_of_several_turns_is_supervised():
    assert supervised(Letters(), turns("q1", "a1", "q2", "a2")) == "a1<e>a2<e>"


def test_a_system_turn_is_not_supervised():
    assert supervised(Letters(), [{"role": "system", "content": "be brief"}, *turns("q", "ok")]) == "ok<e>"


def test_an_answer_equal_to_its_question_is_found_in_its_own_place():
    row = encode(Letters(), Conversation(turns("same", "same")), assistant_only=True, max_tokens=99)
    assert [i for i, label in enumerate(row.labels) if label != IGNORED] == [10, 11, 12, 13, 14]


def test_a_template_that_opens_thoughts_in_its_prompt_alone_still_supervises_the_answer():
    assert supervised(Letters(think=True), turns("q", "a")) == "a<e>"


def test_a_template_without_an_end_token_gets_one():
    assert supervised(Letters(end="\n"), turns("q", "yes")) == "yes<e>"


def test_the_whole_row_is_supervised_where_the_config_says_so():
    assert supervised(Letters(), turns("hi", "yes"), assistant_only=False) == "u:hi<e>\na:yes<e>"


def test_long_rows_are_cut_at_their_end():
    row = encode(Letters(), Conversation(turns("hi", "yes")), assistant_only=True, max_tokens=9)
    assert len(row.ids) == 9
    assert row.supervised == 1


@pytest.mark.parametrize(("labels", "count"), [((5, 5, IGNORED), 1), ((IGNORED, 5, 5), 2), ((5,), 0)])
def test_the_first_token_of_a_row_is_never_predicted(labels, count):
    from steps.chat import Encoded

    assert Encoded((1,) * len(labels), labels).supervised == count
