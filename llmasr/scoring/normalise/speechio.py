"""`zh-speechio`: in the style of SpeechIO's leaderboard for Chinese, which forgives the most.

Source: `textnorm_zh.py` of SpeechColab/Leaderboard, from its description, not its code. The same
as there: one width and one case, the fillers 呃 and 啊 dropped wherever they stand, 儿 dropped but
in listed words, digits read aloud with 两 for 2 before a larger unit, traditional script made
simplified, punctuation dropped.

Not the same: our list of words with 儿 and our list of units are shorter; NFKC makes more forms one
than full-width ones; quantities are read by cn2an, which writes 一千零五 and 十五 likewise but
drops leading zeros. A sign that is not in SpeechIO's lists stays there and goes here.
"""

import re
import sys
from importlib import metadata

from llmasr.scoring.normalise import basic_chinese, numerals, script
from llmasr.scoring.normalise.normalizer import Normalizer, content_hash, needed

FILLERS = str.maketrans("", "", "呃啊")

# Words in which 儿 is a syllable of its own; longer ones stand before those they begin with.
SYLLABLE_ER = (
    "儿子|儿女|儿孙|儿媳|儿童|儿科|儿歌|儿戏|儿化|儿时|女儿|妻儿|胎儿|婴儿|新生儿|婴幼儿|幼儿|少儿"
    "|小儿|孤儿|健儿|混血儿|托儿所|育儿|台儿庄|鹿儿岛|正儿八经|吊儿郎当|生儿育女|养儿防老"
)
ER = re.compile(f"{SYLLABLE_ER}|儿")

YEAR = re.compile(r"(?:[089][0-9]|(?:19|20)[0-9]{2})$")
UNITS = (
    "元块角毛分万亿千百十匹张座回场条个首只支辆颗套件贴根名位本页家户层斤两克吨米里丈尺寸升盘碗桶"
    "盒杯瓶箱袋年月日号季刻时周天秒岁世代辈粒幢堆道面片人次倍度"
)
COUNTED = re.compile(f"[多余几]?[{UNITS}]")
STROKE = re.compile(r"([0-9]+)/([0-9]+)")
LONG = 4
# 二 that opens a number or a part of one, before a unit above ten.
OPENING_TWO = re.compile("(?<![零一二三四五六七八九十])二(?=[百千万亿])")


def zh_speechio() -> Normalizer:
    """Make `zh-speechio`."""
    convert = script.to_simplified()
    with needed("cn2an"):
        version = f"cn2an {metadata.version('cn2an')}"

    def normalise(text: str) -> str:
        text = basic_chinese.one_width(convert(basic_chinese.one_width(text)))
        # What stood before and after a word that is left out may have one form together.
        text = basic_chinese.one_width(ER.sub(_keep_syllable, text.translate(FILLERS)))
        text = STROKE.sub(r"\2分之\1", text)
        return basic_chinese.without_signs(numerals.read_numbers(text, read_integer))

    modules = (sys.modules[__name__], basic_chinese, numerals, script)
    identity = content_hash(*modules, version, script.script_version())
    return Normalizer("zh-speechio-1", identity, normalise)


def _keep_syllable(match: re.Match[str]) -> str:
    return "" if match.group() == "儿" else match.group()


def read_integer(digits: str, following: str) -> str:
    """Say a whole number that stands before the text `following`."""
    year = following.startswith("年") and YEAR.match(digits)
    if year or (len(digits) >= LONG and not COUNTED.match(following)):
        return numerals.spelled(digits)
    return OPENING_TWO.sub("两", numerals.quantity(digits))
