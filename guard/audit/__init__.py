"""The audit: probes a model and turns its answers into a risk profile, a report and a tag."""
