"""Weights for `vocable.USLM.from_pretrained()`."""
