"""The image that a container was made from, by the records of its runtime in our own root (Docker, Podman)."""

from collections.abc import Iterator

from agentscope.changes import By, Change
from agentscope.changes._look import Look
from agentscope.distributions import plain
from agentscope.distributions.container import image_of


def read(look: Look) -> Iterator[Change]:
    """One change: the making of the container, where that lies in the window."""
    if look.place.container is None:
        return
    image = image_of(look.place.container)
    if image is None or image.created is None:
        return
    at = look.local_ns(image.created)
    if at is None or not look.within(*at):
        return
    yield Change(
        what=plain(image.name or "image"),
        ecosystem="image",
        kind="installed",
        wall_ns=at[0],
        precision_ns=at[1],
        source=image.source,
        to_version=image.id,
        by=By(tool=image.runtime),
    )
