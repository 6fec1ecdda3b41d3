"""ViGGO's measures, and the reasons of wrong answers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.data.sources import read_part
from jobs.tasks.viggo.prompt import ATTRIBUTES, FUNCTIONS, make_row
from jobs.tasks.viggo.scorer import Meaning, parse, score, write

GOLD = "inform(name[Tom Clancy's The Division], esrb[M (for Mature)], genres[role-playing, shooter])"


def verdict(answer: str, gold: str = GOLD) -> tuple[dict[str, bool], str | None]:
    (one,) = score([make_row("1", target="?", meaning=gold)], [answer]).rows
    return dict(one.scores), one.reason


def test_the_gold_itself_is_right_everywhere() -> None:
    scores, reason = verdict(GOLD)
    assert scores == {
        "exact": True, "strict": True, "canonical": True, "function": True, "parses": True, "unknown_name": False,
    }  # fmt: skip
    assert reason is None


@pytest.mark.parametrize(
    "answer",
    [
        "inform(genres[shooter, role-playing], name[Tom Clancy's The Division], esrb[M (for Mature)])",
        "inform( name[ Tom Clancy's  The Division ],esrb[M (for Mature)],\n genres[role-playing,shooter] )",
    ],
)
def test_order_and_spacing_are_free_in_canonical_only(answer: str) -> None:
    scores, reason = verdict(answer)
    assert scores["canonical"]
    assert not scores["strict"]
    assert reason is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (GOLD.replace("inform", "confirm"), "wrong function: confirm instead of inform"),
        (
            GOLD.replace("shooter", "puzzle"),
            "wrong value: genres[puzzle, role-playing] instead of [role-playing, shooter]",
        ),
        (GOLD.replace(", esrb[M (for Mature)]", ""), "missing attribute: esrb[M (for Mature)]"),
        (GOLD[:-1] + ", rating[good])", "extra attribute: rating[good]"),
        (
            GOLD.replace("esrb", "age"),
            "unknown name: age; missing attribute: esrb[M (for Mature)]; extra attribute: age[M (for Mature)]",
        ),
        ("hello", "does not parse"),
        ("", "does not parse"),
        (GOLD + ")", "does not parse"),
        (GOLD[:-1], "does not parse"),
        ("inform(name[a], )", "does not parse"),
        ("inform(name[a] name[b])", "does not parse"),
        ("inform(" + "name[a]," * 100_000, "does not parse"),
        ("f" * 1_000_000, "does not parse"),
    ],
)  # fmt: skip
def test_a_wrong_answer_says_why(answer: str, reason: str) -> None:
    scores, found = verdict(answer)
    assert not scores["canonical"]
    assert found == reason


def test_case_and_repeated_values_count() -> None:
    assert not verdict("request(name[a])", "request(name[A])")[0]["canonical"]
    assert not verdict("request(genres[a, a])", "request(genres[a])")[0]["canonical"]


def test_a_function_without_attributes_parses() -> None:
    assert parse("request()") == Meaning("request", ())
    assert parse("request( )") == Meaning("request", ())


def test_attributes_are_counted() -> None:
    (one,) = score(
        [make_row("1", target="?", meaning=GOLD)], ["inform(name[Tom Clancy's The Division], esrb[E])"]
    ).rows
    assert one.counts == {"attribute_precision": (1, 2), "attribute_recall": (1, 3), "attribute_f1": (2, 5)}


VALUE = st.text(st.characters(exclude_characters="[],", exclude_categories=("Cs", "Z", "C")), max_size=5)


@given(
    st.sampled_from(FUNCTIONS),
    st.lists(
        st.tuples(st.sampled_from(ATTRIBUTES), st.lists(VALUE, min_size=1).map(lambda v: tuple(sorted(v))))
    ),
)
def test_what_is_written_is_parsed_again(function: str, slots: list[tuple[str, tuple[str, ...]]]) -> None:
    meaning = Meaning(function, tuple(slots))
    assert parse(write(meaning)) == meaning


@pytest.mark.shared
def test_every_real_gold_parses_and_is_written_again(shared_data: Path) -> None:
    for row in read_part("viggo", "viggo", shared_data, "test"):
        meaning = parse(row.gold)
        assert meaning is not None
        assert not meaning.unknown_names()
        assert parse(write(meaning)) == meaning
