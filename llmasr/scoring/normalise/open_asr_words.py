"""Words that the Open ASR leaderboard treats specially: fillers, compounds, names, spellings.

Source: huggingface/open_asr_leaderboard, `normalizer/` as of 2026-09, restated. No code here.
"""

# Written as patterns, because fillers are drawn out at will.
FILLERS = (
    "ah-ha",  # first, for "ha" alone is not a filler
    "a+h+a+",
    "a+h+m*",
    "e+h+m*",
    "e+m+",
    "e+r+m*",
    "h+a+h+",
    "h+e+h+",
    "h+m+",
    "h+u+h+",
    "mm+",
    "m+h+m*",
    "t+s+k+",
    "u+g+h+",
    "u+h+m*",
    "u+h+u+[hm]*",
    "u+m+h*",
    *("ahem", "eheh", "ehehe", "ehr", "hmmph", "hum", "hunh", "mhum", "mmkay"),
)

# After these, "'s" is "is". Elsewhere it owns, and becomes the word "s".
WITH_IS = "it|he|she|what|that|who|here|there|how|when|where|why|this"

# In this order. A space stands for any run of spaces.
COMPOUNDS = {
    "et cetera": "etc",
    "al right": "alright",
    "all right": "alright",
    "how ever": "however",
    "wi fi": "wifi",
    "hi fi": "hifi",
    "lo fi": "lofi",
    "sci fi": "scifi",
    "e mail": "email",
    "e book": "ebook",
    "e commerce": "ecommerce",
    "x ray": "xray",
    "t shirt": "tshirt",
    "a m": "am",
    "p m": "pm",
    "o k": "okay",
    "o+h+": "oh",
    "ooo+": "oh",
}

# Added to Whisper's table, and the row of it that is broken.
SPELLINGS = {"ok": "okay", "kay": "okay", "etcetera": "etc", "archaeology": "archeology"}

# The first of a group stands for all others.
NAMES = """
aaron aron; alfonso alphonso; alison allison alyson; allen alan allan; anne ann; anthony antony
arthur artur; brett bret; brian bryan; bridget bridgette; caitlin katelyn kaitlyn kaitlin; carl karl
carol carrol carole carroll; catherine katherine kathryn catharine; cathy kathy
charlie charly charley
chris kris; christina kristina; christopher kristopher cristopher; colin collin; deborah devorah
dennis denis; dominic dominick; douglas douglass; dylan dillon; eric erik erick; fatima fatimah
frederick frederik fredrick; gail gayle; gary garry; greg gregg; henry henri; ivonne yvonne
jackie jacky; jamie jaime; jason jayson; jeff geoff; jeffrey geoffrey jeffery; joanne joann joane
john jon; jonathan johnathan jonathon; joseph josef; karen caren caryn karin
kelly kellye kelli kelley
kevin kevan; kristin kristen; laurie lori; lawrence laurence; lee leigh; leslie lesley; lily lilly
linda lynda; lindsay linsey lindsey; louis lewis; lucas lukas; lynn lynne; mark marc; martin martyn
matthew mathew; mcarthur macarthur; mccarthy macarthy maccarthy; mccartney macartney
mcdonald macdonald; mcgowan macgowan; mcintosh macintosh; mcintyre macintyre; mckay mackay
mckenzie mackenzie; mclean maclean; mcleod macleod; mcmillan macmillan; mcnamara macnamara
megan meghan; michael micheal; michelle michele; miriam myriam; molly mollie
mohammed mohamad mohamed mohammad muhammad muhamad muhammed mouhamed mouhamad mahomet
natalie nathalie; neil neal; nicholas nicolas; nicole nikole; patrick patrik; peter pieter
philip phillip; rachel rachael; rajiv rajeev; rebecca rebekah; rob robb; robin robyn; roger rodger
ronda rhonda; russell russel; sally sallie; sarah sara; sean shaun shawn; shane shayne
sherry sheri cheri sherrie; simon symon; stacy stacey stacie; steven stephen; stuart stewart
susanne suzanne; teresa theresa; terry terri; thomas tomas; toby tobey; tony toni
tracy tracey tracie
veronica veronika; victor viktor; victoria viktoria; walter walther; yousef yusuf yusef; zach zak
zachary zackary zachery
"""
