from __future__ import annotations

import pytest

from coterie.storage.queries import queries, with_list


@pytest.mark.parametrize("file", ["responses", "conversations"])
def test_every_statement_has_its_name(file: str) -> None:
    assert len(queries(file)) > 10
    for name, sql in queries(file).items():
        assert name.isidentifier()
        assert any(
            sql.startswith(word) or f"\n{word}" in sql for word in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
        )
        assert ";" not in sql


def test_queries_are_read_once() -> None:
    assert queries("responses") is queries("responses")


def test_a_list_gets_a_placeholder_for_each_value() -> None:
    assert with_list("a = $1 AND b IN ($LIST)", ["x", "y"], after=1) == "a = $1 AND b IN ($2, $3)"
