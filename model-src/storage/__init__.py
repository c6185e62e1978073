"""Where bytes lie: in S3 and in local folders, read and written alike. No other room talks to S3.

`s3` has the client, its policies and what its faults mean, `places` folders of files that fit into memory, `streams`
single files of any size, and `files` what appears in a local folder whole or not at all.
"""

from __future__ import annotations


class Unavailable(Exception):
    """The place does not answer at the moment; the same question may be answered later."""
