"""What can go wrong with bits. Every message is one line that says what is wrong and what to do."""


class LinnetError(Exception):
    """Base of every error that Linnet raises on purpose: a command prints its message and exits with status 2."""


class LayoutError(LinnetError):
    """A layout contradicts itself, or a number of layers or a rate does not exist in it."""


class CodesError(LinnetError):
    """Codes that do not fit their layout: wrong shape, wrong type, or out of a column's range."""


class PacketError(LinnetError):
    """Packed bytes whose length fits no number of frames or layers of the layout."""


class RtpError(LinnetError):
    """Bytes from a network that are no RTP packet with Linnet frames, or a session that describes none."""


class StateError(LinnetError):
    """A saved state that does not belong to this model or stream, or a stream whose state cannot be saved."""


class CorruptFileError(LinnetError):
    """Bytes that are no `.lnt` file, or one that was damaged."""


class VersionError(LinnetError):
    """A `.lnt` file of a version that this reader does not know."""


class WrongModelError(LinnetError):
    """A `.lnt` file written by a model that is not at hand."""


class WriteError(LinnetError):
    """A writer used in a way that would leave a wrong file."""


class SeekError(LinnetError):
    """A seek in a stream that cannot be seeked, or to a frame before the first."""


class TablesError(LinnetError):
    """Tables for entropy coding that contradict themselves or their model."""
