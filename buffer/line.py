"""The learner's line of versions: where it stands, and where its incarnations branched off."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.errors import RefusedError
from protocol.version import Lineage, PolicyVersion


class Line:
    """The committed version and its lineage."""

    def __init__(self, version: PolicyVersion | None = None, lineage: Lineage | None = None) -> None:
        self.version = version or PolicyVersion(1, 0)
        self.lineage = lineage or Lineage()

    def after(self, steps: int) -> PolicyVersion:
        """The version `steps` optimizer steps after the committed one."""
        return PolicyVersion(self.version.incarnation, self.version.step + steps)

    def enter(self, version: PolicyVersion, settled_step: int) -> bool:
        """Begin the branch of a newer incarnation; False if `version` is of the one known.

        Raises:
            RefusedError: "settled": the branch would undo steps that a checkpoint holds.
        """
        if version.incarnation <= self.lineage.incarnation:
            return False
        if version.step < settled_step:
            raise RefusedError(
                "settled",
                f"the learner begins again at {version}, but prompts up to step {settled_step} are settled: "
                "resume the newest checkpoint, or start the hub with the ledger of this one",
            )
        # An incarnation that died before it published anything generated no tokens: where it branched is of no account.
        while self.lineage.incarnation < version.incarnation:
            self.lineage = self.lineage.resume_at(version.step)
        self.version = version
        return True

    def lag(self, versions: Iterable[PolicyVersion], trained: PolicyVersion) -> int:
        """The largest lag of these versions to the one that trains on their tokens.

        Weights may reach an actor before their commit reaches the hub; such a version has lag 0.
        """
        return max(
            0
            if version.incarnation == trained.incarnation and version.step > trained.step
            else self.lineage.lag(version, trained)
            for version in versions
        )

    def require_known(self, versions: Iterable[PolicyVersion], newest: PolicyVersion) -> None:
        """Refuse "unknown_version" for what cannot have been published yet."""
        for version in versions:
            if version > newest:
                raise RefusedError("unknown_version", f"version {version} is not known; the newest is {newest}")
