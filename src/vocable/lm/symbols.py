"""The table of symbols that a language model was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from vocable.lm.nearest_phone import base_letters, nearest_phone
from vocable.lm.punctuation import MARKS

MOST_SUBSTITUTES = 4096  #: that a table keeps, because texts may hold any number of unknown symbols
_NO_STRESS = str.maketrans("", "", "ˈˌ")


class SymbolTable:
    """The symbols of the training texts. The id of a symbol is its index in the table."""

    def __init__(self, symbols: Sequence[str]) -> None:
        if not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("a table of symbols must hold strings only")
        self.symbols = tuple(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        if len(self._ids) < len(self.symbols):
            raise ValueError("a table of symbols must hold each symbol once")
        self._by_letters: dict[str, str] = {}  # the first symbol of each sequence of base letters
        for symbol in self.symbols:
            self._by_letters.setdefault(base_letters(symbol), symbol)
        self._substitutes: dict[str, str | None] = {}

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> SymbolTable:
        """Build a table of all symbols of some texts, sorted."""
        return cls(sorted({symbol for text in texts for symbol in text}))

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, symbols: Iterable[str]) -> list[int]:
        """Convert symbols to ids.

        A symbol that is not in the table is replaced by its `substitute`; where it has none, it is left out with a
        warning. Marks that are not in the table are left out. Raises ValueError if no symbol but marks is left.
        """
        symbols = list(symbols)
        unknown, known = self.unknown(symbols), self.known(symbols)
        if unknown:
            names = ", ".join(map(repr, unknown))
            if all(self.symbols[i] in MARKS for i in known):
                raise ValueError(f"the models know no symbol similar to {names}: write the text without it")
            warnings.warn(f"the models know no symbol similar to {names}: left out", stacklevel=2)
        return known

    def known(self, symbols: Iterable[str]) -> list[int]:
        """Convert the symbols that are in the table or have a substitute there to ids; others are left out."""
        spoken = (symbol for symbol in symbols if symbol in self._ids or symbol not in MARKS)
        return [self._ids[found] for symbol in spoken if (found := self.substitute(symbol)) is not None]

    def unknown(self, symbols: Iterable[str]) -> list[str]:
        """Return the symbols without a substitute, each once. Marks are not counted."""
        return [symbol for symbol in dict.fromkeys(symbols) if symbol not in MARKS and self.substitute(symbol) is None]

    def substitute(self, symbol: str) -> str | None:
        """Return the symbol of the table to read in place of `symbol`.

        That is the first of these that exists: the symbol itself; the symbol without stress; one that differs only in
        stress, length and diacritics; the phone that sounds nearest. None for a symbol without a sound.
        """
        if symbol in self._ids:
            return symbol
        kept = self._substitutes  # another thread may begin a new one
        if symbol not in kept:
            letters = base_letters(symbol)
            same = (symbol.translate(_NO_STRESS), self._by_letters.get(letters), "c" if letters == "ç" else None)
            found = next((candidate for candidate in same if candidate in self._ids), None) if letters else None
            kept[symbol] = found or nearest_phone(symbol, self._by_letters)
            if len(kept) >= MOST_SUBSTITUTES:
                self._substitutes = {}
        return kept[symbol]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Convert ids to symbols. Raises ValueError for an id outside of the table."""
        ids = list(ids)
        wrong = next((i for i in ids if not 0 <= i < len(self)), None)
        if wrong is not None:
            raise ValueError(f"symbol id {wrong} is not in the table of {len(self)} symbols")
        return [self.symbols[i] for i in ids]
