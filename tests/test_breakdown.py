import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.scoring.breakdown import Confusion, breakdown
from llmasr.scoring.confidence import calibration
from llmasr.scoring.errors import score
from llmasr.scoring.hotwords import capitalised_words
from llmasr.scoring.unit_classes import number_form, script_of
from llmasr.scoring.utterances import TimedWord, Utterance

WORDS = ["the", "cat", "one", "42", "café", "你", "一", "new", "york", "?"]
UTTERANCE_TABLES = ("group", "length", "duration", "snr", "script", "longest run of insertions")
UNIT_TABLES = ("script of the unit", "numbers", "hotwords", "names")

texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
spoken = st.tuples(
    st.sampled_from(["anna", "bert", None]),
    st.sampled_from([0.5, 4.0, 60.0, None]),
    st.sampled_from([-3.0, 12.0, None]),
    texts,
)


@st.composite
def scores(draw):
    """A score with missing, extra and repeated ids, and what is known of its references."""
    references = [
        Utterance(f"u{i}", text, group=group, duration=duration, snr=snr)
        for i, (group, duration, snr, text) in enumerate(draw(st.lists(spoken, min_size=1)))
    ]
    ids = st.sampled_from([*(each.id for each in references), "stranger"])
    hypotheses = [Utterance(i, text) for i, text in draw(st.lists(st.tuples(ids, texts)))]
    result = score(
        references,
        hypotheses,
        metric=draw(st.sampled_from(["wer", "cer", "mer"])),
        allow_partial=draw(st.booleans()),
    )
    return result, {each.id: each for each in references}


def counts(part):
    return (part.units, part.substitutions, part.deletions, part.insertions)


def rows(table):
    return {part.name: counts(part) for part in table.slices}


@settings(max_examples=150, deadline=None)
@given(scores())
def test_slices_of_every_table_sum_to_the_score(case):
    result, metadata = case
    found = breakdown(result, metadata=metadata, hotwords=["cat", "new york", "你"], names=["the"])
    assert {table.name for table in found.tables} <= {*UTTERANCE_TABLES, *UNIT_TABLES}
    for table in found.tables:
        assert counts(table.total) == counts(result)
        assert len({part.name for part in table.slices}) == len(table.slices)
        if table.name in UTTERANCE_TABLES:
            foreign = {"duplicate", "extra"}
            own = sum(each.status not in foreign for each in result.counted)
            assert table.total.utterances == own


@settings(max_examples=100, deadline=None)
@given(scores())
def test_confusions_sum_to_the_errors_by_kind(case):
    result, _ = case
    found = breakdown(result).confusions
    sums = [sum(each.count for each in some) for some in (found.substituted, found.deleted)]
    assert sums == [result.substitutions, result.deletions]
    assert sum(each.count for each in found.inserted) == result.insertions


@settings(max_examples=100, deadline=None)
@given(scores())
def test_hotwords_found_and_missed_are_those_in_the_texts(case):
    result, _ = case
    (phrase,) = breakdown(result, hotwords=["café"]).hotwords
    unit = "café" if result.metric != "cer" else None
    if unit:
        silent = [each for each in result.details if each.status == "empty_reference"]
        assert phrase.said == sum(each.reference.count(unit) for each in result.counted)
        heard = sum(each.hypothesis.count(unit) for each in (*result.counted, *silent))
        assert phrase.heard == heard
        assert phrase.recognised == phrase.correct  # a single unit stands on both sides or on none
    assert 0 <= phrase.recognised <= phrase.said
    assert 0 <= phrase.correct <= phrase.heard


def test_bins_name_their_ends():
    words = "one two three four five six seven eight nine ten eleven"
    references = [
        Utterance("a", "one", duration=0.99, snr=-1),
        Utterance("b", "one two", duration=1, snr=0),
        Utterance("c", words, duration=31, snr=30),
        Utterance("d", words * 9),
    ]
    result = score(references, references)
    found = breakdown(result, metadata={each.id: each for each in references})
    names = {table.name: [part.name for part in table.slices] for table in found.tables}
    assert names["length"] == ["1-2", "11-20", "41+"]
    assert names["duration"] == ["< 1 s", "1-2 s", "30+ s", "(unknown)"]
    assert names["snr"] == ["< 0 dB", "0-5 dB", "30+ dB", "(unknown)"]


def test_a_segment_without_duration_lasts_from_start_to_end():
    segments = [Utterance("a", "x", start=7, end=8.5), Utterance("b", "x", start=0, end=0.5)]
    found = breakdown(score(segments, []), metadata={each.id: each for each in segments})
    assert rows(found.table("duration")) == {"< 1 s": (1, 0, 1, 0), "1-2 s": (1, 0, 1, 0)}


def test_hypotheses_without_reference_are_a_slice_of_their_own():
    heard = [Utterance("a", "yes"), Utterance("a", "oh no"), Utterance("x", "boo")]
    found = breakdown(score([Utterance("a", "yes", group="anna")], heard))
    expected = {"anna": (1, 0, 0, 0), "(no reference)": (0, 0, 0, 3)}
    assert rows(found.table("group")) == expected
    assert [part.utterances for part in found.table("group").slices] == [1, 0]
    assert math.isnan(found.table("group").slices[1].rate)


def test_a_question_with_one_answer_makes_no_table():
    found = breakdown(score({"a": "yes", "b": "no"}, {"a": "yes", "b": "yes"}))
    assert found.tables == ()
    assert found.table("group") is None


def test_speakers_have_intervals_and_single_utterances_have_none():
    references = [Utterance(f"a{i}", "one two three", group="anna") for i in range(20)]
    references.append(Utterance("b", "one", group="bert"))
    hypotheses = {f"a{i}": "one two" if i % 2 else "one two three" for i in range(20)}
    anna, bert = (
        breakdown(score(references, [Utterance(*i) for i in hypotheses.items()])).tables[0].slices
    )
    low, high = anna.interval
    assert low < anna.rate < high
    assert bert.interval is None


def test_utterances_and_units_are_told_apart_by_script():
    references = {"a": "你 好", "b": "good day", "c": "打开 wifi", "d": "42"}
    hypotheses = {"a": "你", "b": "good day day", "c": "打开 wi-fi", "d": "42"}
    found = breakdown(score(references, hypotheses, metric="mer"))
    assert rows(found.table("script")) == {
        "Han": (2, 0, 1, 0),
        "Han and Latin": (3, 1, 0, 0),
        "Latin": (2, 0, 0, 1),
        "other": (1, 0, 0, 0),
    }
    assert rows(found.table("script of the unit")) == {
        "Han": (4, 0, 1, 0),
        "Latin": (3, 1, 0, 1),
        "other": (1, 0, 0, 0),
    }


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("ｗｉｆｉ", "Latin"),
        ("naïve", "Latin"),
        ("々", "Han"),
        ("привет", "other"),
        ("5 %", "other"),
    ],
)
def test_scripts_are_known_by_their_letters(text, script):
    assert script_of(text) == script


@pytest.mark.parametrize(
    ("unit", "form"),
    [
        ("3rd", "digits"),
        ("Twenty-Five", "number word"),
        ("二十", "Han numeral"),
        ("一样", "no number"),
        ("-", "no number"),
        ("often", "no number"),
    ],
)
def test_numbers_are_known_by_their_spelling(unit, form):
    assert number_form(unit) == form


def test_a_wrong_number_is_counted_by_what_was_said():
    found = breakdown(score({"a": "route 66 is one now"}, {"a": "route sixty is won now 5"}))
    assert rows(found.table("numbers")) == {
        "digits": (1, 1, 0, 1),
        "number word": (1, 1, 0, 0),
        "no number": (3, 0, 0, 0),
    }


def test_a_hotword_is_recognised_only_as_a_whole():
    references = {"a": "call new york now", "b": "new york", "c": "old york"}
    hypotheses = {"a": "call new york now", "b": "new big york", "c": "new york"}
    found = breakdown(score(references, hypotheses), hotwords=["new york"])
    (phrase,) = found.hotwords
    assert (phrase.said, phrase.recognised, phrase.heard, phrase.correct) == (2, 1, 2, 1)
    assert (phrase.recall, phrase.precision, phrase.false_insertions) == (0.5, 0.5, 1)
    assert rows(found.table("hotwords"))["in hotwords"] == (4, 0, 0, 0)


def test_the_longest_of_two_hotwords_is_the_one_found():
    result = score({"a": "new york times"}, {"a": "new york tames"})
    long, short = breakdown(result, hotwords=["new york times", "new york"]).hotwords
    assert (long.said, long.recognised, long.heard) == (1, 0, 0)
    assert (short.said, short.heard, short.false_insertions) == (0, 1, 0)


def test_a_hotword_written_over_silence_is_a_false_insertion():
    result = score({"a": "yes", "noise": ""}, {"a": "yes", "noise": "jarvis"})
    (phrase,) = breakdown(result, hotwords=["jarvis"]).hotwords
    assert (phrase.said, phrase.false_insertions) == (0, 1)
    assert math.isnan(phrase.recall)


def test_hotwords_are_normalised_as_the_texts_were():
    result = score({"a": "Hey Jarvis!"}, {"a": "hey jarvis"}, normalizer="llmasr-en")
    (phrase,) = breakdown(result, hotwords=["JARVIS?", "jarvis"]).hotwords
    assert (phrase.phrase, phrase.recognised) == ("JARVIS?", 1)
    with pytest.raises(ValueError, match=r"phrase '\?!' has no unit left after llmasr-en"):
        breakdown(result, hotwords=["?!"])


def test_a_guessed_name_that_normalises_to_nothing_is_left_out():
    result = score({"a": "Mary"}, {"a": "mary"}, normalizer="llmasr-en")
    assert [each.phrase for each in breakdown(result, names=["...", "Mary"]).names] == ["Mary"]


def test_han_hotwords_are_found_among_characters():
    result = score({"a": "打开小爱同学"}, {"a": "打开 小爱同学"}, metric="cer")
    assert breakdown(result, hotwords=["小爱 同学"]).hotwords[0].recognised == 1


def test_names_are_words_that_have_a_capital_within_sentences_only():
    texts = [
        "Yesterday I met Mary. Then she left.",
        "He said I'm from Berlin, a Big city",
        "big THINGS",
        "ALL IN CAPITALS",
        "and then",
    ]
    assert capitalised_words(texts) == ["Berlin", "Mary", "THINGS"]


def test_bursts_are_runs_of_insertions_the_longest_first():
    references = {"a": "go on", "b": "stop", "noise": ""}
    hypotheses = {
        "a": "go la la la on",
        "b": "no no stop no no",
        "noise": "thank you for watching",
    }
    found = breakdown(score(references, hypotheses), burst=3)
    assert [(each.id, each.status, each.start, each.units) for each in found.bursts] == [
        ("noise", "empty_reference", 0, ("thank", "you", "for", "watching")),
        ("a", "scored", 1, ("la", "la", "la")),
    ]


def test_utterances_are_told_apart_by_their_longest_run_of_insertions():
    references = {"a": "go on", "b": "stop", "c": "no"}
    hypotheses = {"a": "go la la la la la on", "b": "stop now", "c": "yes"}
    assert rows(breakdown(score(references, hypotheses)).table("longest run of insertions")) == {
        "0": (1, 1, 0, 0),
        "1": (1, 0, 0, 1),
        "5-9": (2, 0, 0, 5),
    }


def test_confusions_come_by_count_and_then_by_alphabet():
    references = {"a": "cat bat", "b": "cat", "c": "dog", "d": "axe"}
    found = breakdown(score(references, {"a": "hat mat", "b": "hat", "c": "", "d": "axe so"}))
    assert found.confusions.substituted == (Confusion("cat", "hat", 2), Confusion("bat", "mat", 1))
    assert found.confusions.deleted == (Confusion("dog", None, 1),)
    assert found.confusions.inserted == (Confusion(None, "so", 1),)


def test_a_burst_of_one_is_refused():
    with pytest.raises(ValueError, match="burst is 1; a burst is at least 2"):
        breakdown(score({"a": "x"}, {}), burst=1)


def said_with(identifier, *words):
    """A hypothesis from (word, confidence) pairs."""
    timed = tuple(TimedWord(text, 0, 0, confidence) for text, confidence in words)
    return Utterance(identifier, " ".join(text for text, _ in words), words=timed)


def test_confidences_fall_into_bins_with_their_accuracy():
    hypotheses = [said_with("a", ("the", 1.0), ("hat", 0.95), ("sat", 0.1), ("down", 0.05))]
    found = calibration(score({"a": "the cat sat"}, hypotheses), hypotheses)
    assert (found.words, found.correct) == (4, 2)
    filled = [each for each in found.bins if each.words]
    assert [(each.low, each.words, each.accuracy) for each in filled] == [
        (0.0, 1, 0.0), (0.1, 1, 1.0), (0.9, 2, 0.5),
    ]  # fmt: skip
    assert found.expected_calibration_error == pytest.approx((0.05 + 0.9 + 2 * 0.475) / 4)


def test_perfect_confidences_have_no_calibration_error_and_full_cross_entropy():
    hypotheses = [said_with("a", ("the", 1.0), ("hat", 0.0))]
    found = calibration(score({"a": "the cat"}, hypotheses), hypotheses)
    assert found.expected_calibration_error == 0
    assert found.normalised_cross_entropy == pytest.approx(1, abs=1e-4)


def test_confidences_that_say_the_average_have_no_cross_entropy():
    hypotheses = [said_with("a", ("the", 0.5), ("hat", 0.5))]
    found = calibration(score({"a": "the cat"}, hypotheses), hypotheses)
    assert found.normalised_cross_entropy == pytest.approx(0)


def test_words_that_cannot_be_judged_are_counted_apart():
    hypotheses = [
        said_with("a", ("Hello,", 0.9), ("--", 0.9), ("you", None)),
        Utterance("b", "no list"),
        Utterance("c", "4 5", words=(TimedWord("45", 0, 0, 0.5),)),
    ]
    references = {"a": "hello you", "b": "no list", "c": "4 5"}
    found = calibration(
        score(
            [Utterance(*each) for each in references.items()], hypotheses, normalizer="llmasr-en"
        ),
        hypotheses,
    )
    assert (found.words, found.correct, found.without_confidence) == (1, 1, 1)
    assert (found.unplaced, found.utterances_without_words) == (2, 1)


def test_words_of_repeated_unknown_and_empty_ids_are_wrong():
    hypotheses = [
        said_with("a", ("yes", 0.9)),
        said_with("a", ("yes", 0.8)),
        said_with("x", ("yes", 0.7)),
        said_with("noise", ("yes", 0.6)),
    ]
    references = [Utterance("a", "yes"), Utterance("noise", ""), Utterance("gone", "yes")]
    found = calibration(score(references, hypotheses), hypotheses)
    assert (found.words, found.correct) == (4, 1)
    assert found.bins[9].accuracy == 1
    assert [each.accuracy for each in found.bins[6:9]] == [0, 0, 0]


def test_a_word_of_characters_is_correct_if_all_of_them_are():
    hypotheses = [said_with("a", ("你好", 0.9), ("世间", 0.4))]
    found = calibration(score([Utterance("a", "你好世界")], hypotheses, metric="cer"), hypotheses)
    assert (found.words, found.correct) == (2, 1)


def test_without_judged_words_there_is_no_calibration_error():
    hypotheses = [Utterance("a", "yes")]
    found = calibration(score([Utterance("a", "yes")], hypotheses), hypotheses)
    assert math.isnan(found.expected_calibration_error)
    assert math.isnan(found.normalised_cross_entropy)


@pytest.mark.parametrize("confidence", [-0.1, 1.5, -12.0])
def test_a_confidence_that_is_no_probability_is_named(confidence):
    hypotheses = [said_with("a", ("yes", confidence))]
    result = score([Utterance("a", "yes")], hypotheses)
    with pytest.raises(ValueError, match=rf"word 'yes' of 'a' is {confidence}; expected a prob"):
        calibration(result, hypotheses)


def test_hypotheses_other_than_the_scored_ones_are_refused():
    result = score({"a": "yes"}, {"a": "yes"})
    with pytest.raises(ValueError, match="hypotheses lacks id 'a', which is in the score"):
        calibration(result, [])
