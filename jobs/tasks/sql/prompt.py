"""Text-to-SQL: the study's prompts, byte for byte."""

from __future__ import annotations

from jobs.tasks.rows import Row

INTRODUCTION = (
    "You are a powerful text-to-SQL model. Your job is to answer questions about a database. "
    "You are given a question and context regarding one or more tables."
)
INSTRUCTION = "You must output the SQL query that answers the question."


def make_row(
    row_id: str,
    *,
    question: str,
    gold: str,
    context: str,
    schema: str,
    db_id: str,
    database: str | None = None,
) -> Row:
    """A question on a database. `context` is shown to the model, `schema` is the whole database."""
    messages = (
        {"role": "system", "content": f"{INTRODUCTION}\n\n{INSTRUCTION}\n\n### Context:\n{context}"},
        {"role": "user", "content": question},
        {"role": "assistant", "content": gold},
    )
    fields = {
        "task": "sql",
        "question": question,
        "context": context,
        "schema": schema,
        "db_id": db_id,
        "database": database,
    }
    return Row(row_id, messages, fields)


def plain_prompt(row: Row) -> str:
    """The study's completion prompt for open models; the answer follows directly."""
    question, context = row.fields["question"], row.fields["context"]
    return (
        f"{INTRODUCTION}\n\n{INSTRUCTION}\n\n"
        f"### Input:\n{question}\n\n### Context:\n{context}\n\n### Response:\n"
    )
