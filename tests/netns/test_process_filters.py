"""--pid, --comm, --cgroup, --container and --netns: only what was asked for costs a record; tcpdump is the judge."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from netns_tools import Namespace, veth
from observer import Observer, Segment
from owner_tools import Conductor, cgroup2_folder
from tracer import COMMAND, Tracer

PORT, LATE_PORT, CLOSED_PORT = 8001, 8002, 8003
CONTAINER = "fe12" * 16
# Of every actor that has one, below the test's own cgroup.
CGROUPS = {"beta": "deep/deeper", "gamma": f"docker-{CONTAINER}.scope"}
# Connections that only their opening is seen of: SYN, SYN-ACK, ACK.
HANDSHAKE_PACKETS = 3
ACTORS = ("server", "worker-1", "worker-2", "alpha", "beta", "gamma", "delta")


@dataclass(frozen=True)
class Talk:
    """A connection between two actors: so many requests, each with its response."""

    client: str
    server: str
    exchanges: int
    address: str = "127.0.0.1"
    port: int = PORT


OLD = {"old alpha": Talk("alpha", "worker-1", 3), "old delta": Talk("delta", "worker-2", 5, "::1")}
NEW = {
    "alpha": Talk("alpha", "worker-2", 7),
    "beta": Talk("beta", "worker-1", 11),
    "gamma": Talk("gamma", "worker-1", 13, "::1"),
    "delta": Talk("delta", "worker-2", 17),
    "late": Talk("gamma", "delta", 19, "127.0.0.1", LATE_PORT),
}
REFUSED = "refused"  # alpha's


@dataclass
class Stage:
    """The actors, before the tracer comes."""

    clients: Conductor
    servers: Conductor
    """Inside the same namespace, or another."""
    cgroup: Path
    address: str | None = None
    """Of the servers, if not as the talks say."""
    pids: dict[str, int] = field(default_factory=dict)
    ports: dict[str, frozenset[int]] = field(default_factory=dict)
    """Of each talk."""

    def prepare(self) -> None:
        self.servers.call("bind", "::", PORT)
        for name in ACTORS:
            folder = str(self.cgroup / CGROUPS[name]) if name in CGROUPS else None
            self.pids[name] = self._of(name).call("start", name, folder)
        self._do("server", "listen", PORT)
        for name, talk in OLD.items():
            self._open(name, talk)

    def play(self) -> None:
        self._do("delta", "listen", LATE_PORT)
        for name, talk in NEW.items():
            if not self._is_late_far_away(talk):
                self._open(name, talk)
        for name, talk in (OLD | NEW).items():
            if not self._is_late_far_away(talk):
                self._talk(name, talk)
        local = self._do("alpha", "refused", self.address or "127.0.0.1", CLOSED_PORT)
        self.ports[REFUSED] = frozenset((local, CLOSED_PORT))

    def _is_late_far_away(self, talk: Talk) -> bool:
        return talk.port == LATE_PORT and self.address is not None

    def _of(self, name: str) -> Conductor:
        return self.servers if name.startswith(("server", "worker")) else self.clients

    def _do(self, name: str, *command: Any) -> Any:
        return self._of(name).call("do", name, *command)

    def _open(self, name: str, talk: Talk) -> None:
        port = self._do(talk.client, "connect", name, self.address or talk.address, talk.port)
        self._do(talk.server, "accept", name, talk.port)
        self.ports[name] = frozenset((port, talk.port))

    def _talk(self, name: str, talk: Talk) -> None:
        for _ in range(talk.exchanges):
            self._do(talk.client, "request", name)
            self._do(talk.server, "respond", name)
            self._do(talk.client, "receive", name)
        self._do(talk.client, "begin_to_close", name)
        self._do(talk.server, "close", name)
        self._do(talk.client, "close", name)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with cgroup2_folder() as folder:
        for name in CGROUPS.values():
            (folder / name).mkdir(parents=True)
        yield folder


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def stage(namespace: Namespace, cgroup: Path) -> Iterator[Stage]:
    """All on lo."""
    with Conductor(namespace, "actors.py") as conductor:
        stage = Stage(conductor, conductor, cgroup)
        stage.prepare()
        yield stage


def counts(segments: list[Segment], stage: Stage) -> dict[str, int]:
    """Packets of each talk, as tcpdump saw them."""
    names = {pair: name for name, pair in stage.ports.items()}
    found = [names[frozenset(segment.ports)] for segment in segments]
    return {name: found.count(name) for name in stage.ports}


def judge(tracer: Tracer, segments: list[Segment], stage: Stage, shown: Mapping[str, int | None]) -> None:
    """Assert that these talks are shown and nothing else; of some only so many packets."""
    seen = counts(segments, stage)
    expected = {name: seen[name] if packets is None else packets for name, packets in shown.items()}
    lines = {frozenset((one["src_port"], one["dst_port"])): one for one in tracer.finals}
    names = {pair: name for name, pair in stage.ports.items()}
    told = {names[pair]: one["sent_packets"] + one["received_packets"] for pair, one in lines.items()}
    assert told == expected
    summary = tracer.summary
    assert summary["records"] == summary["tcp"] == sum(expected.values())
    # A filter for packets has refused also what is not TCP.
    frames = len(segments) if tracer.start["filter"] is None else summary["frames"]
    assert summary["filtered"] == frames - sum(expected.values())
    assert summary["socket_records_lost"] == 0


def every(*names: str) -> dict[str, int | None]:
    return dict.fromkeys(names)


def handshakes(*names: str) -> dict[str, int | None]:
    return dict.fromkeys(names, HANDSHAKE_PACKETS)


ALPHA, DELTA, GAMMA = every("old alpha", "alpha", REFUSED), every("old delta", "delta", "late"), every("gamma", "late")
CASES: dict[str, tuple[str, dict[str, int | None]]] = {
    "a process": ("--pid @alpha", ALPHA),
    "a name": ("--comm delta", DELTA),
    "several of a kind": ("--pid @alpha --pid @delta", ALPHA | DELTA),
    "several names": ("--comm alpha --comm gamma", ALPHA | GAMMA),
    "a cgroup with what is below": ("--cgroup %", every("beta") | GAMMA),
    "a cgroup's cgroup": ("--cgroup %/deep", every("beta")),
    "a container": (f"--container {CONTAINER[:12]}", GAMMA),
    "several kinds": ("--cgroup % --comm gamma --comm delta", GAMMA),
    "kinds that exclude each other": ("--pid @beta --comm gamma", {}),
    "with a filter": ("--pid @alpha --port 8001", every("old alpha", "alpha")),
    "xdp": ("--pid @alpha --hook xdp", ALPHA),
    "who listens": ("--pid @server", handshakes("alpha", "beta", "gamma", "delta")),
    "a worker": ("--pid @worker-1", every("old alpha", "beta", "gamma") | handshakes("alpha", "delta")),
    "workers": ("--comm worker-1 --comm worker-2", every("old alpha", "old delta", "alpha", "beta", "gamma", "delta")),
    "nobody": ("--comm nobody", {}),
}


def arguments(text: str, stage: Stage) -> list[str]:
    words = re.sub(r"@([\w-]+)", lambda match: str(stage.pids[match[1]]), text)
    return words.replace("%", str(stage.cgroup)).split()


@pytest.mark.parametrize("case", CASES)
def test_over_lo(stage: Stage, namespace: Namespace, case: str) -> None:
    text, shown = CASES[case]
    with Observer(namespace, "lo") as observer, Tracer(namespace, "lo", *arguments(text, stage)) as tracer:
        stage.play()
        segments = observer.finish(namespace, "127.0.0.1")
        tracer.stop()
    judge(tracer, segments, stage, shown)
    if not shown:
        assert tracer.summary["socket_records"] == 0


@pytest.mark.parametrize(
    ("side", "text", "shown"),
    [
        ("clients", "--pid @alpha", ALPHA),
        ("clients", "--cgroup %", every("beta", "gamma")),
        ("servers", "--pid @worker-1", every("old alpha", "beta", "gamma") | handshakes("alpha", "delta")),
    ],
)
def test_over_a_link(cgroup: Path, side: str, text: str, shown: dict[str, int | None]) -> None:
    with ExitStack() as stack:
        near, far = (stack.enter_context(Namespace()) for _ in range(2))
        veth(near, far, "10.6.0.1/24", "10.6.0.2/24")
        clients, servers = (stack.enter_context(Conductor(one, "actors.py")) for one in (near, far))
        stage = Stage(clients, servers, cgroup, "10.6.0.2")
        stage.prepare()
        here = near if side == "clients" else far
        observer = stack.enter_context(Observer(here, "veth0"))
        tracer = stack.enter_context(Tracer(here, "veth0", *arguments(text, stage)))
        stage.play()
        segments = observer.finish(near, "10.6.0.2")
        tracer.stop()
        judge(tracer, segments, stage, shown)


def test_many_at_once(namespace: Namespace) -> None:
    """Chosen ones and others connect to the same port at the same time: each of the chosen from its SYN on."""
    with ExitStack() as stack:
        conductor = stack.enter_context(Conductor(namespace, "actors.py"))
        for name in ("listener", "chosen", "chosen too", "other"):
            conductor.call("start", name, None)
        conductor.call("do", "listener", "listen", PORT)
        observer = stack.enter_context(Observer(namespace, "lo"))
        tracer = stack.enter_context(Tracer(namespace, "lo", "--comm", "chosen", "--comm", "chosen too"))
        made = [
            conductor.call("all", ["chosen", "chosen too", "other"], "burst", "127.0.0.1", PORT, 7) for _ in range(9)
        ]
        segments = observer.finish(namespace, "127.0.0.1")
        tracer.stop()
    chosen = {port for one in made for name, ports in one.items() if name != "other" for port in ports}
    expected = Counter(port for segment in segments for port in segment.ports if port in chosen)
    assert len(chosen) == 2 * 9 * 7
    assert {one["src_port"]: one["sent_packets"] + one["received_packets"] for one in tracer.finals} == expected
    assert tracer.summary["records"] == expected.total()


def refusal(*words: str) -> tuple[int, str]:
    """Exit code and the one line on stderr of a trace that never began."""
    with Namespace() as namespace:
        result = namespace.run([str(COMMAND), *words], check=False)
        assert result.stdout == ""
        assert namespace.traffic_control("lo").strip() == "qdisc noqueue 0: root refcnt 2"
    match = re.fullmatch(r"tcptrace: (.+)\n", result.stderr)
    assert match, result.stderr
    return result.returncode, match[1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--cgroup", "nowhere.slice", "lo"], 1, "no such cgroup: nowhere.slice"),
        (["--cgroup", "/etc", "lo"], 1, "no such cgroup: /etc"),
        (["--container", "beef" * 16, "lo"], 1, "no running container has an id that begins with beef"),
        (["--container", "my-web", "lo"], 1, "its id is needed, at least 4 hex digits of it"),
        (["--netns", "nowhere", "lo"], 1, "no such network namespace: nowhere"),
        (["--netns", "/proc/self/ns/uts", "lo"], 1, "not a network namespace: /proc/self/ns/uts"),
        (["--netns", "4194305", "lo"], 1, "there is no process 4194305"),
        (["--pid", "4194305", "lo"], 1, "no such process: 4194305"),
        (["--pid", "0", "lo"], 2, "0 is not in the range"),
        (["--pid", "me", "lo"], 2, "'me' is not a valid integer"),
        (["--pid", "1", "--probes", "off", "lo"], 2, "--pid needs the probes"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there(words: list[str], code: int, said: str) -> None:
    exit_code, message = refusal(*words)
    assert exit_code == code
    assert said in message


@pytest.mark.parametrize("way", ["name", "path", "pid"])
def test_another_namespace(way: str) -> None:
    """Traced from outside: the same counts as tcpdump's inside, and no process of any other namespace."""
    with ExitStack() as stack:
        inside, outside = (stack.enter_context(Namespace()) for _ in range(2))
        conductors = [stack.enter_context(Conductor(one)) for one in (inside, outside)]
        which = {"name": inside.name, "path": f"/run/netns/{inside.name}", "pid": str(conductors[0].process.pid)}[way]
        observer = stack.enter_context(Observer(inside, "lo"))
        tracer = stack.enter_context(Tracer(outside, "lo", "--netns", which))
        told = [conductor.call("plain", "127.0.0.1", 7001) for conductor in conductors]
        segments = observer.finish(inside, "127.0.0.1")
        tracer.stop()
    (line,) = tracer.finals
    assert line["src_port"] == told[0][0]["src"]["port"]
    assert tracer.summary["packets"] == tracer.summary["records"] == len(segments)
    assert line["pid"] == told[0][0]["src"]["process"]["pid"]
    assert tracer.start["netns"] == line["netns"]
