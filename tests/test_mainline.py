"""Which commits a branch was at: pulls that were pushed, true merges, and merges of every other kind, by real git."""

from __future__ import annotations

import pytest
from conftest import Checkout, clone, git

from gitops.repo import mainline, publish
from gitops.repo.git import Git
from gitops.repo.mainline import Merge
from gitops.repo.publish import Asked, Draft, Way

NOTE = "overlays/dev/note.txt"


def commit(checkout: Checkout, name: str, *, push: bool = False) -> str:
    """A commit of one more file below overlays/dev, named after what it is for."""
    checkout.write(f"overlays/dev/{name}.txt", name)
    return checkout.commit(name, push=push)


def line(checkout: Checkout, rev: str = "cicd") -> list[str]:
    """The subjects of the commits that the branch was at, newest first, by the rule; the merges as `M`."""
    subjects = [checkout.git("log", "-1", "--format=%s", found) for found in Git(checkout.root).line(rev)]
    return ["M" if subject.startswith("Merge") else subject for subject in subjects]


def changed(checkout: Checkout, rev: str = "cicd") -> list[set[str]]:
    """What each commit of the history brought below overlays/, newest first."""
    found = Git(checkout.root).changes(checkout.git("rev-parse", rev), "overlays")
    return [{path.split("/")[-1].removesuffix(".txt") for path in change.files} for change in found]


@pytest.fixture
def pulled(plain: Checkout) -> tuple[Checkout, Checkout]:
    """Ann's clone, who pulled what others had pushed into two commits of her own and pushed that; and one made anew."""
    others = clone(plain.remote, "others")
    commit(plain, "mine 1")
    commit(plain, "mine 2")
    commit(others, "theirs 1", push=True)
    commit(others, "theirs 2", push=True)
    plain.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "cicd")
    plain.git("push", "-q", "origin", "cicd")
    return plain, clone(plain.remote, "anew")


def test_a_pull_hides_nothing_that_others_pushed_and_shows_nothing_that_was_tried(
    pulled: tuple[Checkout, Checkout],
) -> None:
    for checkout in pulled:
        assert line(checkout) == ["M", "theirs 2", "theirs 1", "Start"]
        assert changed(checkout) == [{"mine 1", "mine 2"}, {"theirs 2"}, {"theirs 1"}, {"note"}]
        for most in (1, 2, 3):
            listed = Git(checkout.root).changes("cicd", "overlays", most=most)
            assert len(listed) == most
        [first] = Git(checkout.root).changes("cicd", "overlays/dev/theirs 1.txt")
        assert (first.author, first.before) == ("Test", {"overlays/dev/theirs 1.txt": None})
        assert Git(checkout.root).changes("cicd", "README.md")[0].commit == checkout.git("rev-list", "HEAD")[-40:]


def test_pull_after_pull_is_followed_to_the_first_commit(pulled: tuple[Checkout, Checkout]) -> None:
    ann, bob = pulled
    commit(bob, "bob's")
    commit(ann, "again", push=True)
    bob.git("fetch", "-q")
    bob.git("merge", "-q", "--no-edit", "origin/cicd")
    bob.git("push", "-q", "origin", "cicd")
    ann.git("pull", "-q", "--ff-only", "origin", "cicd")

    for checkout in (ann, bob, clone(ann.remote, "third")):
        assert line(checkout) == ["M", "again", "M", "theirs 2", "theirs 1", "Start"]


def test_without_words_a_clone_that_saw_the_branch_follows_it_and_a_new_one_cannot(plain: Checkout) -> None:
    others = clone(plain.remote, "others")
    commit(plain, "mine")
    commit(others, "theirs", push=True)
    plain.git("fetch", "-q")
    plain.git("merge", "-q", "-m", "Up to date", "origin/cicd")
    plain.git("push", "-q", "origin", "cicd")
    others.git("pull", "-q", "--ff-only", "origin", "cicd")

    assert line(plain) == line(others) == ["Up to date", "theirs", "Start"]
    assert line(clone(plain.remote, "new")) == ["Up to date", "mine", "Start"]


@pytest.mark.parametrize(
    ("branch", "words"),
    [
        ("promote/staging/app", []),
        ("main", []),
        ("feature/cicd", []),
        ("cicd2", []),
        ("topic", ["-m", "Merge branch 'topic' into 'cicd'"]),
        ("topic", ["-m", "Merge pull request #7 from acme/cicd"]),
        ("topic", ["-m", "Merge tag 'cicd'"]),
        ("topic", ["-m", "Merge branch 'cicd' into 'cicd'"]),
    ],
)
def test_what_a_merged_branch_tried_was_never_the_tip(plain: Checkout, branch: str, words: list[str]) -> None:
    plain.git("checkout", "-q", "-B", branch)
    commit(plain, "tried")
    commit(plain, "done")
    plain.git("checkout", "-q", "cicd")
    commit(plain, "meanwhile")
    # A pull request that was brought up to date before it was merged.
    plain.git("checkout", "-q", branch)
    plain.git("merge", "-q", "--no-edit", "cicd")
    plain.git("checkout", "-q", "cicd")
    plain.git("merge", "-q", "--no-ff", *(words or ["--no-edit"]), branch)

    assert line(plain) == ["M", "meanwhile", "Start"]
    assert changed(plain) == [{"tried", "done"}, {"meanwhile"}, {"note"}]


def test_a_pull_by_rebase_and_a_squash_are_plain_commits(plain: Checkout) -> None:
    others = clone(plain.remote, "others")
    commit(plain, "mine")
    commit(others, "theirs", push=True)
    plain.git("pull", "-q", "--rebase", "origin", "cicd")
    plain.git("checkout", "-q", "-b", "topic")
    commit(plain, "tried")
    plain.git("checkout", "-q", "cicd")
    plain.git("merge", "-q", "--squash", "topic")
    plain.commit("squashed")

    assert line(plain) == ["squashed", "mine", "theirs", "Start"]


def test_a_topic_that_was_brought_up_to_date_and_pushed_as_the_branch_is_a_pull(plain: Checkout) -> None:
    others = clone(plain.remote, "others")
    plain.git("checkout", "-q", "-b", "topic")
    commit(plain, "tried")
    commit(others, "theirs", push=True)
    plain.git("fetch", "-q")
    plain.git("merge", "-q", "--no-edit", "origin/cicd")
    plain.git("push", "-q", "origin", "topic:cicd")

    assert line(clone(plain.remote, "new")) == ["M", "theirs", "Start"]


def test_of_many_merged_at_once_the_branch_is_the_one_that_is_named(plain: Checkout) -> None:
    others = clone(plain.remote, "others")
    for name in ("one", "two"):
        plain.git("checkout", "-q", "-B", name, "cicd")
        commit(plain, name)
    plain.git("checkout", "-q", "cicd")
    commit(plain, "mine")
    commit(others, "theirs", push=True)
    plain.git("fetch", "-q", "origin", "cicd:refs/heads/fresh")
    plain.git("merge", "-q", "--no-edit", "one", "two")
    assert line(plain) == ["M", "mine", "Start"]

    plain.git("reset", "-q", "--hard", "HEAD^")
    plain.git("merge", "-q", "--no-edit", "one", "origin/cicd", "two")
    # Git names the branches of a remote after all others, whatever the order of the parents: only who saw it can tell.
    assert line(plain) == ["M", "theirs", "Start"]
    plain.git("push", "-q", "origin", "cicd")
    assert line(clone(plain.remote, "new")) == ["M", "mine", "Start"]


A, B, C, D = "a" * 40, "b" * 40, "c" * 40, "d" * 40


@pytest.mark.parametrize(
    ("subject", "committer", "seen", "chosen"),
    [
        ("Merge branch 'cicd' of https://example.org/acme/models", "ann@example.org", (), B),
        ("Merge branch 'cicd' of git@example.org:acme/models into cicd", "ann@example.org", (), B),
        ("Merge remote-tracking branch 'origin/cicd' into cicd", "ann@example.org", (), B),
        ("Merge remote-tracking branch 'upstream/cicd'", "ann@example.org", (), B),
        ("Merge branch 'cicd' into promote/prod/app", "ann@example.org", (), B),
        ("Merge branch 'topic' into 'cicd'", "ann@example.org", (), A),
        ("Merge branch 'topic' into cicd", "ann@example.org", (), A),
        ("Merge remote-tracking branch 'origin/x/cicd'", "ann@example.org", (), A),
        ("Merge branch 'x/cicd'", "ann@example.org", (), A),
        ("Merge commit 'cicd'", "ann@example.org", (), A),
        ("Revert \"Merge branch 'cicd' of there\"", "ann@example.org", (), A),
        # Whoever presses the button may write anything.
        ("Merge branch 'cicd' of https://example.org/acme/models", "noreply@github.com", (), A),
        # What this clone has seen goes before words, but for a parent that is as well seen.
        ("Anything", "ann@example.org", (B,), B),
        ("Anything", "ann@example.org", (A, B), A),
        ("Merge branch 'cicd' of there", "ann@example.org", (A, B), B),
        (mainline.MENDED, "ann@example.org", (B,), A),
    ],
)
def test_the_parent_that_was_the_branch(subject: str, committer: str, seen: tuple[str, ...], chosen: str) -> None:
    assert mainline.parent(Merge(D, (A, B), committer, subject), seen) == chosen


def test_among_many_parents_the_place_in_the_words_counts_only_where_all_are_named() -> None:
    def chosen(subject: str) -> str:
        return mainline.parent(Merge(D, (A, B, C), "ann@example.org", subject), ())

    assert chosen("Merge branches 'one' and 'cicd'") == C
    assert chosen("Merge branches 'cicd' and 'one' of there into cicd") == B
    assert chosen("Merge branches 'one', 'two' and 'cicd'") == A
    assert chosen("Merge branches 'cicd' and 'cicd'") == A
    assert chosen("Merge branch 'one', remote-tracking branch 'origin/cicd'") == A


# Mended by the next command that writes


def published(checkout: Checkout, name: str, *, push: bool = True) -> str | None:
    repository = Git(checkout.root)

    def build(base: str) -> Draft:
        return Draft(repository.tree_with(base, {name: b"x"}), f"Add {name}\n")

    asked = Asked(Way.PUSH if push else Way.COMMIT, "python scripts/some_command.py")
    return publish.publish(repository, build, asked, lambda: "some/branch").commit


def first_parents(checkout: Checkout) -> list[str]:
    return git(checkout.remote, "log", "--first-parent", "--format=%s", "cicd").splitlines()


MENDED = ["Add x", mainline.MENDED, "theirs 2", "theirs 1", "Start"]


def test_the_next_push_puts_what_was_pulled_the_right_way_round(
    pulled: tuple[Checkout, Checkout], capsys: pytest.CaptureFixture[str]
) -> None:
    ann, anew = pulled
    tree = git(ann.remote, "rev-parse", "cicd^{tree}")

    assert published(anew, "x")

    assert first_parents(ann) == MENDED
    assert git(ann.remote, "rev-parse", "cicd^^{tree}") == tree
    assert "was merged the wrong way round" in capsys.readouterr().err
    # In every clone the same, and once and for all.
    ann.git("pull", "-q", "--ff-only", "origin", "cicd")
    assert line(ann) == line(anew) == MENDED
    assert published(ann, "y")
    assert first_parents(ann) == ["Add y", *MENDED]


def test_what_was_pulled_and_not_pushed_is_put_right_on_its_way(plain: Checkout) -> None:
    others = clone(plain.remote, "others")
    commit(plain, "mine")
    for name in ("theirs 1", "theirs 2"):
        commit(others, name, push=True)
    plain.git("fetch", "-q")
    plain.git("merge", "-q", "-m", "In other words", "origin/cicd")
    commit(plain, "more")

    assert published(plain, "x")

    assert first_parents(plain) == MENDED
    assert (plain.root / "x").exists()


def test_what_is_in_order_is_left_alone(plain: Checkout) -> None:
    commit(plain, "mine")
    assert published(plain, "a", push=False)
    plain.git("checkout", "-q", "-b", "topic")
    commit(plain, "tried")
    plain.git("checkout", "-q", "cicd")
    plain.git("merge", "-q", "--no-ff", "--no-edit", "topic")

    assert published(plain, "b")

    assert first_parents(plain) == ["Add b", "Merge branch 'topic' into cicd", "Add a", "mine", "Start"]
