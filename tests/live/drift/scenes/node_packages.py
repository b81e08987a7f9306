"""Packages of Node, changed by npm."""

import json

from drift.case import FAILED, Script, scene
from drift.places import Place


@scene(
    "drift/symbol",
    FAILED,
    names=("uuid", "3.4.0", "9.0.1"),
    complains="Package subpath './v4' is not defined",
    needs=("node", "npm"),
)
def uuid_without_its_files(place: Place) -> Script:
    """A Node package no longer lets its single files be required."""
    place.npm("uuid@3.4.0")
    yield place.node("const v4 = require('uuid/v4');", "v4();")
    place.npm("uuid@9.0.1")


@scene(
    "drift/symbol",
    FAILED,
    names=("ansi-regex", "5.0.1", "6.0.1"),
    complains="ansiRegex is not a function",
    needs=("node", "npm"),
    stderr="pipe",
)
def ansi_regex_under_strip_ansi(place: Place) -> Script:
    """A dependency of a Node package is forced to its next major version, where it is an ES module and no function any more."""
    wanted = {"dependencies": {"strip-ansi": "6.0.1"}, "overrides": {"ansi-regex": "5.0.1"}}
    place.write("package.json", json.dumps(wanted))
    place.npm()
    yield place.node("const strip = require('strip-ansi');", "strip('x');")
    place.write("package.json", json.dumps(wanted | {"overrides": {"ansi-regex": "6.0.1"}}))
    (place.outside / "package-lock.json").unlink()
    place.npm()


@scene(
    "drift/symbol",
    FAILED,
    names=("p-limit", "3.1.0", "4.0.0"),
    complains="limit is not a function",
    needs=("node", "npm"),
    stderr="pipe",
    recorded=True,
)
def p_limit_as_a_module(place: Place) -> Script:
    """A Node package became an ES module, and what require gives is no function any more: the agent's own source says whose it is."""
    place.npm("p-limit@3.1.0")
    yield place.node("const limit = require('p-limit');", "limit(1);")
    place.npm("p-limit@4.0.0")


@scene(
    "exception/uncaught",
    FAILED,
    complains="limit is not a function",
    proof=("p-limit 3.1.0 -> 4.0.0", "drift not shown"),
    needs=("node", "npm"),
    stderr="pipe",
    recorded=True,
)
def own_name_called_after_a_node_upgrade(place: Place) -> Script:
    """The agent calls what is no function, under a name of its own; the package that changed is not what it called."""
    place.npm("p-limit@3.1.0")
    yield place.node("const pLimit = require('p-limit'); const limit = { of: pLimit };", "limit(1);")
    place.npm("p-limit@4.0.0")


@scene(
    "exception/uncaught",
    FAILED,
    complains="limit is not a function",
    proof=("drift not shown",),
    needs=("node", "npm"),
    stderr="pipe",
)
def own_source_changed_with_a_node_package(place: Place) -> Script:
    """The agent's author changed the line that fails on the day when the package was upgraded, so that either can be the reason."""
    place.npm("p-limit@3.1.0")
    argv = place.node("const limit = require('p-limit');", "limit(1);")
    yield argv
    place.npm("p-limit@4.0.0")
    place.node("const limit = require('p-limit');", "limit(2);")


@scene("exception/uncaught", FAILED, complains="own mistake", needs=("node", "npm"))
def own_throw_after_a_node_upgrade(place: Place) -> Script:
    """A Node package was upgraded and works; the agent throws in its own code."""
    place.npm("uuid@8.3.2")
    yield place.node("const { v4 } = require('uuid');", "v4(); throw new Error('own mistake');")
    place.npm("uuid@9.0.1")
