"""Selection of databases without a real one, by their content."""

from contextlib import closing

from jobs.tasks.sql.execution import connections
from jobs.tasks.sql.execution.connections import open_image
from jobs.tasks.sql.execution.database_selection import MIN_KEPT, select_databases
from jobs.tasks.sql.execution.gold_plan import GoldPlan
from jobs.tasks.sql.execution.query_runner import QueryLimits, run_query

PLAIN = "('x'), ('y'), ('z')"
#: Rows by candidate number; the others have PLAIN.
SPECIAL = {12: "('x'), (NULL), ('z')", 14: "('x'), ('X'), ('z')", 16: "('x'), ('x'), ('x')"}


def build(number: int, fill_all: bool) -> bytes:
    with closing(connections.unguarded_image()) as connection:
        connection.execute("CREATE TABLE t (a TEXT); CREATE TABLE other (n INTEGER)")
        connection.execute(f"INSERT INTO t VALUES {SPECIAL.get(number, PLAIN)}")
        if fill_all:
            connection.execute("INSERT INTO other VALUES (?)", (number,))
        return connection.serialize("main")


def test_databases_with_nulls_ties_and_spellings_are_kept_with_all_tables_filled() -> None:
    found = select_databases(GoldPlan("SELECT a FROM t", "bag"), [], None, build, [], {"t"})
    kept = [
        run_query(open_image(image), "SELECT n FROM other", QueryLimits()).rows[0][0]
        for image in found.images
    ]
    assert set(SPECIAL) <= set(kept)
    assert len(kept) == len(set(kept)) == MIN_KEPT
