"""Speech from text, by language models over the tokens of a codec."""
