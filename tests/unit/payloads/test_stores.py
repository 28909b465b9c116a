"""Large values in a payload store: written before they are referred to, and read again or missed by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from fsspec.implementations.memory import MemoryFileSystem

import agentexec as ax
from agentexec.payloads.deployment import Deployment
from agentexec.payloads.offloading import is_large, offload, remove_payloads, remove_values
from agentexec.payloads.references import Reference, find_place
from agentexec.payloads.sealing import seal, unseal
from agentexec.payloads.stores import check_store, payload_store
from tests.stores import encryption

TASK = UUID(int=7)
LARGE = '"' + "ä" * 200 + '"'


@pytest.fixture(autouse=True, params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the store; the memory of fsspec has none."""
    folder = tmp_path / "large values"
    folder.mkdir()
    url = folder.as_uri() if request.param == "file" else f"memory://{uuid4().hex}"
    monkeypatch.setattr(ax.CONF, "payload_store", url)
    monkeypatch.setattr(ax.CONF, "payload_threshold", 256)
    yield folder
    MemoryFileSystem.store.clear()


class Named(Deployment):
    """A deployment with an id that needs no database."""

    def __init__(self, name: str) -> None:
        self._id = name


HERE, ELSEWHERE = Named("0" * 16), Named("f" * 16)


def put(owner: UUID | str, what: str, value: str, deployment: Deployment = HERE) -> str:
    return offload(deployment, owner, what, value)


def stored_bytes(reference: str) -> bytes:
    place, store = find_place(reference), payload_store()
    assert place is not None and store is not None
    return store.get(place.path)


@pytest.mark.parametrize("owner", [TASK, "user:1/../ü"])
@pytest.mark.parametrize("text", [LARGE, f"payload:{LARGE}", f"encrypted:{LARGE}"])
def test_a_large_value_comes_back_as_it_was(text: str, owner: UUID | str) -> None:
    reference = put(owner, "journal", text)
    assert isinstance(reference, Reference) and len(reference) < 256
    assert not is_large(reference)
    assert seal(reference) == reference
    assert unseal(seal(reference)) == text


def test_a_small_value_stays_where_it_is() -> None:
    assert put(TASK, "journal", '"' + "ä" * 127 + '"') == '"' + "ä" * 127 + '"'


def test_a_text_that_looks_like_a_reference_is_a_text() -> None:
    forged = str(put(TASK, "journal", LARGE))
    stored = seal(forged)
    assert stored != forged
    assert unseal(stored) == forged


@pytest.mark.parametrize("part", ["/..", "../x", "A" * 32, "0" * 31])
def test_a_path_comes_only_from_hexadecimal_ids(part: str) -> None:
    reference = put(TASK, "journal", LARGE)
    assert find_place(reference.replace(TASK.hex, part)) is None


def test_values_are_encrypted_in_the_store_and_must_stay_so() -> None:
    with encryption():
        reference = put(TASK, "result", LARGE)
        assert stored_bytes(reference).startswith(b"encrypted:1:")
        assert unseal(reference) == LARGE
        place, store = find_place(reference), payload_store()
        assert place is not None and store is not None
        store.put(place.path, LARGE.encode())
        with pytest.raises(ax.PayloadLostError, match="damaged"):
            unseal(reference)


def test_a_missing_or_damaged_value_is_named() -> None:
    reference = put(TASK, "context", LARGE)
    place, store = find_place(reference), payload_store()
    assert place is not None and store is not None
    store.put(place.path, b'"other"')
    with pytest.raises(ax.PayloadLostError, match=f"damaged: context value of task {TASK}"):
        unseal(reference)
    store.remove(place.path)
    with pytest.raises(ax.PayloadLostError, match=f"not in the payload store.*context value of task {TASK}"):
        unseal(reference)
    ax.CONF.payload_store = None
    with pytest.raises(ax.PayloadLostError, match="no AGENTEXEC_PAYLOAD_STORE"):
        unseal(reference)


def test_values_are_removed_alone_or_with_their_task() -> None:
    first, second, third = (put(TASK, "journal", LARGE) for _ in range(3))
    other = put(UUID(int=8), "journal", LARGE)
    foreign = put(TASK, "journal", LARGE, ELSEWHERE)
    remove_values([first, "null"])
    assert unseal(second) == LARGE
    remove_payloads(HERE, [TASK, UUID(int=9)])
    for reference in (first, second, third):
        with pytest.raises(ax.PayloadLostError):
            unseal(reference)
    assert unseal(other) == unseal(foreign) == LARGE


def test_the_check_leaves_nothing() -> None:
    check_store()
    store = payload_store()
    assert store is not None
    assert store.names("") == []


@pytest.mark.parametrize("store", ["file"], indirect=True)
def test_a_root_that_is_away_is_an_outage_and_not_a_lost_value(store: Path) -> None:
    reference = put(TASK, "journal", LARGE)
    moved = store.rename(store.with_name("elsewhere"))
    for call in (lambda: unseal(reference), lambda: put(TASK, "journal", LARGE), check_store):
        with pytest.raises(ax.UnavailableError, match="away"):
            call()
    moved.rename(store)
    assert unseal(reference) == LARGE
    assert not list(store.rglob(".*"))


@pytest.mark.parametrize(
    "url", ["/var/lib", "file://host/x", "file:x", "s3:bucket", "s3://", "simplecache::s3://b", "file:///"]
)
def test_a_setting_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ax.SettingsError, match=r"AGENTEXEC_PAYLOAD_STORE cannot be used: it must be a URL"):
        ax.CONF.payload_store = url


def test_a_protocol_that_fsspec_lacks_is_named_without_its_password() -> None:
    ax.CONF.payload_store = "nosuch://user:hush-7731@host/x"
    with pytest.raises(ax.SettingsError, match="AGENTEXEC_PAYLOAD_STORE cannot be used") as caught:
        check_store()
    assert "hush-7731" not in str(caught.value)
