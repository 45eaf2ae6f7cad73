"""The vocabulary: things that can be drawn, and words that sound like them.

Knows no pictures and no speech. A word has a form, which says the slots of a sentence it fits:

    count   a bear, two bears
    mass    some bread
    other   no noun, or a plural: only where a word is quoted, as in 'the word is bare'
"""

from dataclasses import dataclass
from functools import cache

SLOTS = {
    "indefinite": ("count",),
    "definite": ("count", "mass"),
    "quoted": ("count", "mass", "other"),
    "plural": ("count",),
}
PLURALS = {
    "mouse": "mice", "sheep": "sheep", "deer": "deer", "fish": "fish", "moose": "moose",
    "goose": "geese", "leaf": "leaves", "berry": "berries", "cherry": "cherries", "bus": "buses",
    "box": "boxes", "fox": "foxes", "peach": "peaches", "dress": "dresses", "foot": "feet",
    "tooth": "teeth", "man": "men", "potato": "potatoes", "tomato": "tomatoes",
}  # fmt: skip
NUMBERS = ("none", "one", "two", "three", "four")


@dataclass(frozen=True)
class Word:
    """A spelling and the slots it fits."""

    text: str
    form: str = "count"

    def fits(self, slot: str) -> bool:
        """Say whether the word can stand in a slot of that name."""
        return self.form in SLOTS[slot]

    def written(self, slot: str) -> str:
        """Return the word as it stands in a slot: with its article, in the plural or bare."""
        if slot == "plural":
            return PLURALS.get(self.text, f"{self.text}s")
        return f"{self.article} {self.text}" if slot == "indefinite" else self.text

    @property
    def article(self) -> str:
        """The word before it where it is new: 'a', 'an' or 'some'."""
        if self.form == "mass":
            return "some"
        return "an" if self.text[0] in "aeiou" else "a"


@dataclass(frozen=True)
class Thing:
    """What can be drawn.

    Attributes:
        word: what it is called.
        drawings: characters of the picture font that show it.
        held: one more drawing, kept out of training; '' if there is none.
        alike: a word that sounds the same and cannot be drawn; None if there is none.
    """

    word: Word
    drawings: str
    held: str = ""
    alike: Word | None = None


def _thing(
    text: str, drawings: str, alike: str = "", alike_form: str = "count", *,
    held: str = "", form: str = "count",
) -> Thing:  # fmt: skip
    other = Word(alike, alike_form) if alike else None
    return Thing(Word(text, form), drawings, held, other)


SOUNDING_THE_SAME = (
    _thing("pear", "🍐", "pair"),
    _thing("bear", "🐻", "bare", "other", held="🧸"),
    _thing("flower", "🌸🌼🌻🌷", "flour", "mass", held="🌺"),
    _thing("sun", "☀", "son", held="🌞"),
    _thing("deer", "🦌", "dear"),
    _thing("mail", "✉📨", "male", held="📧", form="mass"),
    _thing("sail", "⛵", "sale"),
    _thing("whale", "🐋", "wail", held="🐳"),
    _thing("hare", "🐇", "hair", "mass", held="🐰"),
    _thing("horse", "🐴", "hoarse", "other", held="🐎"),
    _thing("rose", "🌹", "rows", "other"),
    _thing("bee", "🐝", "be", "other"),
    _thing("eye", "👁", "i", "other"),
    _thing("ant", "🐜", "aunt"),
    _thing("moose", "🫎", "mousse"),
    _thing("key", "🔑", "quay", held="🗝"),
    _thing("plane", "✈", "plain", held="🛩"),
    _thing("pie", "🥧", "pi", "mass"),
    _thing("nose", "👃", "knows", "other"),
    _thing("tea", "🍵", "tee", form="mass"),
    _thing("steak", "🥩", "stake"),
    _thing("bread", "🍞", "bred", "other", form="mass"),
    _thing("berry", "🫐", "bury", "other"),
    _thing("muscle", "💪", "mussel"),
    _thing("boar", "🐗", "bore"),
    _thing("ball", "⚽🏀", "bawl", held="🏐"),
    _thing("bell", "🔔", "belle", held="🛎"),
    _thing("heart", "❤💙", "hart", held="💚"),
    _thing("wave", "🌊", "waive", "other"),
    _thing("ring", "💍", "wring", "other"),
    _thing("rain", "🌧", "reign", form="mass"),
    _thing("wine", "🍷", "whine", form="mass"),
    _thing("pail", "🪣", "pale", "other"),
    _thing("carrot", "🥕", "karat"),
    _thing("meat", "🍖", "meet", "other", form="mass"),
    _thing("sword", "🗡", "soared", "other"),
    _thing("medal", "🏅", "meddle", "other"),
    _thing("sleigh", "🛷", "slay", "other"),
    _thing("rock", "🪨", "roc"),
)
OTHERS = (
    _thing("goat", "🐐"), _thing("boat", "🚤", held="🛥"), _thing("coat", "🧥"),
    _thing("bat", "🦇"), _thing("bag", "👜", held="💼"), _thing("cat", "🐱", held="🐈"),
    _thing("cap", "🧢"), _thing("hat", "🎩", held="👒"), _thing("mouse", "🐭", held="🐁"),
    _thing("house", "🏠", held="🏡"), _thing("fan", "🪭"), _thing("van", "🚐"),
    _thing("can", "🥫"), _thing("pen", "🖊", held="🖋"), _thing("pan", "🍳"), _thing("man", "👨"),
    _thing("car", "🚗", held="🚙"), _thing("cart", "🛒"), _thing("card", "💳"),
    _thing("star", "⭐", held="🌟"), _thing("jar", "🫙"), _thing("guitar", "🎸"),
    _thing("sheep", "🐑", held="🐏"), _thing("ship", "🚢", held="🛳"), _thing("duck", "🦆"),
    _thing("truck", "🚚", held="🚛"), _thing("snake", "🐍"), _thing("cake", "🍰", held="🎂"),
    _thing("clock", "🕒", held="⏰"), _thing("lock", "🔒", held="🔓"),
    _thing("tree", "🌲🌴", held="🌳"), _thing("book", "📕📖", held="📗"), _thing("hook", "🪝"),
    _thing("pig", "🐷", held="🐖"), _thing("fox", "🦊"), _thing("box", "📦"),
    _thing("dog", "🐶🐩", held="🐕"), _thing("log", "🪵"), _thing("frog", "🐸"),
    _thing("shell", "🐚"), _thing("bed", "🛏"), _thing("thread", "🧵"),
    _thing("corn", "🌽", form="mass"), _thing("horn", "📯"), _thing("bean", "🫘"),
    _thing("queen", "👸"), _thing("leaf", "🍁", held="🍂"), _thing("kite", "🪁"),
    _thing("light", "💡"), _thing("bike", "🚲"), _thing("spoon", "🥄"),
    _thing("moon", "🌙", held="🌛"), _thing("balloon", "🎈"), _thing("chair", "🪑"),
    _thing("door", "🚪"), _thing("train", "🚆", held="🚂"), _thing("milk", "🥛", form="mass"),
    _thing("hammer", "🔨"), _thing("peach", "🍑"), _thing("boot", "👢"),
    _thing("shoe", "👟", held="👞"), _thing("dress", "👗"), _thing("ladder", "🪜"),
    _thing("saw", "🪚"), _thing("axe", "🪓"), _thing("clown", "🤡"), _thing("bus", "🚌"),
    _thing("nut", "🥜"), _thing("egg", "🥚"), _thing("leg", "🦵"), _thing("mouth", "👄"),
    _thing("tooth", "🦷"), _thing("bone", "🦴"), _thing("phone", "📱", held="☎"),
    _thing("lion", "🦁"), _thing("tiger", "🐯", held="🐅"), _thing("monkey", "🐵", held="🐒"),
    _thing("money", "💰", form="mass"), _thing("honey", "🍯", form="mass"),
    _thing("rocket", "🚀"), _thing("dove", "🕊"), _thing("owl", "🦉"),
    _thing("apple", "🍎", held="🍏"), _thing("lemon", "🍋"), _thing("melon", "🍈"),
    _thing("potato", "🥔"), _thing("tomato", "🍅"), _thing("candle", "🕯"), _thing("sandal", "👡"),
    _thing("snail", "🐌"), _thing("goose", "🪿"), _thing("wheel", "🛞"), _thing("bowl", "🥣"),
    _thing("hen", "🐔"), _thing("fish", "🐟", held="🐠"), _thing("crab", "🦀"),
    _thing("foot", "🦶"), _thing("hand", "✋"), _thing("cow", "🐮", held="🐄"),
)  # fmt: skip
# Never drawn in a training picture; their words are heard in training all the same.
UNSEEN = (
    _thing("tent", "⛺"), _thing("ghost", "👻"), _thing("drum", "🥁"), _thing("cherry", "🍒"),
    _thing("seal", "🦭"), _thing("parrot", "🦜"), _thing("swan", "🦢"), _thing("onion", "🧅"),
    _thing("camel", "🐫"), _thing("crown", "👑"),
)  # fmt: skip
SEEN = SOUNDING_THE_SAME + OTHERS
THINGS = {thing.word.text: thing for thing in SEEN + UNSEEN}

# Things whose words differ in one sound or two: noise makes them one.
SOUNDING_NEAR = (
    "goat boat coat", "bat bag cat cap hat", "mouse house mouth", "fan van can pan man",
    "pen pan bean man hen hand", "car cart card star jar guitar", "sheep ship", "duck truck",
    "snake cake steak", "clock lock rock box fox log frog dog", "tree tea bee key",
    "book hook foot", "pig bag", "shell bell", "bread bed thread leg egg", "corn horn",
    "queen bean", "leaf meat", "kite light bike", "spoon moon balloon", "chair pear bear hare",
    "door boar", "train rain plane", "milk mail", "hammer ladder", "peach bee", "boot tooth shoe",
    "dress cherry", "saw door", "axe ant", "clown crown cow owl", "bus nut", "bone phone",
    "lion tiger", "monkey money honey", "rocket rock", "dove drum", "apple onion", "lemon melon",
    "potato tomato", "candle sandal camel", "snail whale mail sail pail seal", "goose moose",
    "wheel seal", "bowl ball", "fish ship", "crab car", "tent ant", "ghost goat", "carrot parrot",
    "swan sun", "rose nose", "wave whale", "ring rain", "pie eye", "wine lion", "berry cherry",
    "muscle mouse", "heart cart hat", "deer door", "flower tomato", "horse house", "meat sheep",
    "sword saw", "medal melon", "sleigh snake",
)  # fmt: skip


def near(text: str) -> list[str]:
    """Return the words of things that sound nearly like ``text``, in alphabetic order."""
    found = {word for family in SOUNDING_NEAR for word in family.split() if text in family.split()}
    return sorted(found - {text})


@cache
def pairs(slot: str) -> tuple[Thing, ...]:
    """Return the things whose word and its sound-alike both fit the slot."""
    return tuple(
        thing
        for thing in SOUNDING_THE_SAME
        if thing.alike and thing.word.fits(slot) and thing.alike.fits(slot)
    )


@cache
def unpaired(slot: str) -> tuple[Thing, ...]:
    """Return the things of training whose word fits the slot and there has no sound-alike."""
    return tuple(thing for thing in SEEN if thing.word.fits(slot) and thing not in pairs(slot))
