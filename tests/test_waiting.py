"""Waiting for git, S3, GitHub, the API server and programs that do not answer, or give a byte now and then."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from conftest import Checkout, wait_until
from dripping import ANSWERS, dripping

from gitops.cluster.kube import Cluster
from gitops.models import signing
from gitops.models.s3 import Store
from gitops.programs import building, manifests, tools
from gitops.programs.model_python import ModelPython
from gitops.programs.tools import Program
from gitops.repo.git import Git, GitError
from gitops.repo.github import GitHub

from contract import waiting
from contract.errors import Refused

HALF = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nContent-Length: 900\r\n\r\n001e#"
)


@contextlib.contextmanager
def server(answer: bytes, *, drip: bool = False, closes: bool = False) -> Iterator[int]:
    """The port of a server that accepts, sends these bytes, all at once or one every 0.1 s, and is silent then."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for start in range(0, len(answer), step := 1 if drip else len(answer) or 1):
                connection.sendall(answer[start : start + step])
                if drip and over.wait(0.1):
                    return
            if not closes:
                over.wait()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["http", "git", "ssh"])
@pytest.mark.parametrize("call", ["fetch", "push", "ls-remote"])
def test_a_silent_server_is_given_up(plain: Checkout, scheme: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.03")
    git = Git(plain.root)
    # No ssh is needed for this: what stands there waits like one whose server is silent.
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 1000 #")
    with server(b"") as port:
        git.text("remote", "set-url", "origin", f"{scheme}://127.0.0.1:{port}/a.git")
        with pytest.raises(Refused) as refused:
            {
                "fetch": lambda: git.fetch("origin", "cicd"),
                "push": lambda: git.push("origin", "HEAD", "cicd"),
                "ls-remote": lambda: git.remote_tip("origin", "cicd"),
            }[call]()

    [line] = refused.value.lines
    assert line.startswith(f"git {call}: no end after 0.3 s of waiting for the remote (")
    assert "origin" in line and waiting.VARIABLE in line
    assert list((plain.root / ".git").rglob("*.lock")) == []


@pytest.mark.parametrize("scheme", ["http", "git"])
@pytest.mark.parametrize("call", ["cat-file", "fetch"])
def test_a_silent_server_of_missing_blobs_is_given_up(
    plain: Checkout, tmp_path: Path, scheme: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.git("-C", str(plain.remote), "config", "uploadpack.allowFilter", "true")
    plain.git("clone", "-q", "-n", "-b", "cicd", "--filter=blob:none", plain.remote.as_uri(), str(tmp_path / "partial"))
    monkeypatch.setenv(waiting.VARIABLE, "0.03")
    git = Git(tmp_path / "partial")
    with server(b"") as port:
        git.text("remote", "set-url", "origin", f"{scheme}://127.0.0.1:{port}/a.git")
        with pytest.raises(Refused, match=rf"git {call}: no end after 0\.3 s of waiting for the remote"):
            {
                "cat-file": lambda: git.show("HEAD", "README.md"),
                "fetch": lambda: git.show_all(["HEAD:README.md"]),
            }[call]()


def test_ssh_is_told_to_give_up_and_to_ask_nobody(
    plain: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ssh that writes down what it is told, in the place of the real one."""
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv(waiting.VARIABLE, "7")

    with pytest.raises(GitError):
        Git(plain.root).remote_tip("ssh://127.0.0.1/a.git", "cicd")

    for option in ("BatchMode=yes", "ConnectTimeout=7", "ServerAliveInterval=7", "ServerAliveCountMax=1"):
        assert f"-o {option}" in (tmp_path / "told").read_text()


@pytest.mark.parametrize(("answer", "drip"), [(HALF, False), (HALF, True), (b"HTTP/1.1 200 OK\r\nX: " + HALF, True)])
def test_half_an_answer_is_given_up(
    plain: Checkout, answer: bytes, drip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.05")
    with server(answer, drip=drip) as port, pytest.raises(Refused, match=r"git ls-remote: no end after 0\.5 s"):
        Git(plain.root).remote_tip(f"http://127.0.0.1:{port}/a.git", "cicd")


@pytest.mark.parametrize("scheme", ["http", "git"])
def test_a_server_that_closes_is_a_fault_of_git(plain: Checkout, scheme: str) -> None:
    with server(b"", closes=True) as port, pytest.raises(GitError):
        Git(plain.root).remote_tip(f"{scheme}://127.0.0.1:{port}/a.git", "cicd")


def test_what_takes_long_and_ends_in_time_is_done(plain: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "3")
    line = b"003e" + b"a" * 40 + b" refs/heads/cicd\x00 \n0000"
    line = b"%04x" % (len(line) - 4) + line[4:]
    with server(line, drip=True) as port:
        assert Git(plain.root).remote_tip(f"git://127.0.0.1:{port}/a.git", "cicd") == "a" * 40


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "inf", "nan", "1e12"])
def test_another_patience_is_refused(plain: Checkout, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, value)
    with pytest.raises(Refused, match="not a number of seconds above 0"):
        Git(plain.root)


# S3


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "eu-west-1",
        # Time for what is in this process; a retry waits for a time of its own.
        waiting.VARIABLE: "0.2",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


S3_CALLS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("key", 100),
    "sha256": lambda store: store.sha256("key", 1_000_000),
    "add": lambda store: store.add("key", b"body", "0" * 64),
    "keys": lambda store: store.keys("key"),
}


@pytest.mark.parametrize(("call", "answer"), [
    *[("read", answer) for answer in ANSWERS], ("sha256", "the body"), ("add", "a header"), ("keys", "the body"),
])  # fmt: skip
def test_a_bucket_that_drips_is_given_up(
    call: str, answer: str, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dripping(ANSWERS[answer]) as server, pytest.raises(Refused) as refused:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        S3_CALLS[call](Store("bucket"))

    assert refused.value.lines == (
        "s3://bucket/key: no end after 0.2 s of waiting; check the network and AWS_ENDPOINT_URL_S3, then run the"
        f" command again; its time is {waiting.VARIABLE}, now 0.2",
    )


def test_an_upload_that_is_taken_a_byte_now_and_then_is_given_up(
    credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more bytes than the kernels keep between two processes."""
    (tmp_path / "large").write_bytes(bytes(16 << 20))
    with dripping(b"", reads=False) as server, (tmp_path / "large").open("rb") as body:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        with pytest.raises(Refused, match=r"s3://bucket/key: no end after 0\.2 s of waiting; "):
            Store("bucket").add("key", body, "0" * 64)


@pytest.mark.parametrize("answer", ["the status line", "the body"])
def test_tls_changes_nothing(answer: str, credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with dripping(ANSWERS[answer]) as server:
        server.tls = context
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url.replace("http:", "https:"))
        with pytest.raises(Refused, match=r"s3://bucket/key: no end after 0\.2 s of waiting; "):
            Store("bucket").read("key", 100)
        wait_until(lambda: server.open == 0, "its connections are closed")


def test_a_handshake_without_end_is_given_up(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The start of a record of 16 KiB.
    with dripping(b"\x16\x03\x03\x40\x00") as server, pytest.raises(Refused, match=r"s3://bucket/key: no end after"):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url.replace("http:", "https:"))
        Store("bucket").read("key", 100)


def test_who_gives_credentials_and_drips_is_given_up(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod gets them, whose agent hangs."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with dripping(ANSWERS["the body"]) as server, pytest.raises(Refused, match="s3://bucket/: no end after"):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", server.url)
        Store("bucket").keys("key")


# GitHub


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_forge_that_drips_is_given_up(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.1")
    with dripping(ANSWERS[answer]) as server, pytest.raises(Refused) as refused:
        GitHub("owner/name", server.url, "token").get("/rules")

    assert refused.value.lines == (
        f"{server.url}/repos/owner/name/rules: no end after 0.1 s of waiting; check the network, then run the command"
        f" again; its time is {waiting.VARIABLE}, now 0.1",
    )


# Sigstore


def test_who_gives_the_token_of_a_job_and_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.05")
    with dripping(ANSWERS["the body"]) as server:
        for name, value in {"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "token",
                            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.url}/?"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        with pytest.raises(Refused, match=r"--sign-keyless: the token of this job: no end after 0\.5 s of waiting; "):
            signing.sign_keyless(b"manifest")


# The API server

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: one
contexts: [{{name: one, context: {{cluster: one, user: one}}}}]
clusters: [{{name: one, cluster: {{server: "{url}"}}}}]
users: [{{name: one, user: {{token: none}}}}]
"""


@pytest.mark.parametrize("answer", ["the status line", "a header", "the body"])
def test_an_api_server_that_drips_is_given_up(answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.2")
    with dripping(ANSWERS[answer]) as server:
        (tmp_path / "config").write_text(KUBECONFIG.format(url=server.url))
        cluster = Cluster(tmp_path / "config")

        # It answers by its status.
        assert cluster.ready() == (answer == "the body")
        for call in (cluster.version, lambda: cluster.get("v1", "Pod", "one", "ml-dev")):
            with pytest.raises(Refused) as refused:
                call()
            [line] = refused.value.lines
            assert line.startswith(f"{server.url}: ")
            assert ": no end after 0.2 s of waiting; check the network and the server; its time is" in line


# Programs

STUCK = "#!/bin/sh\nsleep 1000 &\necho $! >$0.child\nexec sleep 1000\n"


def stuck(file: Path) -> Path:
    """A program that waits for ever, and has started another that does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(STUCK)
    file.chmod(0o755)
    return file


def ended(program: Path) -> bool:
    """Whether what it has started has ended; who is a zombie until it is reaped has."""
    child = int(program.with_name(f"{program.name}.child").read_text())
    try:
        return "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
    except FileNotFoundError:
        return True


def test_a_program_of_manifests_without_an_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.05")
    program = stuck(tmp_path / "manifests")
    process = manifests._Process(program, "manifests")

    with pytest.raises(Refused, match=r"tools/manifests: no end after 0\.5 s of waiting; "):
        process.ask({"kind": "render"})
    assert not process.alive


@pytest.mark.parametrize("program", [tools.MANIFESTS, tools.VALIDATION], ids=lambda program: program.name)
@pytest.mark.parametrize(("asked", "code", "words"), [("", 0, ""), ("{}\n{", 1, "unexpected EOF"), ("x\n", 1, "'x'")])
def test_a_program_of_manifests_ends_with_its_questions(program: Program, asked: str, code: int, words: str) -> None:
    done = subprocess.run([manifests.built(program)], input=asked, capture_output=True, text=True)

    assert (done.returncode, done.stdout.count("\n")) == (code, asked.count("{}"))
    assert words in done.stderr


def test_a_step_of_a_build_without_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.01")
    program = stuck(tmp_path / "go")

    with pytest.raises(Refused, match=r"go mod download`: no end after 0\.6 s of waiting; check the network and the"):
        building.Go(program, tmp_path)("mod", "download", cwd=tmp_path)
    wait_until(lambda: ended(program), "what it has started ends")


def test_a_build_that_stands_still_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.02")
    program = tmp_path / "go"
    # It lists packages, and says what it compiles until it does not.
    program.write_text(f'#!/bin/sh\n[ "$1" = list ] && exit\necho a >&2\n{STUCK.partition(chr(10))[2]}')
    program.chmod(0o755)

    with pytest.raises(Refused, match=r"building kustomize: no end after 1\.2 s of waiting; "):
        building._build_program(building.Go(program, tmp_path), tools.KUSTOMIZE, tmp_path)
    wait_until(lambda: ended(program), "what it has started ends")


def test_python_of_the_models_without_an_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(waiting.VARIABLE, "0.01")
    program = stuck(tmp_path / "python")

    with (
        pytest.raises(Refused, match=r"`python -m lifecycle.registry` in \S+: no end after 0\.6 s of waiting"),
        ModelPython(tmp_path, program).running("lifecycle.registry") as process,
    ):
        assert process.stdout
        process.stdout.readline()
    wait_until(lambda: ended(program), "what it has started ends")


def test_a_lock_that_is_held_for_ever_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path))
    monkeypatch.setenv(waiting.VARIABLE, "0.002")
    with (tmp_path / "build.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Refused, match=r"/build\.lock: locked: no end after 0\.24 s of waiting; end"):
            building.build([tools.KUSTOMIZE])
