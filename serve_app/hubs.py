"""The two places that CosyVoice2 is published at, by their public HTTP interfaces.

Not `huggingface_hub`: as of 2.4 it compares sizes only, so a damaged file would get its final name; and it knows one
hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx

OFFICIAL = "https://huggingface.co"
HashKind = Literal["sha256", "git"]
"""git: SHA-1 of the content behind git's own header, which is what Hugging Face states of small files."""


class DownloadFault(Exception):
    """Why a download cannot go on, in one line for the user."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file as a hub lists it. path: relative, with `/`. digest: lower-case hex."""

    path: str
    num_bytes: int
    hash_kind: HashKind
    digest: str
    url: str


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """huggingface.co, or a mirror with its interface."""

    endpoint: str = OFFICIAL
    repository: str = "FunAudioLLM/CosyVoice2-0.5B"
    revision: str = "main"
    name: str = "huggingface"

    def list_files(self, http: httpx.Client) -> list[HubFile]:
        """Pinned to the commit that the revision names now. Raises DownloadFault, httpx.HTTPError."""
        where = f"{self.endpoint}/api/models/{self.repository}/revision/{quote(self.revision, safe='')}?blobs=true"
        answer = ask(http, where, self)
        try:
            root = f"{self.endpoint}/{self.repository}/resolve/{quote(answer['sha'], safe='')}"
            return [self._file(entry, root) for entry in answer["siblings"]]
        except (KeyError, TypeError, ValueError):
            raise not_a_hub(self) from None

    @staticmethod
    def _file(entry: Mapping[str, Any], root: str) -> HubFile:
        path, lfs = safe_path(entry["rfilename"]), entry.get("lfs")
        hash_kind: HashKind = "sha256" if lfs else "git"
        digest = str(lfs["sha256"] if lfs else entry["blobId"])
        return HubFile(path, int(entry["size"]), hash_kind, digest.lower(), f"{root}/{quote(path)}")


@dataclass(frozen=True, slots=True)
class ModelScope:
    """modelscope.cn."""

    endpoint: str = "https://www.modelscope.cn"
    repository: str = "iic/CosyVoice2-0.5B"
    revision: str = "master"
    name: str = "modelscope"

    def list_files(self, http: httpx.Client) -> list[HubFile]:
        """Raises DownloadFault, httpx.HTTPError."""
        root = f"{self.endpoint}/api/v1/models/{self.repository}/repo"
        answer = ask(http, f"{root}/files?{urlencode({'Revision': self.revision, 'Recursive': 'true'})}", self)
        if answer.get("Code") != 200:
            raise DownloadFault(f"{self.endpoint} says of {self.repository}: {answer.get('Message')}")
        try:
            return [self._file(entry, root) for entry in answer["Data"]["Files"] if entry["Type"] != "tree"]
        except (KeyError, TypeError, ValueError):
            raise not_a_hub(self) from None

    def _file(self, entry: Mapping[str, Any], root: str) -> HubFile:
        path = safe_path(entry["Path"])
        url = f"{root}?{urlencode({'Revision': self.revision, 'FilePath': path})}"
        return HubFile(path, int(entry["Size"]), "sha256", str(entry["Sha256"]).lower(), url)


Hub = HuggingFace | ModelScope


def ask(http: httpx.Client, url: str, hub: Hub) -> dict[str, Any]:
    """A JSON object. Raises DownloadFault for any other answer, httpx.HTTPError for none."""
    response = http.get(url)
    if response.status_code in (401, 403, 404):
        raise DownloadFault(f"{hub.endpoint} has no public {hub.repository} with a revision {hub.revision}")
    if not response.is_success:
        raise DownloadFault(f"{hub.endpoint} answers with HTTP {response.status_code}; try again later")
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise not_a_hub(hub)
    return answer


def not_a_hub(hub: Hub) -> DownloadFault:
    return DownloadFault(f"{hub.endpoint} does not answer as {hub.name} does")


def safe_path(path: str) -> str:
    """The path, if it stays within the folder it is written to. Raises DownloadFault."""
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or ":" in path or any(part in ("", ".", "..") for part in parts):
        raise DownloadFault(f"the hub lists a file with an unsafe name, {path!r}: nothing was downloaded")
    return path
