"""Text without meaning: normalisation with an offset map, and units cut by the text."""
