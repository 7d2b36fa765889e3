"""What a model is asked, and how its answers are read: no token forges a line or a mark, and no answer is guessed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.explain import rules
from tests.explain.units import GOOD_HEAD, HEAD, NAMED, make_example, make_head, make_neuron
from warehouse.explain import prompts
from warehouse.explain.chat import Completion, TokenLogprob
from warehouse.explain.explainers import (
    OpenAIExplainer,
    TokenActivationExplainer,
    TokenPairExplainer,
    clean_explanation,
    cut_around_pair,
    cut_around_peak,
    find_strongest_pairs,
)
from warehouse.explain.parsing import expect_number, read_choices, read_numbers
from warehouse.explain.protocols import ExplanationRefused, UnusableAnswer

few = settings(max_examples=40, deadline=None)
hostile = st.text(
    st.one_of(st.sampled_from("\\\t\n\r\x00nt⟦⟧⟪⟫{}u \u2028\u202e\u200b\x85:?"), st.characters(exclude_categories=())),
    max_size=8,
)


def say(text: str, *, logprobs: tuple[TokenLogprob, ...] | None = None, is_cut: bool = False) -> Completion:
    return Completion(text, 10, 5, "rule-1", logprobs, is_cut)


def say_with_logprobs(text: str) -> Completion:
    """An answer by a model that is 90 % sure of each number."""
    tokens = [(token, *rules.give_logprobs(token, 5)) for token in rules.split_tokens(text)]
    return say(text, logprobs=tuple(TokenLogprob(*token) for token in tokens))


# tokens --------------------------------------------------------------------------------------------------------------


@few
@given(hostile)
@example("\\u{a}")
@example("\\\\n")
def test_any_token_is_written_on_one_line_without_marks_and_reads_back(token: str) -> None:
    written = prompts.escape(token)
    assert written.isprintable() and not set("⟦⟧⟪⟫") & set(written)
    assert prompts.unescape(written) == token


@few
@given(st.lists(hostile, min_size=1, max_size=8))
def test_lines_of_tokens_and_numbers_come_apart_again(tokens: list[str]) -> None:
    lines = prompts.to_lines(tokens, range(len(tokens))).split("\n")
    assert [prompts.unescape(line.split("\t")[0]) for line in lines] == tokens
    assert [int(line.split("\t")[1]) for line in lines] == list(range(len(tokens)))


@few
@given(st.lists(hostile.filter(bool), min_size=1, max_size=8), st.data())
def test_marks_are_around_the_marked_tokens_and_nothing_else(tokens: list[str], data: st.DataObject) -> None:
    marked = data.draw(st.sets(st.integers(0, len(tokens) - 1)))
    text = prompts.to_text(tokens, marked)
    inside = "".join(part.split("⟧")[0] for part in text.split("⟦")[1:])
    assert prompts.unescape(inside) == "".join(tokens[i] for i in sorted(marked))
    assert prompts.unescape(text.replace("⟦", "").replace("⟧", "")) == "".join(tokens)


def test_a_token_that_attends_to_itself_has_both_marks_and_neighbours_share_one() -> None:
    assert prompts.to_text(["a", " b", " c"], {1}, {1}) == "a⟦⟪ b⟫⟧ c"
    assert prompts.to_text(["a", " b", " c", " d"], {1, 2}) == "a⟦ b c⟧ d"


@few
@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1), st.floats(2.0**-9, 2.0**99, width=32))
def test_activations_read_as_the_paper_has_them(activations: list[float], largest: float) -> None:
    expected = [min(10, math.floor(10 * max(0.0, x) / largest)) for x in activations]
    assert prompts.to_scale(np.array(activations, np.float32), largest).tolist() == expected


def test_what_is_unknown_or_has_no_scale_reads_zero() -> None:
    assert prompts.to_scale(np.array([np.nan, 2.0], np.float32), 2.0).tolist() == [0, 10]
    assert prompts.to_scale(np.array([1.0], np.float32), 0.0).tolist() == [0]


# questions -----------------------------------------------------------------------------------------------------------


def test_a_neurons_prompt_shows_each_train_token_with_its_number_and_the_active_ones_again() -> None:
    job = make_neuron()
    (prompt,) = TokenActivationExplainer().prompts(job)
    question = prompt.messages[-1].content
    for excerpt in job.splits["train"]:
        lines = prompts.to_lines(excerpt.tokens, prompts.to_scale(excerpt.activations, job.max_activation).tolist())
        assert lines in question
    again = question.split("Only the active tokens:\n")[1].split("\n\n")[0].splitlines()
    assert len(again) == 3 * len(job.splits["train"]) and max(int(line.split("\t")[1]) for line in again) == 10
    held_out = job.splits["test"][0]
    assert prompts.to_lines(held_out.tokens, prompts.to_scale(held_out.activations, 8).tolist()) not in question


def test_a_heads_prompt_marks_its_strong_pairs_one_to_a_text_and_no_weak_ones() -> None:
    job = make_head()
    (prompt,) = OpenAIExplainer().prompts(job)
    texts = [line for line in prompt.messages[-1].content.splitlines() if line.startswith("Text ")]
    pairs = find_strongest_pairs(job.splits["train"], 10)
    strong = [prompts.to_text(example.tokens, {query}, {key}) for example, query, key in pairs[:5]]
    assert [text.split(": ", 1)[1] for text in texts] == strong


def test_each_example_unit_has_as_many_numbers_as_tokens_and_few_shots_are_answered() -> None:
    for ask in (prompts.ask_to_explain_tokens([], 1.0), prompts.ask_to_explain_pairs([])):
        assert [message.role for message in ask] == ["system", *["user", "assistant"] * 2, "user"]


def test_an_explainer_of_tokens_does_not_take_heads() -> None:
    with pytest.raises(UnusableAnswer, match="has activations by token_pair"):
        TokenActivationExplainer().prompts(make_head())
    with pytest.raises(UnusableAnswer, match="this explainer is for those by token_pair"):
        TokenPairExplainer().prompts(make_neuron())


def test_the_strongest_pairs_are_those_of_all_examples_together() -> None:
    weak, strong = (
        make_example(HEAD, rank, ["a", "b", "c"], np.array(values, np.float32))
        for rank, values in enumerate([[0, 1, 2, 0, 0, -5], [3, 0, 9, 0, 8, 0]])
    )
    found = [(e.rank, query, key) for e, query, key in find_strongest_pairs((weak, strong), 4)]
    assert found == [(1, 1, 1), (1, 2, 1), (1, 0, 0), (0, 1, 1)]


@few
@given(st.integers(1, 60), st.integers(4, 20), st.data())
def test_a_text_that_is_cut_keeps_its_pair(n_tokens: int, longest: int, data: st.DataObject) -> None:
    tokens = tuple(map(str, range(n_tokens)))
    query = data.draw(st.integers(0, n_tokens - 1))
    key = data.draw(st.integers(0, query))
    cut, new_query, new_key = cut_around_pair(tokens, query, key, longest)
    assert (cut[new_query], cut[new_key]) == (str(query), str(key)) and len(cut) <= longest + 1


def test_a_record_that_is_cut_keeps_its_strongest_token() -> None:
    whole = make_neuron(n_tokens=90).splits["train"][0]
    cut = cut_around_peak(whole, 10)
    assert len(cut.tokens) == len(cut.activations) == 10 and cut.activations.max() == whole.activations.max()


def test_a_foreign_explanation_cannot_add_lines_or_marks_to_a_question() -> None:
    question = prompts.ask_to_detect("kings\n\nText 1: ⟦x⟧\u2028[1, 1]" + "y" * 5_000, ["a", "b"])[-1].content
    assert [line[:7] for line in question.splitlines()] == ["Explana", "", "Text 1:", "Text 2:"]
    assert "⟦" not in question and len(question) < 1_100


# answers -------------------------------------------------------------------------------------------------------------


@few
@given(st.lists(hostile, min_size=1, max_size=12), st.data())
def test_numbers_of_any_tokens_come_back_from_a_right_answer(tokens: list[str], data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, 10), min_size=len(tokens), max_size=len(tokens)))
    assert read_numbers(say(prompts.to_lines(tokens, numbers)), tokens).tolist() == numbers


TOKENS = ["The", " king", " 7", " the", "\n", " the", " of", " queen", ".", " king", " 2"]


ANSWER = "The\t0\n king\t10\n 7\t0\n the\t0\n\\n\t0\n the\t0\n of\t0\n queen\t10\n.\t0\n king\t9\n 2\t0"


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        "Here you are:\n```\n" + ANSWER.replace("\n ", "\n") + "\n```",
        ANSWER.replace("\t", " "),
        ANSWER.replace("\t", "\\t").replace("\n\\n\\t0", ""),
        ANSWER.replace("\\n", " X").replace("\t10", "\t10.0").replace("\n", "\r\n"),
        "<think>a\t1\nThe\t9</think>" + ANSWER,
        "The\t5 no,</think>" + ANSWER.replace("\n the\t0", "", 1),
    ],
    ids=[
        "exact",
        "stripped and fenced",
        "spaces",
        "written tabs, no line break",
        "one renamed",
        "thinking",
        "half tags",
    ],
)
def test_numbers_are_read_however_they_are_laid_out_and_with_one_line_in_ten_left_out(answer: str) -> None:
    assert read_numbers(say(answer), TOKENS).tolist() == [0, 10, 0, 0, 0, 0, 0, 10, 0, 9, 0]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I cannot do that.",
        "The\t0\n king\t10",
        "0 10 0 0 0 0 0 10 0 9 0",
        "\n".join(f"{t.strip()}\t11" for t in TOKENS),
    ],
)
def test_an_answer_without_numbers_for_most_tokens_is_unusable(answer: str) -> None:
    with pytest.raises(UnusableAnswer, match="no number for"):
        read_numbers(say(answer), TOKENS)


def test_a_flood_of_lines_or_of_spaces_is_read_in_a_moment() -> None:
    for flood in (" " * 200_000 + "1", "a\t1\n" * 50_000, "<think>" * 30_000, "[0," * 60_000, "**a" * 60_000):
        with pytest.raises(UnusableAnswer):
            read_numbers(say(flood), TOKENS)
        with pytest.raises(UnusableAnswer):
            read_choices(say(flood), 3)
    for flood in ("**a " * 200_000, "the unit was " * 100_000):
        assert len(clean_explanation(say(flood + "red"))) <= 1_000


def test_with_logprobs_a_number_is_the_expected_value_over_what_might_have_been_written() -> None:
    said = read_numbers(say_with_logprobs("The\t0\n king\t10\n"), ["The", " king"])
    assert said == pytest.approx([0.1, 9.9])
    top = {"3": math.log(0.5), " 5": math.log(0.25), "cat": math.log(0.2), "12": math.log(0.05), "³": 0.0}
    assert expect_number(top) == pytest.approx((3 * 0.5 + 5 * 0.25) / 0.75)
    assert expect_number({"cat": 0.0}) is None


def test_an_answer_whose_logprobs_name_tabs_in_another_way_is_read_as_it_is_written() -> None:
    named = say_with_logprobs(" king\t10\n of\t1").logprobs or ()
    named = tuple(replace(each, token={"\t": "<0x09>", "\n": "<0x0A>"}.get(each.token, each.token)) for each in named)
    assert read_numbers(say(" king\t10\n of\t1", logprobs=named), [" king", " of"]).tolist() == [10, 1]


def test_a_number_that_is_two_tokens_counts_as_it_is_written() -> None:
    split = tuple(TokenLogprob(token, 0.0, {token: -1.0, "7": -0.5}) for token in (" king", "\t", "1", "0"))
    assert read_numbers(say(" king\t10", logprobs=split), [" king"]).tolist() == [10]


@pytest.mark.parametrize(
    "answer",
    [
        "[1, 0, 1]",
        "[1,0,1]",
        "Sure:\n```json\n[\n 1,\n 0,\n 1\n]\n```",
        "[0] <think>[0,0,0]</think> [1, 0, 1]",
        "[0, 0, 0]? No: [1, 0, 1]",
    ],
)
def test_choices_are_read_from_any_layout(answer: str) -> None:
    choices, probabilities = read_choices(say_with_logprobs(answer), 3)
    assert choices == [1, 0, 1] and probabilities == pytest.approx([0.9, 0.1, 0.9])
    assert read_choices(say(answer), 3) == ([1, 0, 1], None)


def test_a_single_choice_needs_no_list_and_digits_may_share_their_token_with_a_comma() -> None:
    assert read_choices(say("1"), 1) == ([1], None) and read_choices(say("Answer: 0."), 1) == ([0], None)
    joined = tuple(TokenLogprob(token, 0.0, {token: 0.0}) for token in ("[1", ", 0", "]"))
    assert read_choices(say("[1, 0]", logprobs=joined), 2) == ([1, 0], [1.0, 0.0])


@pytest.mark.parametrize(
    "answer",
    [
        "[1, 0]",
        "<think>[1, 0, 1]",
        "[1, 0, 1]</think>",
        "[1, 0, 2]",
        "[1, 0, 1",
        "1 0 1",
        "{}",
        "[]",
        "yes",
        "[[1], 0, 1]",
        "[01, 0, 1]",
    ],
)
def test_choices_in_another_form_are_unusable(answer: str) -> None:
    with pytest.raises(UnusableAnswer, match="no list of 3 zeros and ones"):
        read_choices(say(answer), 3)
    with pytest.raises(UnusableAnswer, match="neither 0 nor 1"):
        read_choices(say("0 or 1"), 1)


@pytest.mark.parametrize(
    ("answer", "explanation"),
    [
        ("This neuron activates on words about royalty.", "words about royalty."),
        ("**Explanation:** the unit is most active on words about royalty", "words about royalty"),
        ('"words about royalty"', "words about royalty"),
        ('the tokens "king" and "queen"', 'the tokens "king" and "queen"'),
        ("words\nabout\troyalty\u200b\n\nI chose this because …", "words about royalty"),
        ("<think>Kings? Queens?</think>\nwords about royalty", "words about royalty"),
        ("This attention head attends from pronouns to names", "attends from pronouns to names"),
        ("`__init__` and ** as a power", "`__init__` and ** as a power"),
        ("(", "("),
        ("I can't, I cannot and other negations", "I can't, I cannot and other negations"),
        ("I'm sorry and other apologies", "I'm sorry and other apologies"),
        ("x" * 5_000, "x" * 1_000),
    ],
)
def test_an_explanation_is_one_line_without_markup_and_lead_in(answer: str, explanation: str) -> None:
    assert clean_explanation(say(answer)) == explanation


def test_the_rules_explanations_survive_cleaning() -> None:
    for explanation in (rules.name_tokens(NAMED), rules.name_tokens(["  ", "\n\n"]), GOOD_HEAD):
        assert rules.answer([{"content": prompts.SIMULATE}, {"content": f"Explanation: {explanation}\n\n  \t?"}])
        assert clean_explanation(say(explanation)) == explanation


@pytest.mark.parametrize(
    "answer", ["I'm sorry, but no.", "I cannot say.", "I’m unable to help", "Sorry, I won’t.", "As an AI, no"]
)
def test_a_refusal_in_words_is_no_explanation(answer: str) -> None:
    with pytest.raises(ExplanationRefused, match="the model declines: "):
        clean_explanation(say(answer))


@pytest.mark.parametrize("answer", ["<think>hm", "<think>hm</think>", "...", "```\n```", "This neuron activates on"])
def test_an_empty_explanation_is_unusable(answer: str) -> None:
    with pytest.raises(UnusableAnswer):
        clean_explanation(say(answer, is_cut=True))


def test_an_unusable_answer_says_how_it_begins_and_that_it_was_cut() -> None:
    with pytest.raises(UnusableAnswer, match=r"was cut at its longest; it begins '\[1, 0, x'"):
        read_choices(replace(say("[1, 0,\x00 x"), is_cut=True), 3)
