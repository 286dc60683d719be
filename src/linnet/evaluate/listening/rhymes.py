"""The words of the Diagnostic Rhyme Test (Voiers, 1977; ANSI/ASA S3.2): 96 pairs.

The words of a pair differ in one feature of their first consonant: the first word has it and the second has not.
"""

from __future__ import annotations

_LIST = {
    "voicing": (
        "veal-feel bean-peen gin-chin dint-tint zoo-sue dune-tune vole-foal goat-coat "
        "zed-said dense-tense vast-fast gaff-calf vault-fault daunt-taunt jock-chock bond-pond"
    ),
    "nasality": (
        "meat-beat need-deed mitt-bit nip-dip moot-boot news-dues moan-bone note-dote "
        "mend-bend neck-deck mad-bad nab-dab moss-boss gnaw-daw mom-bomb knock-dock"
    ),
    "sustention": (
        "vee-bee sheet-cheat vill-bill thick-tick foo-pooh shoes-choose those-doze though-dough "
        "then-den fence-pence than-dan shad-chad thong-tong shaw-chaw von-bon vox-box"
    ),
    "sibilation": (
        "zee-thee cheep-keep jilt-gilt sing-thing juice-goose chew-coo joe-go sole-thole "
        "jest-guest chair-care jab-gab sank-thank jaws-gauze saw-thaw jot-got chop-cop"
    ),
    "graveness": (
        "weed-reed peak-teak bid-did fin-thin moon-noon pool-tool bowl-dole fore-thor "
        "met-net pent-tent bank-dank fad-thad fought-thought bong-dong wad-rod pot-tot"
    ),
    "compactness": (
        "yield-wield key-tea hit-fit gill-dill coop-poop you-rue ghost-boast show-so "
        "keg-peg yen-wren gat-bat shag-sag yawl-wall caught-taught hop-fop got-dot"
    ),
}

PAIRS: dict[str, tuple[str, str]] = {
    f"{feature} {pair}": (pair.split("-")[0], pair.split("-")[1]) for feature, text in _LIST.items() for pair in text.split()
}
"""The two words of every pair, by its feature and its words."""


def find_pairs(word: str) -> list[tuple[str, tuple[str, str]]]:
    """The feature and the words of every pair that a word is in; 'got' is in two, and one that is in none has an empty list."""
    return [(name.split()[0], words) for name, words in PAIRS.items() if word in words]
