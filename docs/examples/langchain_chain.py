"""A chain that gives text, guarded as a whole."""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from guard import Guard
from guard.adapters.langchain import GuardRunnable

prompt = ChatPromptTemplate.from_template("Which plants like {place}?")
chain = prompt | ChatOpenAI(model="gpt-5.5") | StrOutputParser()
for piece in GuardRunnable(Guard.load("public"), chain).stream({"place": "the shade"}):
    print(piece, end="", flush=True)
