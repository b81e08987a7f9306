"""What the health check of the config says of it."""

from agentscope.evidence import Evidence, HangScene

ABSENT = "no health check is configured for it"


class HealthCheck(Evidence, frozen=True, tag="health"):
    """`failing_for_s` is set only once it has failed as often as the config allows."""

    probe: str
    failures: int
    outcome: str
    failing_for_s: float | None
    answered: bool | None = None

    @property
    def failing(self) -> bool:
        """Whether it fails, by the config's own measure."""
        return self.failing_for_s is not None

    def says(self) -> str:
        """One sentence for a person."""
        if not self.failures:
            return f"its health check ({self.probe}) is fine"
        lasted = "" if self.failing_for_s is None else f", for {self.failing_for_s:.0f} s"
        return f"its health check ({self.probe}) failed {self.failures} times in a row{lasted}: {self.outcome}"


def collect(scene: HangScene) -> HealthCheck | None:
    """From the probe that the config names."""
    seen = scene.examination
    health = seen.health
    if health is None:
        return None
    failing_for_s = None if health.failing_since_ns is None else max(0.0, (seen.at_ns - health.failing_since_ns) / 1e9)
    return HealthCheck(
        source="the health check of the config",
        probe=health.probe,
        failures=health.failures,
        outcome=health.says,
        failing_for_s=failing_for_s,
        answered=health.answered,
    )
