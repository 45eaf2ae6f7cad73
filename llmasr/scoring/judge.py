"""A language model as judge: how good are answers, relative to reference answers?

The judge is any function from a prompt to a reply (see `judge_endpoint` for one behind HTTP). The
published rule, printed as `RULE` beside every number:

- The judge sees context, question and both answers, and gives each 1 to 10. It is asked in both
  orders, and an answer's score is the mean of the two; so whoever stands first gains nothing.
- A reply in which no two scores are found (`judge_replies` has the rule) is asked for again, with a
  reminder. An item that still lacks scores in either order is unparsed: counted, listed, and in
  no mean. Nothing is put in its place.
- relative score = 100 * sum of candidate scores / sum of reference scores, over the items of a
  category, and over all items.

The measure is that of LLaVA (Liu et al. 2023, section 5.1) and of X-LLM (Chen et al. 2023), which
ask in one order only.

    from llmasr.scoring.judge import JudgeItem, judge_answers
    print(judge_answers(items, judge, name="judge-model", log=Path("log.jsonl")))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmasr.scoring.intervals import bracket, ratio_interval
from llmasr.scoring.judge_log import Query, ReplyLog
from llmasr.scoring.judge_replies import Scores, parse_scores

Judge = Callable[[str], str]

RULE = "relative-both-orders-1"
ATTEMPTS = 3

CANDIDATE_FIRST, REFERENCE_FIRST = "candidate first", "reference first"

PROMPT = """\
You are to compare two answers to a question about something that you cannot see or hear yourself. \
A description of it is given; take the description as true.

[Description]
{context}

[Question]
{question}

[Answer of assistant 1]
{first}
[End of the answer of assistant 1]

[Answer of assistant 2]
{second}
[End of the answer of assistant 2]

Judge how helpful, relevant, accurate and detailed each answer is, and give each a score from 1 \
(worst) to 10 (best). Which answer comes first means nothing, and neither does length by itself. \
Write two numbers on the first line and nothing else there: the score of assistant 1, a space, the \
score of assistant 2. Explain your scores from the second line on.
"""
REMINDER = """
Begin with the two numbers, such as "5 5": your last reply did not.
"""


@dataclass(frozen=True)
class JudgeItem:
    """One question with two answers.

    Attributes:
        id: unique among the items.
        category: what the report groups by, such as "conversation" or "detail".
        question: what was asked.
        context: what the judge is told instead of the picture: captions, boxes, a transcript.
        reference: the answer to compare with.
        candidate: the answer under test; may be empty, as a failed answer is.
    """

    id: str
    category: str
    question: str
    context: str
    reference: str
    candidate: str


@dataclass(frozen=True)
class Relative:
    """The relative score of a group of items.

    Attributes:
        items: items with scores.
        unparsed: items without; they are in no other number.
        candidate: sum of the candidates' scores.
        reference: sum of the references' scores.
        interval: 95 % bootstrap interval of `score` over items; None below two items.
    """

    items: int
    unparsed: int
    candidate: float
    reference: float
    interval: tuple[float, float] | None

    @property
    def score(self) -> float:
        """Candidates' points per 100 points of the references; nan without scores."""
        return relative_score(self.candidate, self.reference)

    def __str__(self) -> str:
        """Return the score, its interval, the sums behind it, and how many items are left out."""
        return (
            f"{self.score:.1f}{bracket(self.interval, 1)} ({self.candidate:g}:{self.reference:g},"
            f" n={self.items}, unparsed {self.unparsed})"
        )


@dataclass(frozen=True)
class JudgeReport:
    """What a judge says of a set of answers.

    Attributes:
        judge: the judge's name.
        categories: relative score of each category, in order of first appearance.
        overall: relative score of all items.
        unparsed: ids of items without scores, in order.
        repeated: replies that had to be asked for again.
        order_bias: points by which what stands first leads what stands second, whatever it is, mean
            over items; 0 for a judge that does not care, nan without scores.
        order_bias_interval: its 95 % bootstrap interval; None below two items.
        reversals: items of which the judge prefers one answer in one order, the other in the other.
        rule: id of the rule.
    """

    judge: str
    categories: Mapping[str, Relative]
    overall: Relative
    unparsed: tuple[str, ...]
    repeated: int
    order_bias: float
    order_bias_interval: tuple[float, float] | None
    reversals: int
    rule: str = RULE

    def __str__(self) -> str:
        """Return a line a category, one of all, and one of the judge."""
        lines = [f"{name}: {relative}" for name, relative in self.categories.items()]
        lines.append(f"all: {self.overall}")
        lines.append(
            f"judge={self.judge} rule={self.rule} asked again {self.repeated}, lead of the first"
            f" place {self.order_bias:+.2f}{bracket(self.order_bias_interval, 2)},"
            f" reversed by the order {self.reversals}"
        )
        return "\n".join(lines)


def relative_score(candidate: float, reference: float) -> float:
    """Return 100 * candidate / reference, for sums of scores; nan if there are none."""
    return 100 * candidate / reference if reference else float("nan")


def judge_answers(
    items: Sequence[JudgeItem],
    judge: Judge,
    *,
    name: str,
    log: Path | None = None,
    attempts: int = ATTEMPTS,
) -> JudgeReport:
    """Let a judge score every item in both orders.

    What the judge raises is raised: an item that could not be asked is not an item that could not
    be read. With a log, the next run goes on where this one stopped.

    Args:
        items: at least one, with ids that differ.
        judge: prompt to reply.
        name: the judge's name and version; stands in the report, and in the log, so that one judge
            never gets the replies of another.
        log: JSON lines to which every reply is appended, and from which replies to the same prompt
            are taken.
        attempts: how often to ask before an item counts as unparsed; at least 1.

    Raises:
        ValueError: an argument is not as above, or a line of the log is damaged.
    """
    _check(items, attempts)
    replies = ReplyLog(log)
    orders = (CANDIDATE_FIRST, REFERENCE_FIRST)
    verdicts = []
    for item in items:
        asked = [_ask(judge, name, item, order, replies, attempts) for order in orders]
        verdicts.append(_Verdict(item, *asked))
    return _report(name, verdicts)


def build_prompt(item: JudgeItem, order: str) -> str:
    """Return what the judge reads; `order` is CANDIDATE_FIRST or REFERENCE_FIRST."""
    answers = [item.candidate, item.reference]
    if order == REFERENCE_FIRST:
        answers.reverse()
    return PROMPT.format(
        context=item.context, question=item.question, first=answers[0], second=answers[1]
    )


def _check(items: Sequence[JudgeItem], attempts: int) -> None:
    if not items:
        raise ValueError("items is empty; at least one is needed")
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}; at least 1 is needed")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"items: id {item.id!r} occurs twice")
        seen.add(item.id)


class _Asked(NamedTuple):
    """What one order brought: scores by place, if any, and how often to ask it took."""

    scores: Scores | None
    replies: int


def _ask(
    judge: Judge, name: str, item: JudgeItem, order: str, log: ReplyLog, attempts: int
) -> _Asked:
    prompt = build_prompt(item, order)
    query = Query(name, item.id, order, prompt)
    for attempt in range(attempts):
        if attempt == len(log.replies(query)):
            log.add(query, _reply(judge, prompt + REMINDER if attempt else prompt, item))
        scores = parse_scores(log.replies(query)[attempt])
        if scores:
            return _Asked(scores, attempt + 1)
    return _Asked(None, attempts)


def _reply(judge: Judge, prompt: str, item: JudgeItem) -> str:
    reply = judge(prompt)
    if not isinstance(reply, str):
        raise ValueError(f"the judge returned {reply!r} for item {item.id!r}; expected a string")
    return reply


@dataclass(frozen=True)
class _Verdict:
    item: JudgeItem
    candidate_first: _Asked
    reference_first: _Asked

    @property
    def scores(self) -> tuple[Scores, Scores] | None:
        """Scores by place, the candidate's order first; None if either is not there."""
        one, other = self.candidate_first.scores, self.reference_first.scores
        return None if one is None or other is None else (one, other)


def _report(name: str, verdicts: Sequence[_Verdict]) -> JudgeReport:
    groups: dict[str, list[_Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.item.category, []).append(verdict)
    scores = [verdict.scores for verdict in verdicts if verdict.scores]
    # [items]: by how much the first place leads, and which answer is preferred, in either order
    leads = np.array([(a.first - a.second + b.first - b.second) / 2 for a, b in scores])
    preferences = [(a.first - a.second) * (b.second - b.first) for a, b in scores]
    asked = [each for v in verdicts for each in (v.candidate_first, v.reference_first)]
    return JudgeReport(
        judge=name,
        categories={category: _relative(group) for category, group in groups.items()},
        overall=_relative(verdicts),
        unparsed=tuple(verdict.item.id for verdict in verdicts if not verdict.scores),
        repeated=sum(each.replies - 1 for each in asked),
        order_bias=float(leads.mean()) if scores else float("nan"),
        order_bias_interval=ratio_interval(leads, np.ones(len(leads))),
        reversals=sum(preference < 0 for preference in preferences),
    )


def _relative(verdicts: Sequence[_Verdict]) -> Relative:
    scores = [verdict.scores for verdict in verdicts if verdict.scores]
    candidates = np.array([(a.first + b.second) / 2 for a, b in scores])  # [items]
    references = np.array([(a.second + b.first) / 2 for a, b in scores])  # [items]
    interval = ratio_interval(candidates, references)
    return Relative(
        items=len(scores),
        unparsed=len(verdicts) - len(scores),
        candidate=float(candidates.sum()),
        reference=float(references.sum()),
        interval=interval and (100 * interval[0], 100 * interval[1]),
    )
