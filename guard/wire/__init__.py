"""The vendors' HTTP formats, guarded: find the texts, hold them back, rewrite, close legally."""
