"""How adapters look in a terminal. Reads nothing but the summaries it is given."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from client.adapter_place import AdapterListing, AdapterSummary
from client.findings import Replayed


def print_list(console: Console, listing: AdapterListing) -> None:
    """One line for each adapter; below them the damaged names, and what to do about them."""
    _print_table(console, listing.adapters)
    for damaged in listing.damaged:
        console.print(f"{damaged.name} is DAMAGED: {damaged.problem}", markup=False, highlight=False, soft_wrap=True)


def added_line(adapter: AdapterSummary) -> str:
    """What is told of an adapter that has just been published."""
    return f"{adapter.name} is {adapter.digest[:12]} ({adapter.kind}, {adapter.num_virtual_tokens} virtual tokens)"


def _print_table(console: Console, adapters: Sequence[AdapterSummary]) -> None:
    if not adapters:
        console.print("no adapters")
        return
    table = Table("name", "digest", "kind", "virtual tokens", "size", "published", "versions", "", box=None)
    for adapter in adapters:
        table.add_row(
            adapter.name,
            adapter.digest[:12],
            adapter.kind,
            str(adapter.num_virtual_tokens),
            f"{adapter.size / 1000:,.0f} kB",
            _day(adapter.created),
            str(len(adapter.versions)),
            "pinned" if adapter.pinned else "",
        )
    console.print(table)


def _kind(adapter: AdapterSummary) -> str:
    width = "" if adapter.hidden_size is None else f", {adapter.hidden_size} wide"
    return f"{adapter.kind}, {adapter.num_virtual_tokens} virtual tokens{width}"


def print_one(console: Console, adapter: AdapterSummary) -> None:
    """Everything there is to say of one adapter."""
    lines = {
        "name": adapter.name,
        "digest": adapter.digest,
        "kind": _kind(adapter),
        "base": adapter.base or "not recorded",
        "size": f"{adapter.size:,} bytes",
        "published": _day(adapter.created),
        "pinned": "yes" if adapter.pinned else "no",
        "aliases": ", ".join(adapter.aliases) or "none",
        "versions": ", ".join(_marked(digest, adapter) for digest in adapter.versions),
    }
    for label, text in (lines | _training_lines(adapter)).items():
        console.print(f"{label:<12} {text}", markup=False, highlight=False, soft_wrap=True)


def _marked(digest: str, adapter: AdapterSummary) -> str:
    if digest == adapter.digest:
        return f"{digest[:12]} (current)"
    if adapter.canary is not None and digest == adapter.canary.digest:
        return f"{digest[:12]} (canary for {adapter.canary.percent} %)"
    return digest[:12]


def print_replayed(console: Console, replayed: Sequence[Replayed]) -> None:
    """One line for each version whose probes were replayed; nothing where there is none."""
    if not replayed:
        return
    table = Table("version", "state", "computed in", "probes", "equal answers", "largest difference", "", box=None)
    for one in replayed:
        found = one.verification
        table.add_row(
            one.label,
            found.state,
            found.engine,
            f"{found.num_replayed} of {found.num_probes}",
            str(found.num_equal),
            "" if found.largest_difference is None else f"{found.largest_difference:.4f}",
            found.detail,
        )
    console.print(table)


def _training_lines(adapter: AdapterSummary) -> dict[str, str]:
    facts = adapter.training
    if facts is None:
        return {}
    lines = {
        "trained": f"{facts['steps']:,} steps on {facts['rows']:,} rows of {facts['data']} "
        f"in {facts['seconds']:,.0f} s ({facts['tokens_per_second']:,.0f} tokens/s)"
    }
    measured = facts.get("evaluation")
    if measured:
        lines["measured"] = (
            f"exact match {measured['exact_match_before']:.1%} -> {measured['exact_match_after']:.1%}, "
            f"loss {measured['loss_before']:.3f} -> {measured['loss_after']:.3f} on {measured['rows']:,} held-out rows"
        )
    return lines


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
