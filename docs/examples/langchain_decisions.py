"""The classifiers as a decision model, which needs no backend at all."""

from langchain_core.decisions import Noul

from guard import Guard
from guard.adapters.langchain import RiskDecisions

risks = RiskDecisions(guard=Guard.load("public"))
questions = {"bad_advice": Noul(instructions="Is it bad advice?")}
answers = risks.invoke({"state": "Ferns like the shade.", "questions": questions})
print(answers.nouls["bad_advice"].noul)
