"""Find the written word that each symbol of a text belongs to.

Front ends read a text as a whole and keep no boundaries between words: numbers become several words, short forms become
long, and unstressed words grow together. So each written word is read alone too, and the symbols of all these words are
aligned with those of the text by edit distance.
"""

from __future__ import annotations

from collections.abc import Sequence

from vocable.lm.front_ends import read_passage
from vocable.lm.generated import Symbol, Word
from vocable.lm.model import LanguageModels
from vocable.lm.nearest_phone import base_letters
from vocable.lm.passage import Passage
from vocable.lm.punctuation import MARKS
from vocable.lm.timing import Timing

ALONE, DIFFERENT, SIMILAR = 1.0, 1.5, 0.25  #: costs: of a symbol without a partner, and of a pair

_PAIR, _IN_TEXT, _IN_WORDS = range(3)  # moves of the alignment


def times(
    models: LanguageModels,
    passage: Passage,
    symbols: Sequence[int],
    timing: Timing,
    frame_rate: float,
    *,
    language: str | None = None,
) -> tuple[tuple[Word, ...], tuple[Symbol, ...]]:
    """Return the words and symbols of a passage with their times.

    symbols: ids of the passage, which `timing` times. A word lasts from its first symbol to its last one that is no
    mark. Words without symbols, such as a dash, are left out.
    """
    written = passage.words()
    read = (read_passage(word, language or models.language, models.front_end) for word in written)
    alone = [models.table.decode(models.table.known(word)) for word in read]
    names = models.table.decode(symbols)
    spans = [(start / frame_rate, end / frame_rate) for start, end in timing.intervals()]
    spoken = [Symbol(name, *span) for name, span in zip(names, spans, strict=True)]
    by_word: dict[int, list[Symbol]] = {}
    for word, symbol in zip(word_of_each(names, alone), spoken, strict=True):
        if symbol.text not in MARKS:
            by_word.setdefault(word, []).append(symbol)
    words = [Word(written[word].text, own[0].start, own[-1].end) for word, own in by_word.items()]
    return tuple(words), tuple(spoken)


def word_of_each(symbols: Sequence[str], words: Sequence[Sequence[str]]) -> list[int]:
    """Return for each symbol of a text the index of its word.

    symbols: of the text. words: the symbols of each word, read alone. The indices never decrease. A symbol that no word
    alone has belongs to the word of the symbol before it. Raises ValueError if no word has symbols.
    """
    alone = [(index, symbol) for index, word in enumerate(words) for symbol in word]
    if not alone:
        raise ValueError("no word of the text has symbols")
    letters = {symbol: base_letters(symbol) or symbol for symbol in {*symbols, *(symbol for _, symbol in alone)}}
    # costs[j]: the least cost of the text so far with the first j symbols of the words. moves: for each symbol of the
    # text and each j, the last move of the cheapest alignment: a pair, or a symbol without a partner in the text or in
    # the words.
    costs = [ALONE * j for j in range(len(alone) + 1)]
    moves: list[list[int]] = []
    for symbol in symbols:
        before, costs, row = costs, [costs[0] + ALONE], [_IN_TEXT]
        for j, (_, other) in enumerate(alone):
            pair = 0.0 if symbol == other else SIMILAR if letters[symbol] == letters[other] else DIFFERENT
            options = (before[j] + pair, before[j + 1] + ALONE, costs[j] + ALONE)
            least = min(options)
            costs.append(least)
            row.append(options.index(least))
        moves.append(row)
    found: list[int] = []
    i, j = len(symbols), len(alone)
    while i:
        move = moves[i - 1][j]
        if move != _IN_WORDS:
            found.append(alone[max(0, j - 1)][0])
            i -= 1
        if move != _IN_TEXT:
            j -= 1
    return found[::-1]
