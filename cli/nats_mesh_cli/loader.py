"""``MOD:APP`` to services; every mistake on the way is a line that says what is there instead."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nats_mesh import MeshError, Service
from nats_mesh_cli.errors import CliError, did_you_mean

__all__ = ["load_services", "split_target"]


def split_target(target: str) -> tuple[str, str]:
    """Module and attribute of ``MOD:APP``; the attribute is empty where none was given."""
    module, _, attribute = target.partition(":")
    if module.endswith(".py") or "/" in module:
        dotted = module.removeprefix("./").removesuffix(".py").strip("/").replace("/", ".")
        raise CliError(
            f"{target!r}: name the module, not the file", hint=f"write {dotted}:{attribute or 'APP'}"
        )
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise CliError(
            f"{target!r} is no MOD:APP", hint="write the module and the service in it: shop.app:orders"
        )
    return module, attribute


def load_services(targets: Sequence[str], app_dir: Path) -> list[Service]:
    """Import every target with ``app_dir`` on the path and return the services, each once."""
    folder = app_dir.absolute()
    if not folder.is_dir():
        raise CliError(f"--app-dir {app_dir}: there is no such folder")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    services: list[Service] = []
    for target in targets:
        for service in _load(target, folder):
            if any(service is known for known in services):
                raise CliError(
                    f"{target!r}: the service {service.name!r} is named twice", hint="name it once"
                )
            services.append(service)
    return services


def _load(target: str, folder: Path) -> list[Service]:
    name, attribute = split_target(target)
    module = _import(name, target, folder)
    found = _services_in(module)
    if not attribute:
        hint = f"write {name}:{found[0]}" if found else f"there is no Service in {name}"
        raise CliError(
            f"{target!r} does not say which service of {name} to run", hint=_there_are(found) or hint
        )
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            guess = did_you_mean(attribute, found)
            hint = " ".join(filter(None, (guess, _there_are(found)))) or f"there is no Service in {name}"
            raise CliError(f"{name} has no {attribute!r}", hint=hint)
        value = getattr(value, part)
    services = [value] if isinstance(value, Service) else value
    if not isinstance(services, list | tuple) or not all(isinstance(each, Service) for each in services):
        raise CliError(
            f"{target} is {_kind(value)}, not a Service (or a list of Services)",
            hint=_there_are(found) or f"there is no Service in {name}",
        )
    if not services:
        raise CliError(f"{target} is an empty list: there is nothing to run")
    return list(services)


def _import(name: str, target: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            hint = f"looked in {folder} and where Python looks; --app-dir DIR names another folder"
            raise CliError(f"there is no module {missing!r} ({target})", hint=hint) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:  # importing runs the user's code, which may raise anything
        raise _broken(name, error) from error


def _broken(name: str, error: BaseException) -> CliError:
    """An import that failed inside the module: what, and the line of the user's code where."""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
        text = f"SyntaxError: {error.msg}"
    else:
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen")
        ]
        own = [f for f in frames if not Path(f.filename).is_relative_to(Path(__file__).parent)] or frames
        inside = [
            f for f in own if "nats_mesh" not in Path(f.filename).parts and "importlib" not in f.filename
        ]
        last = (inside or own)[-1:]
        where = f" ({last[0].filename}, line {last[0].lineno})" if last else ""
        text = str(error) if isinstance(error, MeshError) else f"{type(error).__name__}: {error}"
    return CliError(f"importing {name} failed: {text}{where}", hint="MESH_LOG=debug shows the traceback")


def _services_in(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, Service)]


def _there_are(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"Services there: {listed}" if listed else ""


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if callable(value):
        return f"the function {getattr(value, '__name__', '?')}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
