"""Where a model version is read from: S3, or a local folder for trying out."""

from __future__ import annotations

from dataclasses import dataclass

from contract.uri import REPLICA, VersionURI, local_path, parse_flavour
from storage import s3
from storage.places import Place, open_place

NAMED = "MODEL_URI"


@dataclass(frozen=True)
class Source:
    """A model version's folder."""

    place: Place
    flavour: str
    """The sub-folder that is served, e.g. `onnx`."""
    uri: VersionURI | None = None
    """The version that the place itself names, if it does."""

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` + 1 bytes of the file `path`, relative to the version's folder.

        Raises Unavailable when it is worth asking again, and Refused when it is not.
        """
        return self.place.read(path, limit)


def open_source(uri: str, replica: str | None = None) -> Source:
    """The source that the URI of a version's flavour, or a local folder, names; with a replica, the same place in that
    bucket and no other. Raises Refused for others in S3."""
    if uri.startswith("s3://"):
        version, flavour = parse_flavour(uri)
        place, named = (version.at(replica), REPLICA) if replica else (version, NAMED)
        return Source(open_place(str(place), named, s3.ONE_TRY), flavour, version)
    path = local_path(uri).absolute()
    return Source(open_place(str(path.parent), NAMED, s3.ONE_TRY), path.name)
