import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.scoring.captions import cider, exact_match, false_insertions

words = st.sampled_from(["a", "red", "pear", "two", "suns", "the", "deer"])
sentences = st.lists(words, max_size=9).map(" ".join)
# The peer fails where no reference has a word.
references = st.lists(sentences, min_size=1, max_size=3).filter(any)
corpora = st.lists(st.tuples(sentences, references), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def peer():
    """Mean and scores by the authors' scorer."""
    module = pytest.importorskip("pycocoevalcap.cider.cider")

    def score(corpus):
        expected = {n: texts for n, (_, texts) in enumerate(corpus)}
        actual = {n: [text] for n, (text, _) in enumerate(corpus)}
        return module.Cider().compute_score(expected, actual)

    return score


def ours(corpus, **options):
    return cider(
        {f"{n:02d}": texts for n, (_, texts) in enumerate(corpus)},
        {f"{n:02d}": text for n, (text, _) in enumerate(corpus)},
        normalizer="raw",
        **options,
    )


@settings(max_examples=200, deadline=None)
@given(corpora)
def test_cider_equals_that_of_pycocoevalcap(peer, corpus):
    mean, scores = peer(corpus)
    found = ours(corpus)
    assert list(found.scores.values()) == pytest.approx(list(scores), abs=1e-10)
    assert found.mean == pytest.approx(mean, abs=1e-10)


def test_cider_equals_that_of_pycocoevalcap_on_long_captions(peer):
    draw = random.Random(0)
    vocabulary = [f"w{n}" for n in range(60)]
    corpus = []
    for _ in range(50):
        texts = [" ".join(draw.choices(vocabulary, k=draw.randint(1, 30))) for _ in range(5)]
        corpus.append((texts[0][: draw.randint(0, 60)], texts))
    mean, scores = peer(corpus)
    assert mean > 0.5
    assert list(ours(corpus).scores.values()) == pytest.approx(list(scores), abs=1e-10)


def test_a_perfect_caption_scores_ten_and_a_strange_one_zero():
    corpus = [("one red pear is here", ["one red pear is here"]), ("x", ["two suns at the sea"])]
    assert list(ours(corpus).scores.values()) == pytest.approx([10, 0])


def test_cider_by_characters_needs_no_spaces():
    corpus = [("一只红色的梨", ["一只 红色的梨"]), ("两头鹿", ["三头大象在这里"])]
    found = ours(corpus, units="characters").scores
    assert found["00"] == pytest.approx(10)
    assert 0 < found["01"] < 5
    assert ours(corpus).scores["01"] == 0


def test_a_missing_caption_scores_zero_and_is_listed():
    references = {"a": ["a red pear"], "b": "two suns", "c": "the deer"}
    found = cider(references, {"a": "a red pear", "z": "a red pear"})
    assert (found.missing, found.extra) == (("b", "c"), ("z",))
    assert found.scores["b"] == 0
    assert found.mean == pytest.approx(found.scores["a"] / 3)
    assert "missing 2, extra 1" in str(found)


def test_cider_of_one_item_is_refused_since_it_would_be_zero():
    with pytest.raises(ValueError, match="references has one id"):
        cider({"a": "a pear"}, {"a": "a pear"})


def test_answers_match_after_normalisation():
    references = {"a": "Two.", "b": ["a pear", "pear"], "c": "red", "d": "红色。"}
    hypotheses = {"a": "two", "b": "Pear!", "c": "red pear", "d": "红色"}
    found = exact_match(references, hypotheses)
    assert found.scores == {"a": 1, "b": 1, "c": 0, "d": 1}
    assert found.mean == 0.75
    low, high = found.interval
    assert 0 <= low < 0.75 < high <= 1
    assert str(found).startswith("exact match 0.7500 [95 % CI ")
    assert exact_match(references, hypotheses, normalizer="raw").mean == 0


def test_no_answer_is_no_match_even_of_an_empty_reference():
    found = exact_match({"a": "", "b": "?"}, {"b": ""})
    assert found.scores == {"a": 0, "b": 1}
    assert found.missing == ("a",)
    assert exact_match({"a": "x"}, {}).interval is None


IMAGE_WORDS = {"u": ["pear", "Fire Engine"], "v": ["sun"], "w": []}


def test_image_words_that_nobody_said_are_counted():
    references = {"u": "a pair of shoes", "v": "the sun", "w": "my pear"}
    hypotheses = {"u": "a pear of pear fire engine", "v": "the sun", "w": "my bear"}
    found = false_insertions(references, hypotheses, IMAGE_WORDS)
    assert found.counts == {"pear": 2, "fire engine": 1}
    assert found.affected == ("u",)
    assert (found.insertions, found.hypothesis_units) == (3, 10)
    assert found.per_utterance == 1
    assert found.per_unit == pytest.approx(0.3)
    low, high = found.utterance_interval
    assert low == 0 < 1 < high <= 3
    assert found.unit_interval[1] <= 0.5
    assert "false insertions 3: 1.0000 an utterance [95 % CI" in str(found)


def test_a_word_that_is_said_once_and_written_twice_is_one_insertion():
    found = false_insertions({"v": "the sun"}, {"v": "the sun Sun"}, {"v": {"sun"}})
    assert found.insertions == 1
    assert found.utterance_interval is None


def test_the_parts_of_a_name_are_not_the_name():
    found = false_insertions({"u": "x"}, {"u": "fire the engine"}, {"u": ["fire engine", "", "."]})
    assert found.insertions == 0


def test_image_words_in_chinese_are_counted_by_characters():
    found = false_insertions(
        {"u": "他的离开"}, {"u": "他的梨 开"}, {"u": ["梨", "离"]}, units="characters"
    )
    assert found.counts == {"梨": 1}
    assert found.hypothesis_units == 4


def test_utterances_without_hypothesis_insert_nothing_but_count():
    found = false_insertions({"u": "x", "v": "y"}, {"z": "pear"}, {"u": ["pear"], "v": ["pear"]})
    assert (found.insertions, found.missing, found.extra) == (0, ("u", "v"), ("z",))
    assert found.per_utterance == 0
    assert found.per_unit != found.per_unit
    assert found.unit_interval is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact_match({}, {}), "references is empty"),
        (lambda: exact_match({"a": []}, {}), r"references\['a'\] is \[\]"),
        (lambda: exact_match({"a": [1]}, {}), r"references\['a'\] is \[1\]"),
        (lambda: exact_match({"a": "x"}, {"a": None}), r"hypotheses\['a'\] is None"),
        (lambda: exact_match({"a": "x"}, {}, normalizer="none"), "normalizer is 'none'"),
        (lambda: cider({"a": "x", "b": "y"}, {}, units="letters"), "units is 'letters'"),
        (lambda: false_insertions({"a": ["x"]}, {}, {"a": []}), r"references\['a'\] is \['x'\]"),
        (lambda: false_insertions({"a": "x"}, {}, {}), "image_words lacks 1 reference ids"),
        (lambda: false_insertions({"a": "x"}, {}, {"a": "pear"}), r"image_words\['a'\] is 'pear'"),
        (lambda: false_insertions({"a": "x"}, {}, {"a": []}, units="x"), "units is 'x'"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
