"""Adapters: one file per SDK or framework; installed as `guard.adapters`."""
