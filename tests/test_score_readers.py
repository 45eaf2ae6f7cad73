"""Every format of references and hypotheses, and what a damaged file is told."""

import codecs
import gzip
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.scoring.readers import FORMATS, find_format, pair_segments, read_pair, read_utterances
from llmasr.scoring.records import TRANSCRIPT_SCHEMA
from llmasr.scoring.texts import read_texts
from llmasr.scoring.timed import read_ctm
from llmasr.scoring.utterances import TimedWord, Utterance
from llmasr.transcript import SCHEMA, Segment, Transcript, Word

STM = """\
;; recorded in Bern
rec A anna 0.00 2.00 <o,f0,female> hello there world
rec A anna 2.00 3.00 IGNORE_TIME_SEGMENT_IN_SCORING
rec A bert 3.50 5.00 good @ night
rec B carl 0.00 4.00 yes no
"""
CTM = """\
;; recognised
rec A 0.10 0.30 hello 0.9
rec A 0.60 0.30 their NA
rec A 1.80 0.40 world
rec A 2.40 0.20 noise
rec A 3.10 0.20 lost
rec A 3.60 0.20 good
rec A 3.90 0.20 night
rec A 6.00 0.20 late
rec B 0.50 0.20 yes
"""
SEGMENTS = [
    "rec-A-000000.000-000002.000",
    "rec-A-000002.000-000003.000",
    "rec-A-000003.500-000005.000",
    "rec-B-000000.000-000004.000",
]
LHOTSE = {
    **{"id": "s1", "recording_id": "rec", "start": 1.5, "duration": 2.25, "channel": 0},
    **{"text": "good night", "speaker": "anna", "language": "en"},
    "alignment": {"word": [["good", 1.5, 0.5, 0.25], ["night", 2.1, 0.4]]},
}
LONG_TEXTGRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 0.3
            mark = "3"
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "<eps>"
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "say ""hi\"\"\"
        intervals [3]:
            xmin = 1.25
            xmax = 2
            text = "你好"
        intervals [4]:
            xmin = 2
            xmax = 2.5
            text = ""
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 0
"""
SHORT_TEXTGRID = """\
File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2 ! tiers
"TextTier" "clicks" 0 2.5 1
0.3 "3"
"IntervalTier"
"anna - Words"
0
2.5
4
0
0.5
"sil"
0.5 1.25 "say ""hi\"\"\"
1.25 2 "你好"
2
2.5
"SP"
"""


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(utterances):
    return [(utterance.id, utterance.text) for utterance in utterances]


def test_json_lines_give_every_field_that_is_known(tmp_path):
    line = {
        **{"id": "a b", "text": "one  two", "session": "s1", "start": 1, "end": 2.5, "channel": 1},
        **{"audio": "x/a.flac", "duration": 1.5, "snr": -3, "accent": "us"},
        "words": [{"text": "one", "start": 1, "end": 1.5, "confidence": 0.5}],
    }
    file = write(tmp_path / "ref.jsonl", json.dumps(line))
    assert read_utterances(file) == [
        Utterance(
            "a b", "one  two", "s1", 1.0, 2.5, "1", str(tmp_path / "x/a.flac"), 1.5, -3.0,
            (TimedWord("one", 1.0, 1.5, 0.5),),
        )
    ]  # fmt: skip


def test_an_empty_speaker_is_no_group(tmp_path):
    file = write(tmp_path / "ref.jsonl", '{"id": "a", "text": "", "speaker": "", "words": null}')
    assert read_utterances(file)[0].group is None


def test_a_speaker_may_be_a_number(tmp_path):
    file = write(tmp_path / "ref.jsonl", '{"id": "a", "text": "x", "speaker": 1089}')
    assert read_utterances(file)[0].group == "1089"


def test_repeated_ids_are_kept_in_file_order(tmp_path):
    file = write(tmp_path / "hyp.txt", "b one\na two\nb three\n")
    assert texts(read_utterances(file)) == [("b", "one"), ("a", "two"), ("b", "three")]


def test_kaldi_text_takes_its_groups_from_utt2spk_beside_it(tmp_path):
    write(tmp_path / "utt2spk", "a anna\nb bert\n")
    file = write(tmp_path / "text", "a one  two \nb\n  c 你好\n")
    assert read_utterances(file) == [
        Utterance("a", "one  two", "anna"),
        Utterance("b", "", "bert"),
        Utterance("c", "你好"),
    ]


def test_a_trn_id_may_hold_spaces_and_names_the_speaker(tmp_path):
    content = ";; read\nshe (uh) had @ it (cmh_sa 01)\n(anna-2)\nyes (alone) \n"
    assert read_utterances(write(tmp_path / "ref.trn", content)) == [
        Utterance("cmh_sa 01", "she (uh) had it", "cmh"),
        Utterance("anna-2", "", "anna"),
        Utterance("alone", "yes"),
    ]


def test_a_text_file_is_trn_if_every_line_ends_in_an_id(tmp_path):
    assert find_format(write(tmp_path / "a.txt", "one (a-1)\n\ntwo (a-2)\n")) == "trn"
    assert find_format(write(tmp_path / "b.txt", "a-1 one (laughs)\na-2 two\n")) == "kaldi"
    assert find_format(write(tmp_path / "text", "")) == "kaldi"


def test_a_table_is_read_by_its_header(tmp_path):
    content = 'Speaker\tText\tid\tsnr\nanna\tone "two\ta 1\t12.5\n\t\tb\t\n'
    assert read_utterances(write(tmp_path / "ref.tsv", content)) == [
        Utterance("a 1", 'one "two', "anna", snr=12.5),
        Utterance("b", ""),
    ]


def test_a_table_without_header_has_id_and_text(tmp_path):
    file = write(tmp_path / "ref.tsv", "a 1\tone two\nb\t\n")
    assert texts(read_utterances(file)) == [("a 1", "one two"), ("b", "")]


def test_lhotse_supervisions_are_known_by_their_fields(tmp_path):
    file = write(tmp_path / "supervisions.jsonl.gz", gzip.compress(json.dumps(LHOTSE).encode()))
    words = (TimedWord("good", 1.5, 2.0, 0.25), TimedWord("night", 2.1, 2.5))
    assert read_utterances(file) == [
        Utterance("s1", "good night", "anna", 1.5, 3.75, "0", None, 2.25, None, words, "rec")
    ]


TRANSCRIPT = Transcript(
    "good night",
    segments=(
        Segment(0.0, 1.0, "good", (Word("good", 0.1, 0.4, 0.5),)),
        Segment(1.0, 2.0, "night", (Word("night", 1.1, 1.5, 0.25),)),
    ),
    duration=2.0,
)
TRANSCRIBED = Utterance(
    "a b",
    "good night",
    duration=2.0,
    words=(TimedWord("good", 0.1, 0.4, 0.5), TimedWord("night", 1.1, 1.5, 0.25)),
)


def test_the_schema_of_transcripts_is_that_of_the_library():
    assert TRANSCRIPT_SCHEMA == SCHEMA


def test_a_folder_of_transcripts_has_the_stems_as_ids(tmp_path):
    write(tmp_path / "a b.json", json.dumps(TRANSCRIPT.to_dict()))
    write(tmp_path / "c.d.json", json.dumps(Transcript("", status="empty").to_dict()))
    write(tmp_path / "status.jsonl", "{}")
    found = read_utterances(tmp_path)
    assert found == [TRANSCRIBED, Utterance("c.d", "", duration=0.0)]
    assert read_utterances(tmp_path / "a b.json") == [TRANSCRIBED]


def test_printed_transcripts_have_the_stems_of_their_files_as_ids(tmp_path):
    line = json.dumps({"file": "talks/a b.flac", **TRANSCRIPT.to_dict()})
    assert read_utterances(write(tmp_path / "hyp.jsonl", line)) == [TRANSCRIBED]


def test_transcripts_of_a_manifest_get_its_ids(tmp_path):
    lines = [
        {"id": "corpus-1", "text": "good night", "audio": "wav/a b.flac"},
        {"id": "corpus-2", "text": "yes", "audio": "one/same.flac"},
        {"id": "corpus-3", "text": "no", "audio": "two/same.flac"},
    ]
    write(tmp_path / "ref.jsonl", "\n".join(map(json.dumps, lines)))
    (tmp_path / "out").mkdir()
    for name in ("a b", "same", "other"):
        write(tmp_path / "out" / f"{name}.json", json.dumps(TRANSCRIPT.to_dict()))
    pair = read_pair(tmp_path / "ref.jsonl", tmp_path / "out")
    assert [utterance.id for utterance in pair.hypotheses] == ["corpus-1", "other", "same"]


def test_a_bundled_manifest_is_a_reference_file(data):
    for manifest in sorted(data.glob("*/manifest.jsonl")):
        found = read_utterances(manifest)
        assert len(found) == len(manifest.read_text(encoding="utf-8").splitlines())
        assert (manifest.parent / found[0].audio).is_file()
    assert found[0].group is not None


def test_stm_segments_have_ids_speakers_and_bounds(tmp_path):
    found = read_utterances(write(tmp_path / "ref.stm", STM))
    assert [utterance.id for utterance in found] == SEGMENTS
    assert [text for _, text in texts(found)] == ["hello there world", "", "good night", "yes no"]
    assert [utterance.group for utterance in found] == ["anna", "anna", "bert", "carl"]
    assert [utterance.is_ignored for utterance in found] == [False, True, False, False]
    assert (found[2].start, found[2].end, found[2].channel) == (3.5, 5.0, "A")


def test_words_fall_into_the_segment_of_their_midpoint_and_none_is_lost(tmp_path):
    # As sclite 2.10 on these files: the words at 2.0 and 2.5 s are ignored, two are in no segment.
    pair = read_pair(write(tmp_path / "ref.stm", STM), write(tmp_path / "hyp.ctm", CTM))
    assert texts(pair.hypotheses) == [
        (SEGMENTS[0], "hello their"),
        (SEGMENTS[1], "world noise"),
        (SEGMENTS[2], "good night"),
        (SEGMENTS[3], "yes"),
        ("rec-A-outside-segments", "lost late"),
    ]
    assert (pair.ignored_segments, pair.ignored_words) == (1, 2)


def test_words_are_scored_in_order_of_time(tmp_path):
    file = write(tmp_path / "hyp.ctm", "u 1 0.5 0.1 b\nu 1 0.1 0.1 a\nu 1 0.6 0.1 @\n")
    assert read_utterances(file)[0].text == "a b"


def test_a_ctm_of_utterances_has_their_ids_and_one_of_channels_says_which(tmp_path):
    file = write(tmp_path / "hyp.ctm", "u1 1 0 1 a\nu2 A 0 1 b\nu2 B 0 1 c\n")
    assert texts(read_utterances(file)) == [("u1", "a"), ("u2-A", "b"), ("u2-B", "c")]


def test_the_formats_of_a_pair_can_be_given(tmp_path):
    stm, ctm = write(tmp_path / "ref.csv", STM), write(tmp_path / "hyp.csv", CTM)
    pair = read_pair(stm, ctm, reference_format="stm", hypothesis_format="ctm")
    assert pair.ignored_words == 2


def test_a_recording_that_was_not_recognised_has_no_hypothesis(tmp_path):
    stm = write(tmp_path / "ref.stm", "one A x 0 1 yes\ntwo A x 0 1 no\n")
    ctm = write(tmp_path / "hyp.ctm", "one A 5 1 late\n")
    assert texts(read_pair(stm, ctm).hypotheses) == [
        ("one-A-000000.000-000001.000", ""),
        ("one-A-outside-segments", "late"),
    ]


def test_our_transcripts_are_cut_to_the_segments_of_an_stm(tmp_path):
    stm = write(tmp_path / "ref.stm", "talk A x 0 1 good\ntalk A x 1 2 night\n")
    (tmp_path / "out").mkdir()
    write(tmp_path / "out" / "talk.json", json.dumps(TRANSCRIPT.to_dict()))
    assert [text for _, text in texts(read_pair(stm, tmp_path / "out").hypotheses)] == [
        "good",
        "night",
    ]


def test_channels_with_other_names_are_refused(tmp_path):
    stm = write(tmp_path / "ref.stm", "rec A x 0 1 yes\nrec B x 0 1 no\n")
    ctm = write(tmp_path / "hyp.ctm", "rec 1 0 1 yes\n")
    message = "recording 'rec' has channels '1' in the hypotheses and 'A', 'B' in the references"
    with pytest.raises(ValueError, match=message):
        read_pair(stm, ctm)


def test_a_hypothesis_without_word_times_cannot_be_cut():
    segment = Utterance("s", "yes", start=0.0, end=1.0, channel="A", recording="rec")
    with pytest.raises(ValueError, match="hypothesis 'rec' has no word times"):
        pair_segments([segment], [Utterance("rec", "yes")])


def test_a_reference_without_times_is_no_segment():
    word = TimedWord("yes", 0.0, 1.0)
    with pytest.raises(ValueError, match="reference 'rec' has no start and end"):
        pair_segments([Utterance("rec", "yes")], [Utterance("rec", "yes", words=(word,))])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=20),
    st.lists(st.integers(1, 60), unique=True, max_size=8),
)
def test_every_word_is_in_one_hypothesis(times, edges):
    bounds = sorted(edges)
    segments = [
        Utterance(f"s{start}", "x", start=start, end=end, channel="A", recording="r")
        for start, end in list(pairwise(bounds))[::2]
    ]
    words = tuple(TimedWord(f"w{i}", start, start + size) for i, (start, size) in enumerate(times))
    spoken = Utterance("r", " ".join(word.text for word in words), words=words)
    found = pair_segments(segments, [spoken]) if words else []
    heard = [word for utterance in found for word in utterance.words]
    assert sorted(heard, key=hash) == sorted(words, key=hash)
    for utterance in found:
        for word in utterance.words:
            middle = (word.start + word.end) / 2
            homes = [s.id for s in segments if s.start <= middle <= s.end]
            assert utterance.id in homes or (not homes and "outside" in utterance.id)


@pytest.mark.parametrize("content", [LONG_TEXTGRID, SHORT_TEXTGRID], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_word_times_are_read_from_textgrids(tmp_path, content, encoding):
    file = write(tmp_path / "a b.TextGrid", content.encode(encoding))
    words = (TimedWord('say "hi"', 0.5, 1.25), TimedWord("你好", 1.25, 2.0))
    expected = [Utterance("a b", 'say "hi" 你好', duration=2.5, words=words)]
    assert read_utterances(file) == expected
    assert read_utterances(tmp_path) == expected


word = st.text(st.sampled_from("ab'-你é"), min_size=1, max_size=4)
sentence = st.lists(word, max_size=5).map(" ".join)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(word, sentence), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_a_file_is_read_as_it_was_written(tmp_path_factory, pairs, end):
    folder = tmp_path_factory.mktemp("round")
    lines = {
        "jsonl": [json.dumps({"id": i, "text": text}, ensure_ascii=False) for i, text in pairs],
        "kaldi": [f"{i} {text}" for i, text in pairs],
        "trn": [f"{text} ({i})" for i, text in pairs],
        "tsv": [f"{i}\t{text}" for i, text in pairs],
    }
    for name, written in lines.items():
        content = codecs.BOM_UTF8 + (end.join(["", *written, " ", ""])).encode()
        for data in (content, gzip.compress(content)):
            file = write(folder / "file", data)
            assert texts(read_utterances(file, format=name)) == pairs


def test_separators_inside_a_text_end_no_line(tmp_path):
    content = '{"id": "a", "text": "one\u2028two"}\r{"id": "b", "text": ""}'
    file = write(tmp_path / "ref.jsonl", content)
    assert texts(read_utterances(file)) == [("a", "one\u2028two"), ("b", "")]


GOOD = '{"id": "a", "text": "x"}\n'
TIMES = '{"id": "a", "text": "x", %s}'
BAD = [
    ("ref.jsonl", GOOD.encode() + b'{"id": "b", "text": "caf\xe9"}',
     "line 2: encoding is not UTF-8, byte 25 of the line is 0xe9; accepted: UTF-8"),
    ("ref.jsonl", codecs.BOM_UTF8 + b"\xc4\xe3", "line 1: encoding is not UTF-8, byte 1 of"),
    ("ref.jsonl", codecs.BOM_UTF16_LE + b"\x00\xd8", "encoding is not utf-16"),
    ("ref.jsonl", gzip.compress(GOOD.encode())[:-9], "the gzip data is damaged"),
    ("ref.jsonl.gz", b"\x1f\x8b\x08\x00\x00", "the gzip data is damaged"),
    ("ref.jsonl", "", "no utterance in it; at least one is needed"),
    ("text", " \n\n", "no utterance in it; at least one is needed"),
    ("hyp.ctm", ";; nothing\n", "no utterance in it; at least one is needed"),
    ("ref.jsonl", "\n\n" + GOOD + "a one", "line 4: Expecting value"),
    ("ref.jsonl", '["a", "x"]', r"line 1: the line is \['a', 'x'\]; expected a JSON object"),
    ("ref.jsonl", "[" * 100_000, "line 1: the JSON is nested too deeply"),
    ("ref.jsonl", '{"id": "a"}', "line 1: field 'text' is None; expected a string"),
    ("ref.jsonl", '{"id": 7, "text": "x"}', "line 1: field 'id' is 7; expected a string"),
    ("ref.jsonl", '{"id": " ", "text": "x"}', "line 1: id is ' '; it may not be empty"),
    ("ref.jsonl", r'{"id": "a", "text": "\ud800"}', "line 1: .*surrogates not allowed"),
    ("ref.jsonl", TIMES % '"start": NaN', "line 1: field 'start' is nan; expected a finite number"),
    ("ref.jsonl", TIMES % '"duration": 1e999', "line 1: field 'duration' is inf"),
    ("ref.jsonl", TIMES % ('"end": 1' + 400 * "0"), "line 1: field 'end' is 1000"),
    ("ref.jsonl", TIMES % '"start": -1', "line 1: start is -1.0; expected a finite number of 0"),
    ("ref.jsonl", TIMES % '"start": 2, "end": 1', "line 1: end is 1.0, before start 2.0"),
    ("ref.jsonl", TIMES % '"snr": "12"', "line 1: field 'snr' is '12'"),
    ("ref.jsonl", TIMES % '"duration": true', "line 1: field 'duration' is True"),
    ("ref.jsonl", TIMES % '"audio": 3', "line 1: field 'audio' is 3"),
    ("ref.jsonl", TIMES % '"speaker": {}', "line 1: field 'speaker' is {}"),
    ("ref.jsonl", TIMES % '"words": "x"', "line 1: field 'words' is 'x'; expected a list"),
    ("ref.jsonl", TIMES % '"words": ["x"]', "line 1: a word is 'x'; expected a JSON object"),
    ("ref.jsonl", TIMES % '"words": [{"text": "x", "start": 1, "end": 0.5}]', "line 1: end is 0.5"),
    ("ref.jsonl", '{"recording_id": "r", "id": "a", "start": 0, "duration": "1", "text": "x"}',
     "line 1: field 'duration' is '1'"),
    ("ref.jsonl", json.dumps({**LHOTSE, "alignment": {"word": [["good", 1]]}}),
     r"line 1: an alignment is \['good', 1\]; expected \[symbol"),
    ("ref.jsonl", json.dumps({**LHOTSE, "alignment": []}) + "\n" + json.dumps({"id": "b"}),
     "line 2: field 'start' is None"),
    ("hyp.jsonl", '{"schema": "llmasr.transcript/9", "file": "a"}', "line 1: field 'schema' is"),
    ("hyp.jsonl", json.dumps(TRANSCRIPT.to_dict()), "line 1: field 'file' is None"),
    ("hyp.json", "[]", r"hyp.json: the line is \[\]; expected a JSON object"),
    ("ref.tsv", "id\ttext\na\tone\ttwo\n", "line 2: found 3 columns; expected 2: id, text"),
    ("ref.tsv", "a one\n", "line 1: found 1 columns; expected 2: id, text"),
    ("ref.tsv", "id\ttext\tsnr\na\tone\tloud\n", "line 2: snr is 'loud'; expected a number"),
    ("ref.tsv", "id\ttext\n\tone\n", "line 2: field 'id' is None"),
    ("ref.trn", "one (a-1)\ntwo\n", "line 2: found 'two'; expected words and then the id"),
    ("ref.trn", "one { um / @ } two (a-1)\n", "line 1: found alternates"),
    ("ref.stm", "rec A x 0 1 yes\nrec A x 0.5 2 no\n",
     "lines 1 and 2: segments 0.0-1.0 and 0.5-2.0 of recording 'rec', channel 'A' overlap"),
    ("ref.stm", "rec A x 5 9 a\nrec B x 0 9 b\nrec A x 0 6 c\n", "lines 3 and 1: segments"),
    ("ref.stm", "rec A x 0\n", "line 1: found 4 fields; expected recording, channel, speaker"),
    ("ref.stm", "rec A x 0 nan yes\n", "line 1: end is nan; expected a finite number"),
    ("ref.stm", "rec A x 2 1 yes\n", "line 1: end is 1.0, before start 2.0"),
    ("ref.stm", "rec A x one 1 yes\n", "line 1: start is 'one'; expected a number"),
    ("ref.stm", "rec A x 0 1 so { um / @ } yes\n", "line 1: found alternates"),
    ("hyp.ctm", "rec A 0 1\n", "line 1: found 4 fields; expected recording, channel, start"),
    ("hyp.ctm", "rec A 0 -1 yes\n", "line 1: duration is -1.0; expected a finite number of 0"),
    ("hyp.ctm", "rec A inf 1 yes\n", "line 1: start is inf"),
    ("hyp.ctm", "rec A 0 1 yes nan\n", "line 1: confidence is nan"),
    ("hyp.ctm", "rec A * * <ALT_BEGIN>\n", "line 1: found alternates <ALT_BEGIN>"),
    ("a.TextGrid", "rec A 0 1 yes", "line 1: file type is 0; expected a text"),
    ("a.TextGrid", '"ooTextFile" "Pitch" 0 1', "line 1: file type and object class are"),
    ("a.TextGrid", SHORT_TEXTGRID.replace("Words", "Phones"),
     "0 interval tiers are called 'words', expected one; the interval tiers are 'anna - Phones'"),
    ("a.TextGrid", SHORT_TEXTGRID.replace("<exists>", "<absent>"), "interval tiers are none"),
    ("a.TextGrid", SHORT_TEXTGRID[:-6], "line 21: text of an interval is the end of the"),
    ("a.TextGrid", SHORT_TEXTGRID.replace("0.5 1.25", "0.5 0.25"), "line 18: end is 0.25, before"),
    ("a.TextGrid", SHORT_TEXTGRID.replace("0.5 1.25", "0.5 1e999"), "line 18: xmax is inf"),
    ("a.TextGrid", SHORT_TEXTGRID.replace("0.5 1.25", "0.5 nan"), "line 18: xmax is .*; expected"),
    ("ref.csv", "a,b\n", "suffix '.csv' tells no format; known: .jsonl, .txt"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    BAD,
    ids=[case[2][:40] for case in BAD],
)
def test_a_bad_file_is_one_error_that_says_where_and_what(tmp_path, name, content, message):
    file = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as error:
        read_utterances(file)
    assert str(error.value).startswith(str(file))


def test_an_unknown_speaker_file_line_is_named(tmp_path):
    write(tmp_path / "utt2spk", "a anna\nb\n")
    with pytest.raises(ValueError, match=r"utt2spk, line 2: found 1 fields; expected utterance"):
        read_utterances(write(tmp_path / "text", "a one\n"))


def test_an_unknown_format_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="format is 'srt'; allowed: jsonl, kaldi, trn, stm, ctm"):
        read_utterances(tmp_path / "a.srt", format="srt")


def test_texts_by_id_refuse_an_id_that_occurs_twice(tmp_path):
    file = write(tmp_path / "text", "a one\nb two\n")
    assert read_texts(file) == {"a": "one", "b": "two"}
    with pytest.raises(ValueError, match="text: id 'a' occurs twice"):
        read_texts(write(file, "a one\na two\n"))


def test_a_format_that_is_given_beats_the_suffix(tmp_path):
    assert texts(read_utterances(write(tmp_path / "ref.csv", "a one"), format="kaldi"))


def test_a_folder_without_transcripts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither \.json nor \.TextGrid files; expected"):
        read_utterances(tmp_path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    for name in FORMATS:
        with pytest.raises(FileNotFoundError):
            read_utterances(tmp_path / "absent", format=name)


def test_a_large_ctm_of_many_recordings_is_read_in_linear_time(tmp_path):
    lines = "".join(f"u{i} 1 0.{j} 0.1 w{j}\n" for i in range(5000) for j in range(4))
    assert len(read_ctm(write(tmp_path / "hyp.ctm", lines))) == 5000
