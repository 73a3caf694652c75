"""A plain account of what must be true of adapters' names after each change. Knows no server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BASE = "tiny-llama"

Change = dict[str, Any]


class Refused(Exception):
    """What the account says must be refused, with which status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Split:
    """A canary, and whom it is known to answer, or not."""

    digest: str
    percent: int
    gets_it: Mapping[str, bool] = field(default_factory=dict)

    def may_answer(self, user: str | None) -> tuple[bool, ...]:
        """Whether the canary answers somebody: yes, no, or both where nobody has seen it."""
        return (True, False) if user is None or user not in self.gets_it else (self.gets_it[user],)

    def grown_to(self, percent: int) -> "Split":
        """Who had it keeps it when it grows, and who had it not still has it not when it shrinks."""
        kept = {
            user: has
            for user, has in self.gets_it.items()
            if percent == self.percent or has == (percent > self.percent)
        }
        return Split(self.digest, percent, kept)


@dataclass(frozen=True, slots=True)
class Name:
    """A name: its versions in order, the one that it stands for, and what else is said of it."""

    versions: tuple[str, ...]
    current: str
    split: Split | None = None
    is_pinned: bool = False

    def published(self, digest: str) -> "Name":
        if digest == self.current:
            return replace(self, split=None)
        return replace(self, versions=(*(v for v in self.versions if v != digest), digest), current=digest, split=None)

    def find(self, prefix: str) -> str:
        found = [digest for digest in self.versions if digest.startswith(prefix)]
        if len(found) != 1:
            raise Refused(404)
        return found[0]

    def rolled_back(self, to: Any) -> "Name":
        if to is not True:
            return replace(self, current=self.find(to), split=None)
        position = self.versions.index(self.current)
        if position == 0:
            raise Refused(404)
        return replace(self, current=self.versions[position - 1], split=None)

    def with_canary(self, canary: Mapping[str, Any]) -> "Name":
        digest, percent = self.find(canary["digest"]), canary["percent"]
        if digest == self.current:
            raise Refused(400)
        if self.split is not None and self.split.digest == digest:
            return replace(self, split=self.split.grown_to(percent))
        return replace(self, split=Split(digest, percent))


class Account:
    """What must be true of all names; a change that must be refused changes nothing."""

    def __init__(self) -> None:
        self.names: dict[str, Name] = {}
        self.aliases: dict[str, str] = {}

    def own_name(self, name: str) -> str:
        own = self.aliases.get(name, name)
        if own not in self.names:
            raise Refused(404)
        return own

    def publish(self, name: str, digest: str) -> None:
        if name in self.aliases:
            raise Refused(409)
        known = self.names.get(name)
        self.names[name] = known.published(digest) if known else Name((digest,), digest)

    def change(self, name: str, change: Change) -> None:
        own = self.own_name(name)
        new = self.names[own]
        if "rollback" in change:
            new = new.rolled_back(change["rollback"])
        if change.get("canary") is not None:
            new = new.with_canary(change["canary"])
        elif "canary" in change:
            new = replace(new, split=None)
        if "alias" in change and change["alias"] in self.names:
            raise Refused(409)
        if "alias" in change:
            self.aliases[change["alias"]] = own
        self.names[own] = replace(new, is_pinned=change.get("pinned", new.is_pinned))

    def remove(self, name: str) -> None:
        if self.aliases.pop(name, None) is not None:
            return
        if name not in self.names:
            raise Refused(404)
        if name in self.aliases.values():
            raise Refused(409)
        del self.names[name]

    def answers(self, reference: str, user: str | None) -> tuple[str, dict[str, bool | None]] | None:
        """The name whose versions may answer, and which: each with whether that shows the canary. None is the base."""
        reference = reference.removeprefix(f"{BASE}:")
        if reference == BASE:
            return None
        written, at, prefix = reference.partition("@")
        own = self.own_name(written)
        name = self.names[own]
        if at:
            if len(prefix) < 6 or set(prefix) - set("0123456789abcdef"):
                raise Refused(404)
            return own, {name.find(prefix): None}
        if name.split is None:
            return own, {name.current: None}
        return own, {
            name.split.digest if is_canary else name.current: is_canary for is_canary in name.split.may_answer(user)
        }

    def saw(self, own: str, user: str, *, is_canary: bool) -> None:
        name = self.names[own]
        assert name.split is not None
        split = replace(name.split, gets_it={**name.split.gets_it, user: is_canary})
        self.names[own] = replace(name, split=split)


def refusal(say: Callable[[], object]) -> int | None:
    """The status that something must be refused with; None where it was done."""
    try:
        say()
    except Refused as refused:
        return refused.status
    return None
