"""Policy documents that a command is given: in files, folders, or on stdin; the mesh's own and Istio's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET

from nats_mesh import PolicyError
from nats_mesh.policy.bus.documents import key_of
from nats_mesh.policy.bus.plan import Document
from nats_mesh.policy.decode import decode
from nats_mesh.policy.files import read_files
from nats_mesh.policy.istio import Converted, Untranslated, translate_files
from nats_mesh.policy.layerless import layerless
from nats_mesh.policy.problems import Problems, later_text, place, together
from nats_mesh.policy.reader import MAX_BYTES
from nats_mesh_cli.errors import FAILED, CliError, one_line
from nats_mesh_cli.output import Out, counted

__all__ = ["STDIN", "Given", "read_given", "with_others"]

STDIN = "-"
_RULE = "DestinationRule/"


class Given(NamedTuple):
    """The documents by their keys, which Istio document each of them comes from, if any, and what of those has no
    meaning here."""

    documents: dict[str, Document]
    origins: dict[str, str]
    untranslated: tuple[Untranslated, ...] = ()
    notes: tuple[Untranslated, ...] = ()

    def tell(self, out: Out) -> None:
        """Say on stderr what is lost of Istio's documents, and what is done in another way."""
        for each in self.untranslated:
            more = " (it changes which calls go where, or who may call)" if each.severity == "serious" else ""
            out.note(
                f"no meaning here: {one_line(str(each))}{more}",
                "bad" if each.severity == "serious" else "warn",
            )
        for each in self.notes:
            out.note(f"note: {one_line(str(each))}", "dim")

    def left_behind(self, stored: Iterable[str]) -> list[tuple[str, str]]:
        """Which of the ``stored`` keys an Istio document comes to no more, though it may have before, and which
        document: a DestinationRule makes a Limit of its name, and a Destination for each subset with settings."""
        rules = {each.removeprefix(_RULE): each for each in self.origins.values() if each.startswith(_RULE)}
        found = []
        for key in stored:
            kind, _, name = key.partition(".")
            of = name if kind == "Limit" else name.rpartition("-")[0] if kind == "Destination" else ""
            if of in rules and key not in self.documents:
                found.append((key, rules[of]))
        return found

    def refuse_lossy(self) -> None:
        """:class:`CliError` where anything of Istio's documents has no meaning here."""
        if not self.untranslated:
            return
        count = len(self.untranslated)
        lost = counted(count, "thing has", "things have")
        raise CliError(
            f"{lost} no meaning here, and --strict takes no such documents; nothing was stored", code=FAILED
        )


def read_given(paths: Sequence[str], namespace: str, *, to_apply: bool = False) -> Given:
    """Read every document; all that is wrong is one :class:`nats_mesh.PolicyError`.

    A document that names another namespace is wrong: the store of one namespace is changed at a time. All files are
    one world, as for ``policy convert``. What is read ``to_apply`` must come to policies that something applies: of
    Istio's documents that is checked here, where it can be said which of them does not.
    """
    if not paths:
        raise CliError("name the files of policies", hint="-f FILE, a folder, or - for stdin")
    problems = Problems()
    contents = _contents(paths, problems)
    problems.raise_if_any()
    try:
        found = translate_files([(held, name) for name, held in contents.items()], namespace=namespace)
    except PolicyError as error:
        raise with_others(error, _layerless_too(contents) if to_apply else ()) from None
    documents: dict[str, Document] = {}
    origins: dict[str, str] = {}
    for each in found.converted:
        if to_apply and each.origin:
            _check_applied(each, problems)
        document = Document(policy=each.policy, value=msgspec.json.encode(each.value))
        _add(document, each.origin, documents, namespace, problems)
        if each.origin:
            origins[key_of(each.policy)] = each.origin
    problems.raise_if_any()
    return Given(documents, origins, found.untranslated, found.notes)


def _check_applied(each: Converted, problems: Problems) -> None:
    policy = each.policy
    for path, what in layerless(policy):
        inside = "" if path == "kind" else f" with {path}"
        problems.add(
            f"{each.origin} comes to {policy.name}{inside}, which nothing applies: {later_text(what)}; "
            "policy convert shows it",
            file=policy.file,
            line=policy.lines.get(path, policy.line),
        )


def _layerless_too(contents: Mapping[str, bytes]) -> Sequence[PolicyError]:
    """What nothing applies of those documents that can be read, where others cannot: one look is enough for both."""
    problems = Problems()
    for name, held in contents.items():
        for policy in decode(held, name, Problems()):
            for path, what in layerless(policy):
                it = "the document" if path == "kind" else "it"
                problems.add(
                    f"{later_text(what)}; remove {it}",
                    file=policy.file,
                    line=policy.lines.get(path, policy.line),
                    path=path,
                )
    found = problems.error()
    return () if found is None else found.problems


def with_others(error: PolicyError, others: Iterable[PolicyError]) -> PolicyError:
    """All that is wrong as one error, in the order of the files, each thing once."""
    found = {str(each): each for each in (*error.problems, *others)}
    return together(sorted(found.values(), key=lambda each: (each.file, each.line or 0)))


def _add(
    document: Document, origin: str, documents: dict[str, Document], namespace: str, problems: Problems
) -> None:
    policy = document.policy
    said = policy.document.metadata.namespace
    if said is not UNSET and said != namespace and origin:
        problems.add(
            f"{origin} is about the namespace {said}, by its own or by its host's (NAME.{said}.svc.cluster.local), and "
            f"{namespace} is changed: give -n {said}, or write a short name where a service of {namespace} is meant",
            file=policy.file,
            line=policy.line,
        )
    elif said is not UNSET and said != namespace:
        problems.add(
            f"is for the namespace {said}, and {namespace} is changed: give -n {said}, or remove it",
            file=policy.file,
            line=policy.lines.get("metadata.namespace", policy.line),
            path="metadata.namespace",
        )
    other = documents.setdefault(key_of(policy), document)
    if other is not document:
        where = place(other.policy.file, other.policy.line)
        problems.add(
            f"{policy.name} stands at {where}, too: give one of them another name",
            file=policy.file,
            line=policy.lines.get("metadata.name", policy.line),
            path="metadata.name",
        )


def _contents(paths: Sequence[str], problems: Problems) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in paths:
        if path == STDIN:
            found["stdin"] = sys.stdin.buffer.read(MAX_BYTES + 1)
            continue
        for name, held in read_files(path).items():
            if isinstance(held, str):
                problems.add(held, file=name)
            else:
                found[name] = held
    return found
