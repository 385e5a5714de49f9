"""Clearance: runtime guardrail middleware for LLMs."""

__version__ = "0.1.0"
