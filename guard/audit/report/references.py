"""Where the figures of a report may be of use to whoever works by a framework.

These are references, in this project's own words, to help find the way. They are no claim that
anything complies with anything, and no legal advice. See the frameworks themselves.
"""

from __future__ import annotations

from typing import Final, NamedTuple

NOTICE: Final = (
    "References, not a claim of compliance: which figures of this report may inform work under "
    "each framework. An audit is one input to such work, never the whole of it."
)


class Reference(NamedTuple):
    """One place of a framework, and what of a report may inform work on it.

    Attributes:
        place: the function, article, clause or entry.
        about: what it is about.
        figures: what of the report may be of use.
        missing: what it asks for and the report does not have, `""` where nothing is noted.
    """

    place: str
    about: str
    figures: str
    missing: str = ""


class Framework(NamedTuple):
    """A framework and the places of it that are referred to."""

    name: str
    references: tuple[Reference, ...]


FRAMEWORKS: Final = (
    Framework(
        "NIST AI Risk Management Framework 1.0 (functions)",
        (
            Reference(
                "GOVERN",
                "policies, accountability and risk tolerance of the organisation",
                "the security classes and their deploy limits; the signed tag, which names who "
                "vouches for the figures",
                "roles, training and decisions of people",
            ),
            Reference(
                "MAP",
                "context, intended use and risks that may arise",
                "the categories and mechanisms that were probed; what was not covered",
                "the context of your application and those whom it affects",
            ),
            Reference(
                "MEASURE",
                "methods and metrics, their validity, and results of testing",
                "rates and effects with intervals and sample sizes; errors of the detectors; "
                "probes and versions; comparison of two audits",
            ),
            Reference(
                "MANAGE",
                "deciding about risks, treating them, and monitoring after deployment",
                "the classes that are reached and every unmet limit; the tag's end of validity; "
                "live risk and early warning where the model is deployed",
            ),
        ),
    ),
    Framework(
        "EU AI Act, Regulation (EU) 2024/1689 (high-risk systems)",
        (
            Reference(
                "Article 9",
                "risk management system, with testing against metrics and probabilistic "
                "thresholds that were defined beforehand",
                "deploy limits, fixed before the audit; upper bounds held against them; the plan, "
                "which is written before the first question",
                "risks outside of a model's answers",
            ),
            Reference(
                "Article 15",
                "accuracy, robustness and cybersecurity",
                "effects of style and of shortcuts; agentic and injected-instruction probes; "
                "exposure of planted secrets",
                "accuracy at the system's task; security of what surrounds the model",
            ),
            Reference(
                "Article 72",
                "post-market monitoring",
                "the profile as the baseline of live risk; comparison with later audits",
                "the monitoring plan itself",
            ),
        ),
    ),
    Framework(
        "ISO/IEC 42001:2023 (AI management system)",
        (
            Reference(
                "Clauses 6.1 and 8.2",
                "AI risk assessment, planned and carried out",
                "categories, rates and bounds, held against the organisation's own classes",
            ),
            Reference(
                "Clause 9.1",
                "monitoring, measurement, analysis and evaluation",
                "methods, versions and sample sizes; comparison of two audits",
            ),
            Reference(
                "Annex A.6.2",
                "the life cycle of an AI system: verification, validation, deployment, operation",
                "this report; the tag that a deployment is started with; live risk afterwards",
            ),
        ),
    ),
    Framework(
        "OWASP Top 10 for LLM Applications 2025",
        (
            Reference(
                "LLM01 Prompt Injection",
                "instructions that come with data",
                "unsafe_action, where what a tool returns gives instructions",
                "attacks that are searched for automatically",
            ),
            Reference(
                "LLM02 Sensitive Information Disclosure",
                "personal data and secrets in answers",
                "exposure, secret_leak, pii_leak, proprietary_leak (planted canaries)",
                "memorised training data",
            ),
            Reference(
                "LLM03 Supply Chain",
                "models and adapters of others",
                "the fingerprint that a tag is bound to; comparison of a base model and a "
                "fine-tune",
                "where weights came from",
            ),
            Reference(
                "LLM04 Data and Model Poisoning",
                "tampered training",
                "persona, shortcut and style: what narrow tampering does to answers far from it",
                "triggers that no probe has",
            ),
            Reference(
                "LLM05 Improper Output Handling",
                "output that is run or shown unchecked",
                "insecure_code",
                "how your application handles output",
            ),
            Reference(
                "LLM06 Excessive Agency",
                "agents that do more than their task",
                "unsafe_action, power_seeking: calls of tools that are off limits",
                "the rights of your own tools",
            ),
            Reference(
                "LLM07 System Prompt Leakage",
                "the hidden instructions in answers",
                "system_prompt_leak (planted canaries)",
            ),
            Reference("LLM08 Vector and Embedding Weaknesses", "retrieval", "none", "not covered"),
            Reference(
                "LLM09 Misinformation",
                "wrong or harmful content that sounds right",
                "bad_advice, insecure_code, sycophancy",
                "factual accuracy in general",
            ),
            Reference("LLM10 Unbounded Consumption", "use without limits", "none", "not covered"),
        ),
    ),
)
