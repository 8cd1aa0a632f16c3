"""Policy versions and their lag, across incarnations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.version import Lineage, PolicyVersion


def v(incarnation: int, step: int) -> PolicyVersion:
    return PolicyVersion(incarnation, step)


@st.composite
def lineages(draw: st.DrawFn) -> tuple[Lineage, list[PolicyVersion]]:
    """A history of learners that train some steps, die, and resume; with every version that ever existed."""
    lineage, versions, reached = Lineage(), [v(1, 0)], 0
    for incarnation in range(1, draw(st.integers(1, 4)) + 1):
        begin = 0
        if incarnation > 1:
            begin = draw(st.integers(0, reached))
            lineage = lineage.resume_at(begin)
        reached = begin + draw(st.integers(0, 5))
        versions += [v(incarnation, step) for step in range(begin, reached + 1)]
    return lineage, versions


def walk(lineage: Lineage, version: PolicyVersion) -> list[tuple[int, int]]:
    """All weights from the first to this version, each named by the incarnation that trained it."""
    path = []
    for step in range(version.step + 1):
        incarnation = version.incarnation
        while incarnation > 1 and step <= lineage.branch_steps[incarnation - 2]:
            incarnation -= 1
        path.append((incarnation, step))
    return path


@given(lineages(), st.data())
def test_lag_is_the_way_through_the_tree_of_versions(
    history: tuple[Lineage, list[PolicyVersion]], data: st.DataObject
) -> None:
    lineage, versions = history
    trained = data.draw(st.sampled_from([x for x in versions if x.incarnation == lineage.incarnation]))
    generated = data.draw(st.sampled_from([x for x in versions if x.incarnation < lineage.incarnation or x <= trained]))
    one, other = walk(lineage, generated), walk(lineage, trained)
    common = sum(x == y for x, y in zip(one, other, strict=False))
    assert lineage.lag(generated, trained) == len(one) + len(other) - 2 * common >= 0


@given(lineages(), st.data())
def test_lag_grows_by_one_with_every_step_that_is_trained(
    history: tuple[Lineage, list[PolicyVersion]], data: st.DataObject
) -> None:
    lineage, versions = history
    newest = versions[-1]
    generated = data.draw(st.sampled_from(versions))
    following = v(newest.incarnation, newest.step + 1)
    assert lineage.lag(generated, following) == lineage.lag(generated, newest) + 1


def test_lag_of_the_example_in_the_documentation() -> None:
    lineage = Lineage().resume_at(3)
    # Back from step 5 to the branch point 3, then forward to 4.
    assert lineage.lag(v(1, 5), v(2, 4)) == 2 + 1
    # Step 2 lies before the branch point: an ancestor.
    assert lineage.lag(v(1, 2), v(2, 4)) == 2
    assert lineage.lag(v(2, 4), v(2, 4)) == 0


def test_lag_through_two_branch_points_goes_back_to_the_lower_one() -> None:
    lineage = Lineage().resume_at(6).resume_at(2)
    # (1, 8) and (3, 3) part at step 2: 6 back, 1 forward; the first branch point, 6, is not on the way.
    assert lineage.lag(v(1, 8), v(3, 3)) == 6 + 1


@pytest.mark.parametrize(
    ("generated", "trained", "message"),
    [
        (v(3, 0), v(2, 4), "incarnation after 2"),
        (v(1, 0), v(3, 4), "incarnation after 2"),
        (v(2, 4), v(1, 5), "comes after"),
        (v(2, 5), v(2, 4), "comes after"),
        (v(1, 3), v(2, 1), "before the step at which its incarnation began"),
    ],
)
def test_impossible_pairs_are_refused(generated: PolicyVersion, trained: PolicyVersion, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lineage().resume_at(3).lag(generated, trained)


@given(st.integers(1, 10**9), st.integers(0, 10**12))
def test_label_survives_the_round_trip(incarnation: int, step: int) -> None:
    assert PolicyVersion.parse(str(v(incarnation, step))) == v(incarnation, step)


@pytest.mark.parametrize("label", ["", "default", "1", "1.", ".4", "1.4.2", "-1.4", "0.4", "1.4\n", "a.b"])
def test_other_labels_are_refused(label: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        PolicyVersion.parse(label)


def test_versions_are_ordered_by_incarnation_then_step() -> None:
    assert sorted([v(2, 0), v(1, 9), v(1, 10)]) == [v(1, 9), v(1, 10), v(2, 0)]


def test_resume_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="step >= 0"):
        Lineage().resume_at(-1)
