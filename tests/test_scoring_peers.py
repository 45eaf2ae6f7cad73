"""Our counts against those of jiwer, kaldialign and NIST's SCTK on the same random pairs.

sclite minimises 4 S + 3 (D + I), not S + D + I. So its number of errors may only be compared with
what the alignments of least weighted cost can have, which is counted here with rapidfuzz.
"""

import random
import re
import shutil
import subprocess

import jiwer
import pytest
from rapidfuzz.distance import Levenshtein

from llmasr.scoring import TimedWord, Utterance, compare, score
from llmasr.scoring.writing import write_ctm, write_trn

PAIRS = 2000
LETTERS = [*"abcdefg", "你", "hello", "it's"]


def random_pairs(seed=11):
    """Words of a small vocabulary, so that ties are many; half of the pairs are alike."""
    generator = random.Random(seed)
    pairs = []
    for number in range(PAIRS):
        reference = generator.choices(LETTERS, k=generator.randint(1, 14))
        if number % 2:
            hypothesis = generator.choices(LETTERS, k=generator.randint(0, 14))
        else:
            hypothesis = [generator.choice([w, w, w, w, "x y", ""]) for w in reference]
        pairs.append((" ".join(reference), " ".join(" ".join(hypothesis).split())))
    return pairs


@pytest.fixture(scope="module")
def pairs():
    return random_pairs()


@pytest.fixture(scope="module")
def ours(pairs):
    references = [
        Utterance(f"s{i % 9}-u{i:05}", said, group=f"s{i % 9}") for i, (said, _) in enumerate(pairs)
    ]
    hypotheses = [
        Utterance(each.id, heard) for each, (_, heard) in zip(references, pairs, strict=True)
    ]
    return score(references, hypotheses)


@pytest.fixture(scope="module")
def sctk():
    """Run a program of SCTK, which Debian hides behind `sctk`."""
    if not shutil.which("sclite") and not shutil.which("sctk"):
        pytest.skip("SCTK is not installed: neither sclite nor sctk on PATH")
    prefix = [] if shutil.which("sclite") else ["sctk"]

    def run(*arguments, cwd, text=""):
        command = [*prefix, *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=cwd,
            input=text,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=60,
        ).stdout

    return run


def write_sides(result, folder):
    references = result.details[: result.references]
    write_trn(folder / "ref.trn", references, "reference")
    write_trn(folder / "hyp.trn", references, "hypothesis")


def sclite(sctk, folder, *more, hypothesis="hyp.trn", output="pralign"):
    arguments = (
        "-r",
        "ref.trn",
        "trn",
        "-h",
        hypothesis,
        "trn",
        "-i",
        "spu_id",
        "-e",
        "utf-8",
        "-s",
    )
    return sctk("sclite", *arguments, "-o", output, "stdout", *more, cwd=folder)


def sclite_counts(printed):
    """Ids to (S, D, I) of a printed alignment."""
    found = re.findall(r"^id: \((.+)\)\n(?:.*\n)*?Scores: .* \d+ (\d+) (\d+) (\d+)$", printed, re.M)
    return {identifier: tuple(map(int, counts)) for identifier, *counts in found}


def weighted_cost(detail, insertion, deletion, substitution):
    return Levenshtein.distance(
        detail.reference, detail.hypothesis, weights=(insertion, deletion, substitution)
    )


def sclite_range(detail):
    """Fewest and most errors among the alignments with the least 4 S + 3 (D + I).

    A thousandth more, or less, for every error makes the fewest, or most, errors the cheapest.
    """
    fewest = weighted_cost(detail, 3001, 3001, 4001) % 1000
    most = -weighted_cost(detail, 2999, 2999, 3999) % 1000
    return fewest, most


def test_words_equal_those_of_jiwer(ours, pairs):
    theirs = jiwer.process_words(*map(list, zip(*pairs, strict=True)))
    assert ours.substitutions == theirs.substitutions
    assert ours.deletions == theirs.deletions
    assert ours.insertions == theirs.insertions
    assert ours.units == theirs.hits + theirs.substitutions + theirs.deletions
    assert ours.rate == theirs.wer


def test_characters_equal_those_of_jiwer_once_spaces_are_gone(pairs):
    joined = [tuple(text.replace(" ", "") for text in pair) for pair in pairs]
    theirs = jiwer.process_characters(*map(list, zip(*joined, strict=True)))
    ours = score(*({str(i): pair[k] for i, pair in enumerate(pairs)} for k in (0, 1)), metric="cer")
    assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert ours.rate == theirs.cer


def test_errors_equal_those_of_kaldialign_utterance_by_utterance(ours):
    kaldialign = pytest.importorskip("kaldialign", reason="kaldialign is not installed")
    for each in ours.details:
        theirs = kaldialign.edit_distance(each.reference, each.hypothesis)
        assert each.errors == theirs["total"], each
        assert each.insertions - each.deletions == theirs["ins"] - theirs["del"]


def test_errors_equal_those_of_sclite_where_its_costs_leave_no_choice(ours, sctk, tmp_path):
    write_sides(ours, tmp_path)
    theirs = sclite_counts(sclite(sctk, tmp_path))
    assert set(theirs) == {each.id for each in ours.details}
    unique = equal = 0
    for each in ours.details:
        errors = sum(theirs[each.id])
        fewest, most = sclite_range(each)
        assert each.errors <= fewest <= errors <= most, each
        unique += fewest == most == each.errors
        equal += errors == each.errors
    assert unique > 0.9 * PAIRS  # 1,912 of 2,000; 1,988 are equal
    assert equal >= unique


def test_totals_equal_those_of_sclite_where_words_occur_once(sctk, tmp_path):
    """Without ties and lucky matches 4/3/3 and 1/1/1 agree on realistic errors."""
    generator = random.Random(4)
    references, hypotheses = {}, {}
    for number in range(PAIRS):
        words = [f"w{number}n{i}" for i in range(generator.randint(1, 20))]
        heard = [generator.choice([w] * 8 + ["wrong", ""]) for w in words]
        heard += ["more"] * generator.choice([0, 0, 1])
        references[f"s-{number:04}"] = " ".join(words)
        hypotheses[f"s-{number:04}"] = " ".join(" ".join(heard).split())
    result = score(references, hypotheses)
    write_sides(result, tmp_path)
    theirs = sclite_counts(sclite(sctk, tmp_path))
    assert result.errors > 1000
    assert result.errors == sum(map(sum, theirs.values()))


SIGNS = [
    "{", "a{b}", "{ x / y }", "@", "a;b", ";", ";;", "back\\slash", "*", "star*", "**", "5%", "%7B",
    "(uh)", "<b>", "cut-", "/", "#", "\"", "\u00c9t\u00e9", "(a", "b)", "nul\x01", "\u4f60",
]  # fmt: skip


def test_sclite_counts_texts_and_ids_with_its_own_signs_as_we_do(sctk, tmp_path):
    references, hypotheses = {}, {}
    for number, sign in enumerate(SIGNS):
        kept, lost = f"id {sign} {number}", f"u-{number}"
        references |= {kept: f"{sign} b {sign}", lost: f"a {sign} b"}
        hypotheses |= {kept: f"{sign} b {sign}", lost: "a wrong"}
    references["nospeaker"] = hypotheses["nospeaker"] = "a b"
    result = score(references, hypotheses)
    write_sides(result, tmp_path)
    theirs = sclite_counts(sclite(sctk, tmp_path))
    assert len(theirs) == len(references)
    assert sum(map(sum, theirs.values())) == result.errors


def test_matched_pairs_equal_those_of_sc_stats(sctk, tmp_path):
    generator = random.Random(3)
    references = {
        f"spk{u % 4}-u{u:03}": [f"w{u}n{i}" for i in range(generator.randint(1, 15))]
        for u in range(150)
    }

    def heard(rate, mark):
        kinds = ["keep"] * 20 + ["substitute"] * rate + ["delete", "insert"] * (rate // 2)
        made = {"keep": "{0}", "substitute": "{0}{1}", "delete": "", "insert": "{0} new{1}"}
        return {
            i: " ".join(made[generator.choice(kinds)].format(word, mark) for word in words)
            for i, words in references.items()
        }

    texts = {i: " ".join(words) for i, words in references.items()}
    one, two = (score(texts, heard(rate, mark)) for rate, mark in ((4, "a"), (2, "b")))
    piped = ""
    for result, name in ((one, "one.trn"), (two, "two.trn")):
        write_sides(result, tmp_path)
        (tmp_path / "hyp.trn").rename(tmp_path / name)
        piped += sclite(sctk, tmp_path, hypothesis=name, output="sgml")
    sctk("sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "x", cwd=tmp_path, text=piped)
    printed = (tmp_path / "x.stats.mapsswe").read_bytes().decode("latin-1")
    segments = int(re.search(r"# segs: (\d+)", printed).group(1))
    mean, deviation, z = (
        float(re.search(rf"{name}: +(-?[\d.]+)", printed).group(1))
        for name in ("mean", "std dev", "Z Stat")
    )
    ours = compare(one, two).matched_pairs
    assert ours.segments == segments > 50
    assert (ours.mean, ours.deviation) == pytest.approx((mean, deviation), abs=0.0006)
    assert ours.z == pytest.approx(z, abs=0.0006)


def test_sclite_reads_our_ctm(sctk, tmp_path):
    words = (TimedWord("hello", 1.0, 1.5, 0.9), TimedWord("a;b", 1.5, 1.75))
    heard = [
        Utterance("2", "late", recording="call", channel="B", words=(TimedWord("late", 7.0, 7.5),)),
        Utterance("1", "hello a;b", recording="call", channel="A", words=words),
    ]
    write_ctm(tmp_path / "hyp.ctm", heard)
    (tmp_path / "ref.stm").write_text("call A s1 0 5 hello a%3Bb\ncall B s2 6 9 early\n")
    printed = sctk(
        "sclite",
        "-r",
        "ref.stm",
        "stm",
        "-h",
        "hyp.ctm",
        "ctm",
        "-o",
        "pralign",
        "stdout",
        cwd=tmp_path,
    )
    assert sorted(sclite_counts(printed).values()) == [(0, 0, 0), (1, 0, 0)]
