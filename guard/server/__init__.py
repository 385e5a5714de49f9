"""Servers: the guarding proxy, the guardrail service, and a scripted backend for tests and demo."""
