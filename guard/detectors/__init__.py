"""Detectors: everything that sees risk in text. See `guard.detectors.base` for the contract."""
