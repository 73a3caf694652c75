"""PromQL as the dashboard and the alerts write it: which metrics, and which labels of them, a query needs."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import promql_parser as promql

GRAFANA = {"$__rate_interval": "5m", "$instance": ".*"}
"""What Grafana puts in the place of its variables."""
LEGEND_LABEL = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


def needed_by(query: str, legend: str = "") -> Mapping[str, set[str]]:
    """The labels that each metric of a query must have, with those that the legend or text beside it tells.

    Raises ValueError for what is no PromQL.
    """
    for variable, value in GRAFANA.items():
        query = query.replace(variable, value)
    expression = promql.parse(query)
    needed: dict[str, set[str]] = defaultdict(set)
    for metric, labels in _selected(expression, frozenset(LEGEND_LABEL.findall(legend))):
        needed[metric] |= labels
    return needed


def _selected(expression: promql.Expr, grouped: frozenset[str]) -> Iterator[tuple[str, set[str]]]:
    """Each selector below an expression, with the labels that it is chosen and grouped by."""
    if isinstance(expression, promql.VectorSelector):
        assert expression.name is not None, "a selector without a name is too wide"
        yield expression.name, {matcher.name for matcher in expression.matchers.matchers} | grouped
        return
    if isinstance(expression, promql.AggregateExpr) and expression.modifier is not None:
        grouped |= frozenset(expression.modifier.labels)
    for below in _children(expression):
        yield from _selected(below, grouped)


def _children(expression: promql.Expr) -> list[promql.Expr]:
    match expression:
        case promql.BinaryExpr():
            return [expression.lhs, expression.rhs]
        case promql.Call():
            return list(expression.args)
        case promql.MatrixSelector():
            return [expression.vector_selector]
        case promql.AggregateExpr() | promql.ParenExpr() | promql.SubqueryExpr() | promql.UnaryExpr():
            return [expression.expr]
        case _:
            return []
