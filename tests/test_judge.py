import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llmasr.scoring import judge_endpoint
from llmasr.scoring.judge import (
    CANDIDATE_FIRST,
    REFERENCE_FIRST,
    REMINDER,
    JudgeItem,
    build_prompt,
    judge_answers,
    relative_score,
)
from llmasr.scoring.judge_endpoint import EndpointJudge, JudgeError
from llmasr.scoring.judge_replies import parse_scores

REPLIES = [
    ("8 9", (8, 9)),
    ("8, 9", (8, 9)),
    ("8.5 9.0", (8.5, 9)),
    ("1 10", (1, 10)),
    ("2 1", (2, 1)),
    ("8 - 9", (8, 9)),
    ("8\n9", (8, 9)),
    ("[8, 9]", (8, 9)),
    ("Scores: 8 9", (8, 9)),
    ("Scores 1 9", (1, 9)),
    ("3 and 8, respectively", (3, 8)),
    ("Assistant 1 and 2 receive scores of 3 and 8, respectively.", (3, 8)),
    ("The scores for Assistant 2 and Assistant 1 are 9 and 8, respectively.", (8, 9)),
    ("10/10 9/10", (10, 9)),
    ("8 out of 10 and 9 out of 10", (8, 9)),
    ("Score (1-10): 8 9", (8, 9)),
    ("On a scale of 1 to 10: 8 and 9", (8, 9)),
    ("Assistant 1: 8/10 and Assistant 2: 9/10", (8, 9)),
    ("Assistant 1: 8/10\nAssistant 2: 9/10", (8, 9)),
    ("Assistant 2: 9/10, Assistant 1: 8/10", (8, 9)),
    ("1. Assistant 1: 8\n2. Assistant 2: 9", (8, 9)),
    ("1. 8/10\n2. 9/10", (8, 9)),
    ("Assistant 1: 8/10, since it names 3 dogs.\nAssistant 2: 9/10, as it names 4.", (8, 9)),
    ("Assistant 2: 9/10 is clear.\nAssistant 1: 8/10 is fine.", (8, 9)),
    ("I would give Assistant 1 a score of 8 and Assistant 2 a score of 9.", (8, 9)),
    ("I'd rate Assistant 1 an 8 and Assistant 2 a 9.", (8, 9)),
    ("The first answer deserves 8/10; the second, with more detail, is a 9/10.", (8, 9)),
    ("### Assistant 1\n**Score: 8**\n### Assistant 2\n**Score: 9**\nBoth ...", (8, 9)),
    ("| Assistant 1 | 8 |\n| Assistant 2 | 9 |", (8, 9)),
    ("A: 8\nB: 9", (8, 9)),
    ('```json\n{\n  "score1": 8,\n  "score2": 9\n}\n```', (8, 9)),
    ('{"assistant_1": 8, "assistant_2": 9}', (8, 9)),
    ("Both name 3 dogs and 2 cats.\n\nScores: 8 9", (8, 9)),
    ("8 9\nAssistant 1 names 3 dogs, assistant 2 names 4.", (8, 9)),
    ("<think>3 dogs ... 5 6?</think>\n8 9", (8, 9)),
    ("\uff18\u3000\uff19", (8, 9)),
    ("\uff18.\uff15\uff0c\uff19", (8.5, 9)),
    ("8、9", (8, 9)),
    ("助手1：８分，助手2：９分", (8, 9)),
    ("助手1得8分，助手2得9分。", (8, 9)),
    ("助手1和助手2的评分分别是8分和9分", (8, 9)),
    ("第一个回答：7分（满分10分）\n第二个回答：8分（满分10分）", (7, 8)),
    ("评分：8 9\n解释：助手1提到了3个人", (8, 9)),
]

NOT_SCORES = [
    "",
    "I cannot judge this.",
    "8",
    "8 9 7",
    "-1 -1",
    "0 9",
    "8 11",
    "80% 90%",
    "2023-05-08",
    "Both name 3 dogs and 2 cats.",
    "Assistant 1 mentions 3 people while Assistant 2 mentions 4.",
    "Assistant 1: 8, 7, 9\nAssistant 2: 9, 9, 9",
    "Assistant 1: 8, 9",
    "Assistant 1 (3 errors), Assistant 2 (2 errors)",
    "Helpfulness: 8/10 and 9/10\nAccuracy: 7/10 and 8/10",
    "The second is better: 9/10. Assistant 2 wins, assistant 1 gets 8/10 only.",
    "<think>8 9",
]


@pytest.mark.parametrize(("reply", "expected"), REPLIES)
def test_scores_are_found_anywhere(reply, expected):
    assert parse_scores(reply) == expected


@pytest.mark.parametrize("reply", NOT_SCORES)
def test_numbers_that_are_no_scores_are_not_taken_for_scores(reply):
    assert parse_scores(reply) is None


def test_a_long_reply_is_read_in_no_time():
    assert parse_scores(f"8{20_000 * ' '}{20_000 * chr(10)}9") == (8, 9)
    assert parse_scores(20_000 * "8/10 ") is None


def item(name, category="detail", reference="good", candidate="fair"):
    return JudgeItem(name, category, f"question {name}?", "a dog [0.1, 0.2]", reference, candidate)


def answers(prompt):
    """The two answers of a prompt, by place."""
    return re.findall(r"\[Answer of assistant \d\]\n(.*?)\n\[End", prompt, re.DOTALL)


def table_judge(points):
    """A judge that gives every answer the points of its text, wherever it stands."""
    return lambda prompt: " ".join(str(points[answer]) for answer in answers(prompt))


def spread(total, count):
    """`count` whole numbers of sum `total`, as equal as can be."""
    return [total // count + (place < total % count) for place in range(count)]


SUMS = {"conversation": (176, 206), "detail": (208, 249), "complex": (225, 266)}


def test_the_sums_of_xllm_give_its_table():
    items, points = [], {}
    for category, sums in SUMS.items():
        for n, scores in enumerate(zip(*(spread(total, 30) for total in sums), strict=True)):
            texts = [f"{category} {n} by {who}" for who in ("candidate", "reference")]
            points.update(zip(texts, scores, strict=True))
            items.append(item(f"{category}-{n}", category, texts[1], texts[0]))
    report = judge_answers(items, table_judge(points), name="table")
    found = {name: round(relative.score, 1) for name, relative in report.categories.items()}
    assert found == {"conversation": 85.4, "detail": 83.5, "complex": 84.6}
    assert round(report.overall.score, 1) == 84.5
    assert (report.overall.candidate, report.overall.reference) == (609, 721)
    low, high = report.overall.interval
    assert low < report.overall.score < high
    assert (report.order_bias, report.reversals, report.unparsed) == (0, 0, ())
    assert "all: 84.5 [95 % CI" in str(report)
    assert "(609:721, n=90, unparsed 0)" in str(report)


def test_the_relative_score_of_nothing_is_no_number():
    assert relative_score(609, 721) == pytest.approx(84.466, abs=1e-3)
    assert relative_score(0, 0) != relative_score(0, 0)


def test_every_item_is_asked_in_both_orders():
    prompts = []

    def judge(prompt):
        prompts.append(prompt)
        return "5 5"

    judge_answers([item("a")], judge, name="j")
    assert [answers(prompt) for prompt in prompts] == [["fair", "good"], ["good", "fair"]]
    assert prompts == [
        build_prompt(item("a"), order) for order in (CANDIDATE_FIRST, REFERENCE_FIRST)
    ]
    assert all("question a?" in prompt and "a dog [0.1, 0.2]" in prompt for prompt in prompts)


def test_text_with_braces_reaches_the_judge_as_it_is():
    odd = item("a", candidate="{question} {0} %s")
    assert answers(build_prompt(odd, CANDIDATE_FIRST))[0] == "{question} {0} %s"


def test_a_judge_that_prefers_the_first_place_gives_nobody_an_advantage():
    report = judge_answers([item("a"), item("b")], lambda prompt: "9 6", name="first")
    assert report.overall.score == 100
    assert (report.order_bias, report.order_bias_interval) == (3, (3, 3))
    assert report.reversals == 2
    assert "lead of the first place +3.00" in str(report)


def test_a_slight_bias_is_measured_beside_the_preference():
    def judge(prompt):
        return "7 8" if answers(prompt)[0] == "fair" else "10 6"

    report = judge_answers([item("a")], judge, name="j")
    assert (report.overall.candidate, report.overall.reference) == (6.5, 9)
    assert report.order_bias == 1.5
    assert report.reversals == 0
    assert report.overall.interval is None


def test_an_unparsable_reply_is_asked_for_again_with_a_reminder():
    prompts = []

    def judge(prompt):
        prompts.append(prompt)
        return "8 9" if prompt.endswith(REMINDER) else "Both are fine."

    report = judge_answers([item("a")], judge, name="j")
    assert len(prompts) == 4
    assert report.repeated == 2
    assert report.unparsed == ()


@pytest.mark.parametrize("deaf_order", [CANDIDATE_FIRST, REFERENCE_FIRST])
def test_an_unparsed_item_is_counted_and_in_no_mean(deaf_order):
    deaf = build_prompt(item("b"), deaf_order)
    calls = []

    def judge(prompt):
        calls.append(prompt)
        return "no" if prompt.startswith(deaf) else table_judge({"good": 8, "fair": 6})(prompt)

    report = judge_answers([item("a"), item("b")], judge, name="j", attempts=2)
    assert report.unparsed == ("b",)
    assert (report.overall.items, report.overall.unparsed) == (1, 1)
    assert (report.overall.candidate, report.overall.reference) == (6, 8)
    assert sum(prompt.startswith(deaf) for prompt in calls) == 2
    assert "unparsed 1" in str(report)


def test_no_scores_at_all_are_reported_as_such():
    report = judge_answers([item("a"), item("b")], lambda prompt: "", name="j", attempts=1)
    assert report.overall.score != report.overall.score
    assert report.overall.interval is None
    assert report.unparsed == ("a", "b")
    assert "nan" in str(report)


def test_intervals_do_not_depend_on_the_order_of_items():
    points = {"good": 8, **{f"answer {n}": n for n in range(1, 10)}}
    items = [item(str(n), candidate=f"answer {n}") for n in range(1, 10)]
    one, other = (
        judge_answers(each, table_judge(points), name="j").overall.interval
        for each in (items, items[::-1])
    )
    assert one == other


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    log = tmp_path / "log.jsonl"
    items = [item(name) for name in "abc"]
    asked = []

    def judge(prompt):
        asked.append(prompt)
        if len(asked) == 4:
            raise TimeoutError("gone")
        return "6 8\u2028"

    with pytest.raises(TimeoutError):
        judge_answers(items, judge, name="j", log=log)
    report = judge_answers(items, judge, name="j", log=log)
    assert len(asked) == 1 + 6
    assert judge_answers(items, judge, name="j", log=log) == report
    assert len(asked) == 1 + 6


def test_more_attempts_go_on_after_those_of_the_log(tmp_path):
    log = tmp_path / "log.jsonl"
    judge_answers([item("a")], lambda prompt: "no", name="j", log=log, attempts=2)
    asked = []

    def judge(prompt):
        asked.append(prompt)
        return "6 8"

    report = judge_answers([item("a")], judge, name="j", log=log, attempts=3)
    assert len(asked) == 2
    assert all(prompt.endswith(REMINDER) for prompt in asked)
    assert (report.repeated, report.unparsed) == (4, ())


@pytest.mark.parametrize("change", [{"name": "other"}, {"candidate": "better"}])
def test_replies_of_another_judge_or_to_another_answer_are_not_reused(change, tmp_path):
    log = tmp_path / "log.jsonl"
    judge_answers([item("a")], lambda prompt: "5 5", name="j", log=log)
    asked = []

    def judge(prompt):
        asked.append(prompt)
        return "5 5"

    changed = item("a", candidate=change.get("candidate", "fair"))
    judge_answers([changed], judge, name=change.get("name", "j"), log=log)
    assert len(asked) == 2


def test_a_line_cut_off_by_an_interruption_is_asked_again(tmp_path):
    log = tmp_path / "log.jsonl"
    expected = judge_answers([item("a")], lambda prompt: "6 8", name="j", log=log)
    log.write_bytes(log.read_bytes()[:-9])
    assert judge_answers([item("a")], lambda prompt: "6 8", name="j", log=log) == expected
    assert [json.loads(line)["reply"] for line in log.read_text().splitlines()] == ["6 8", "6 8"]


@pytest.mark.parametrize("line", ["no json", "[]", '{"judge": "j"}'])
def test_a_damaged_log_is_an_error_that_names_the_line(line, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1: "):
        judge_answers([item("a")], lambda prompt: "6 8", name="j", log=log)


def test_wrong_arguments_are_refused():
    def judge(prompt):
        return "5 5"

    with pytest.raises(ValueError, match="items is empty"):
        judge_answers([], judge, name="j")
    with pytest.raises(ValueError, match="id 'a' occurs twice"):
        judge_answers([item("a"), item("a")], judge, name="j")
    with pytest.raises(ValueError, match="attempts is 0"):
        judge_answers([item("a")], judge, name="j", attempts=0)
    with pytest.raises(ValueError, match="the judge returned None for item 'a'"):
        judge_answers([item("a")], lambda prompt: None, name="j")


def completion(content):
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


@pytest.fixture
def server(monkeypatch):
    """An endpoint on this machine that sends prepared (status, headers, body) one by one."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(
        judge_endpoint.time, "sleep", lambda seconds: endpoint.pauses.append(seconds)
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.requests.append((self.path, dict(self.headers), json.loads(body)))
            status, headers, content = endpoint.prepared.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    endpoint = HTTPServer(("127.0.0.1", 0), Handler)
    endpoint.requests, endpoint.prepared, endpoint.pauses = [], [], []
    endpoint.url = f"http://127.0.0.1:{endpoint.server_port}/v1/"
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield endpoint
    endpoint.shutdown()
    thread.join()
    endpoint.server_close()


def test_an_endpoint_is_asked_in_the_form_of_chat_completions(server):
    server.prepared = [(200, {}, completion("8 9 是"))]
    assert EndpointJudge(server.url, "m", key="secret")("谁？") == "8 9 是"
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "m"
    assert body["messages"] == [{"role": "user", "content": "谁？"}]


def test_an_endpoint_judges(server):
    server.prepared = [(200, {}, completion("6 8")), (200, {}, completion("8 6"))]
    report = judge_answers([item("a")], EndpointJudge(server.url, "m"), name="m")
    assert report.overall.score == 75
    assert "Authorization" not in server.requests[0][1]


def test_a_busy_endpoint_is_asked_again_after_a_pause(server):
    busy = [(429, {"Retry-After": "7"}, b""), (503, {}, b""), (500, {}, b"")]
    server.prepared = [*busy, (200, {}, completion("8 9"))]
    assert EndpointJudge(server.url, "m")("?") == "8 9"
    assert server.pauses[0] == 7
    assert 1 <= server.pauses[1] <= 2 <= server.pauses[2] <= 4


def test_a_server_cannot_ask_for_a_pause_without_end(server):
    server.prepared = [(429, {"Retry-After": "99999"}, b""), (200, {}, completion("8 9"))]
    EndpointJudge(server.url, "m")("?")
    assert server.pauses == [60]


def test_an_endpoint_that_stays_busy_is_an_error(server):
    server.prepared = [(503, {}, b"overloaded")] * 2
    with pytest.raises(JudgeError, match=r"HTTP 503: overloaded \(try 2 of 2\)"):
        EndpointJudge(server.url, "m", key="secret", tries=2)("?")


def test_a_refusal_is_an_error_at_once_and_does_not_tell_the_key(server):
    server.prepared = [(401, {}, b"wrong key")]
    judge = EndpointJudge(server.url, "m", key="secret")
    with pytest.raises(JudgeError, match="HTTP 401: wrong key") as caught:
        judge("?")
    assert "secret" not in str(caught.value) + repr(judge)
    assert server.pauses == []


def test_a_redirect_is_not_followed(server):
    server.prepared = [(302, {"Location": server.url + "elsewhere"}, b"")]
    with pytest.raises(JudgeError, match="HTTP 302"):
        EndpointJudge(server.url, "m", key="secret")("?")
    assert len(server.requests) == 1


def test_an_endpoint_that_is_not_there_is_an_error(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(JudgeError, match="try 2 of 2"):
        EndpointJudge(server.url, "m", tries=2)("?")
    assert len(server.pauses) == 1


def test_a_reply_without_text_is_empty(server):
    server.prepared = [(200, {}, completion(None))]
    assert EndpointJudge(server.url, "m")("?") == ""


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"choices": []}', completion(5)])
def test_what_is_no_completion_is_an_error(body, server):
    server.prepared = [(200, {}, body)]
    with pytest.raises(JudgeError, match="the endpoint sent"):
        EndpointJudge(server.url, "m")("?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'"),
        ({"base_url": "file:///etc/passwd"}, "base_url is 'file:"),
        ({"base_url": "http://user:pass@localhost"}, "holds a user name"),
        ({"model": ""}, "model is empty"),
        ({"key": "a\nb"}, "key holds"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"tries": 0}, "tries is 0"),
    ],
)
def test_a_wrong_endpoint_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        EndpointJudge(**{"base_url": "http://localhost/v1", "model": "m"} | arguments)


def test_address_and_key_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("LLMASR_JUDGE_URL", raising=False)
    monkeypatch.delenv("LLMASR_JUDGE_KEY", raising=False)
    with pytest.raises(ValueError, match="LLMASR_JUDGE_URL is not set"):
        EndpointJudge.from_environment("m")
    monkeypatch.setenv("LLMASR_JUDGE_URL", "http://localhost:1/v1")
    assert EndpointJudge.from_environment("m").key is None
    monkeypatch.setenv("LLMASR_JUDGE_KEY", "secret")
    assert EndpointJudge.from_environment("m").key == "secret"
