"""The line to type that brings back the version from before a change, for each kind of package.

Names and versions come from logs and metadata that others can write, so each is quoted as a shell needs it.
"""

import shlex
from collections.abc import Callable, Mapping

from agentscope.changes import Ecosystem


def going_back(
    ecosystem: Ecosystem | None,
    name: str,
    version: str | None,
    *,
    path: str | None = None,
    tool: str | None = None,
    removed: bool = False,
) -> tuple[str, ...]:
    """What to type to have `version` of a package again, the likeliest first; where no package is known, what to do with the file.

    `path` is the folder of its metadata or of the package, or the file that changed; `tool` is what made the change ("uv", "apt").
    Of a package that was `removed` no newer version stands in the way.
    """
    if ecosystem is None:
        return (f"put back {path or name} as it was, or build what uses it again, and then start the agent anew",)
    write = _PUT_BACK.get(ecosystem, _LINES[ecosystem]) if removed else _LINES[ecosystem]
    return write(name, version, path or "", tool or "")


def _quoted(name: str, sign: str, version: str | None) -> str:
    return shlex.quote(f"{name}{sign}{version}" if version else name)


def _dpkg(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    downgrades = " --allow-downgrades" if version else ""
    held = f"keep it from being upgraded again: sudo apt-mark hold {shlex.quote(name)}"
    return (f"go back: sudo apt-get install{downgrades} {_quoted(name, '=', version)}", held)


def _rpm(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    verb = "downgrade" if version else "install"
    return (
        f"go back: sudo dnf {verb} {_quoted(name, '-', version)}, or take the whole transaction back: sudo dnf history undo last",
    )


def _pacman(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    kept = f"/var/cache/pacman/pkg/{shlex.quote(f'{name}-{version}')}-*.pkg.tar.zst" if version else ""
    return (f"go back: sudo pacman -U {kept}" if kept else f"go back: sudo pacman -S {shlex.quote(name)}",)


def _apk(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    return (f"go back: apk add {_quoted(name, '=', version)}",)


def _nix(_name: str, _version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    return ("go back one generation: sudo nixos-rebuild switch --rollback, or for a user's profile: nix profile rollback",)


def _python(name: str, version: str | None, path: str, tool: str) -> tuple[str, ...]:
    prefix = path.partition("/lib/python")[0] if "/lib/python" in path else ""
    own = prefix not in {"", "/usr"}
    wanted = _quoted(name, "==", version)
    if tool == "uv":
        into = f" --python {shlex.quote(f'{prefix}/bin/python')}" if own else ""
        return (f"go back: uv pip install{into} {wanted}", f"and pin {wanted} in pyproject.toml, so that uv.lock keeps it")
    if tool == "conda":
        return (f"go back: conda install {_quoted(name, '=', version)}",)
    pip = f"{shlex.quote(f'{prefix}/bin/python')} -m pip" if own else "pip"
    return (f"go back: {pip} install {wanted}", f"and pin {wanted} where its requirements stand")


def _node(name: str, version: str | None, path: str, _tool: str) -> tuple[str, ...]:
    above = path.partition("/node_modules")[0] if "/node_modules" in path else ""
    into = f" --prefix {shlex.quote(above)}" if above else ""
    return (f"go back: npm install{into} {_quoted(name, '@', version)}",)


def _image(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    return (
        f"go back: start the container from {shlex.quote(version) if version else f'the image of {shlex.quote(name)} before this'} again",
    )


_LINES: Mapping[Ecosystem, Callable[[str, str | None, str, str], tuple[str, ...]]] = {
    "dpkg": _dpkg,
    "rpm": _rpm,
    "pacman": _pacman,
    "apk": _apk,
    "nix": _nix,
    "python": _python,
    "node": _node,
    "image": _image,
}


def _dpkg_again(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    kept = f"and keep it from being removed as no longer needed: sudo apt-mark manual {shlex.quote(name)}"
    return (f"put it back: sudo apt-get install {_quoted(name, '=', version)}", kept)


def _rpm_again(name: str, version: str | None, _path: str, _tool: str) -> tuple[str, ...]:
    return (f"put it back: sudo dnf install {_quoted(name, '-', version)}",)


_PUT_BACK: Mapping[Ecosystem, Callable[[str, str | None, str, str], tuple[str, ...]]] = {
    "dpkg": _dpkg_again,
    "rpm": _rpm_again,
}
