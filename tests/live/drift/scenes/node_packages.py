"""Packages of Node, changed by npm."""

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
    names=("p-limit", "3.1.0", "4.0.0"),
    complains="TypeError",
    needs=("node", "npm"),
    stderr="pipe",
)
def p_limit_as_a_module(place: Place) -> Script:
    """A Node package became an ES module: what require gives is no function any more."""
    place.npm("p-limit@3.1.0")
    yield place.node("const limit = require('p-limit');", "limit(1);")
    place.npm("p-limit@4.0.0")


@scene("exception/uncaught", FAILED, complains="own mistake", needs=("node", "npm"))
def own_throw_after_a_node_upgrade(place: Place) -> Script:
    """A Node package was upgraded and works; the agent throws in its own code."""
    place.npm("uuid@8.3.2")
    yield place.node("const { v4 } = require('uuid');", "v4(); throw new Error('own mistake');")
    place.npm("uuid@9.0.1")
