"""A condition in SQL that a user writes, which a query of ours takes in: is it one, and nothing more?

The box around every query keeps it from doing harm; here it is kept from making another question of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson
import polars as pl

_BEFORE, _AFTER = "SELECT (\n", "\n) AS condition"
"""What is around it: a name can follow an expression only, so that no clause ends the brackets and goes on."""


def find_fault(sql: Callable[[str, Mapping[str, object]], pl.DataFrame], condition: str) -> str | None:
    """Say why a text is no condition, or give None; names and types are not looked at.

    Args:
        sql: runs a statement with parameters on DuckDB.
        condition: as a user wrote it.

    Raises:
        QueryError: DuckDB cannot parse any SQL.
    """
    text = f"{_BEFORE}{condition}{_AFTER}"
    serialized = sql("SELECT json_serialize_sql(CAST($sql AS VARCHAR)) AS tree", {"sql": text}).item()
    try:
        tree = orjson.loads(serialized)
    except orjson.JSONDecodeError:
        return "it is nested too deeply"
    if tree["error"]:
        if int(tree.get("position") or 0) >= len(f"{_BEFORE}{condition}".encode()):
            return "it ends where more is expected, or closes a bracket that it has not opened"
        return str(tree["error_message"]).partition("\n")[0]
    node = tree["statements"][0]["node"]
    expression = node["select_list"][0]
    if len(node["select_list"]) > 1 or node["from_table"]["type"] != "EMPTY":
        return "it closes a bracket that it has not opened"
    if expression.get("function_name") == "row":
        return "it is a list" if expression.get("arguments") or expression.get("children") else "it is empty"
    return None
