"""`llmasr-zh`: our rule for Chinese. It makes one what cannot be heard, and hides nothing that can.

Width, case, punctuation and script go, as they have no sound. Digits are read aloud. Fillers and
erhua are heard, so they stay: a system that drops or invents them is charged for it.

Reading digits is a guess where a number can be said in two ways. The rule, for a whole number:

- read one by one: four digits before 年; more than one digit and a leading 0; four digits and more
  without a unit behind them, unless they end in 00 (telephone numbers, codes, years alone);
- else a quantity. Fractions and shares are quantities too.

两 before a unit is written 二, on both sides, because "2个" and "200" do not say which was said.
Not read: times of day ("12:30" is 十二 三十), fractions with a stroke, signs of numbers and of
currencies.
"""

import re
import sys
from importlib import metadata

from llmasr.scoring.normalise import basic_chinese, numerals, script
from llmasr.scoring.normalise.normalizer import Normalizer, content_hash, needed

# What is counted: larger numbers, measure words and measures. Not 月 and 号, which have names.
UNITS = "百千万亿个只张位本次天件块条种名岁家台辆元米人吨度斤克里户亩倍公套箱年"
COUNTED = re.compile(f"[{UNITS}]")
LIANG = re.compile(f"两(?=[{UNITS}])")
LONG = 4


def llmasr_zh() -> Normalizer:
    """Make `llmasr-zh`."""
    convert = script.to_simplified()
    with needed("cn2an"):
        version = f"cn2an {metadata.version('cn2an')}"

    def normalise(text: str) -> str:
        text = basic_chinese.one_width(convert(basic_chinese.one_width(text)))
        text = numerals.read_numbers(text.replace("°c", "摄氏度"), read_integer)
        text = basic_chinese.without_signs(text)
        return LIANG.sub("二", text)

    modules = (sys.modules[__name__], basic_chinese, numerals, script)
    identity = content_hash(*modules, version, script.script_version())
    return Normalizer("llmasr-zh-1", identity, normalise)


def read_integer(digits: str, following: str) -> str:
    """Say a whole number that stands before the text `following`."""
    year = len(digits) == LONG and following.startswith("年")
    code = len(digits) > 1 and digits.startswith("0")
    bare = not COUNTED.match(following) and not digits.endswith("00")
    if year or code or (len(digits) >= LONG and bare):
        return numerals.spelled(digits)
    return numerals.quantity(digits)
