"""Opens streams of logs on a Butler, Daybook's or LogDog's.

    import daybook_stream

    with daybook_stream.open_text("compile/log") as log:
        print("hello", file=log)

    with daybook_stream.open_datagram("events", tags={"host": "a1"}) as events:
        events.send(b"one record")

The Butler that started the program is found through the environment; Client takes an address instead. Nothing is buffered
here: what was written is with the operating system, and arrives also if the program then dies. A Butler that falls behind
makes writes wait. Streams may be used by several threads; each write and each datagram stays in one piece.

The module has no dependencies and may be copied into a program. The protocol is described in docs/formats/handshake.md.
"""

import datetime
import io
import json
import os
import re
import socket
import sys
import threading
import time

__all__ = [
    "BinaryStream",
    "Client",
    "DatagramStream",
    "Disconnected",
    "NoButler",
    "Refused",
    "TextStream",
    "add_redaction",
    "open_binary",
    "open_datagram",
    "open_text",
]

MAX_DATAGRAM = 10 << 20
MAX_HEADER = 1 << 20
MAX_NAME = 4096
MAX_TAG_KEY = 64
MAX_TAG_VALUE = 4096
MAX_REPLY = 16384
MAX_REDACTIONS = 1000
MIN_REDACTION = 4
MAX_REDACTION = 65536
MAX_REDACTION_REQUEST = 1 << 20

# How long to wait, in seconds, for a connection and its reply; and when closing, for the Butler to have read everything.
TIMEOUT = 30.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.-]*(?:/[A-Za-z0-9][A-Za-z0-9:_.-]*)*\Z")


class NoButler(RuntimeError):
    """No Butler started this program."""


class Refused(RuntimeError):
    """The Butler does not want a stream, or a redaction. The attribute code is a word of docs/formats/handshake.md."""

    def __init__(self, code, reason):
        super().__init__("the Butler refused it: {} ({})".format(reason, code))
        self.code = code
        self.reason = reason


class Disconnected(BrokenPipeError):
    """The Butler has hung up; the end of what was written may be lost."""


class Client:
    """Opens streams on the Butler with the given address: unix:/path, net.pipe:name, tcp4:host:port or tcp6:[host]:port.

    The namespace goes before the name of each stream. Nothing is connected yet.
    """

    def __init__(self, address, namespace=""):
        protocol, _, value = address.partition(":")
        self._remote = protocol in ("tcp4", "tcp6")
        if protocol == "unix" and hasattr(socket, "AF_UNIX"):
            self._connect = lambda deadline: _connect(socket.AF_UNIX, value, deadline)
        elif protocol == "net.pipe" and sys.platform == "win32":
            self._connect = lambda deadline: _open_pipe(value, deadline)
        elif self._remote:
            host, _, port = value.rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError("stream server {!r}: a TCP address is {}:host:port".format(address, protocol))
            family = socket.AF_INET if protocol == "tcp4" else socket.AF_INET6
            peer = (host.strip("[]"), int(port))
            self._connect = lambda deadline: _connect(family, peer, deadline)
        else:
            raise ValueError("stream server {!r}: the protocol is not known on this platform".format(address))
        if not value:
            raise ValueError("stream server {!r}: nothing is behind the colon".format(address))
        self.address = address
        self.namespace = namespace.strip("/")

    @classmethod
    def from_environment(cls):
        """Returns a client of the Butler that started this program. NoButler is raised if none did."""
        address = os.environ.get("LOGDOG_STREAM_SERVER_PATH")
        if not address:
            raise NoButler("LOGDOG_STREAM_SERVER_PATH is not set: start the program with 'daybook run'")
        return cls(address, os.environ.get("LOGDOG_NAMESPACE", ""))

    def open_text(self, name, **options):
        """Opens a stream of text. It is a file for print, logging.StreamHandler and subprocess.

        content_type  MIME type, in place of text/plain; charset=utf-8
        tags          dict of strings
        timestamp     datetime that the times of all lines are relative to, in place of now
        tee           another file, which gets what is written as well
        confirm       make the Butler answer: Refused is raised if it does not want the stream, the attribute url of the
                      stream is the page that shows it, and close returns when the Butler has read everything. Daybook's
                      Butlers can; others hang up, which raises Disconnected

        Without confirm, a Butler that does not want the stream hangs up, and later writes raise Disconnected.
        """
        tee = options.pop("tee", None)
        return TextStream(self._open(BinaryStream, "text", name, **options), tee)

    def open_binary(self, name, **options):
        """Opens a stream of bytes without lines; the options are those of open_text, the tee a binary file."""
        tee = options.pop("tee", None)
        stream = self._open(BinaryStream, "binary", name, **options)
        stream._tee = tee
        return stream

    def open_datagram(self, name, **options):
        """Opens a stream of datagrams; the options are those of open_text, but for tee."""
        return self._open(DatagramStream, "datagram", name, **options)

    def add_redaction(self, *values):
        """Makes the Butler replace the values, str or bytes, in all that it reads of any stream from now on.

        A value has at least 4 bytes, because shorter ones would be found everywhere. Refused is raised if the Butler does
        not redact, Disconnected if it is one that cannot.
        """
        if not values:
            return
        if len(values) > MAX_REDACTIONS:
            raise ValueError("{} values to redact; at most {} are allowed at once".format(len(values), MAX_REDACTIONS))
        body, size = bytearray(), 0
        for value in values:
            if isinstance(value, str):
                value = value.encode("utf-8", "surrogateescape")
            if not MIN_REDACTION <= len(value) <= MAX_REDACTION:
                raise ValueError(
                    "a value to redact has {} bytes; {} to {} are allowed".format(len(value), MIN_REDACTION, MAX_REDACTION)
                )
            body += _varint(len(value)) + value
            size += len(value)
        if size > MAX_REDACTION_REQUEST:
            raise ValueError("the values to redact have more than {} bytes".format(MAX_REDACTION_REQUEST))
        hello = _handshake(2, {"op": "redact", "count": len(values)})
        connection, _ = self._greet(hello + body, True)
        connection.close()

    def _open(self, kind, word, name, *, content_type=None, tags=None, timestamp=None, confirm=False):
        full = "/".join(part for part in (self.namespace, name.strip("/")) if part)
        _check_name(full, "stream", MAX_NAME)
        header = {"name": full, "type": word}
        if content_type:
            header["contentType"] = content_type
        if timestamp is not None:
            utc = timestamp.astimezone(datetime.timezone.utc).replace(tzinfo=None)
            header["timestamp"] = utc.isoformat() + "Z"
        if tags:
            for key, value in tags.items():
                _check_name(key, "tag", MAX_TAG_KEY)
                size = len(value.encode("utf-8", "surrogateescape"))
                if size > MAX_TAG_VALUE:
                    raise ValueError("tag {!r}: value has {} bytes; at most {} are allowed".format(key, size, MAX_TAG_VALUE))
            header["tags"] = tags
        connection, url = self._greet(_handshake(2 if confirm else 1, header), confirm)
        # Pipes of Windows cannot be closed by halves. What is in them stays there until it was read.
        wait = (self._remote or confirm) and isinstance(connection, socket.socket)
        return kind(full, connection, url, wait)

    def _greet(self, hello, confirm):
        deadline = time.monotonic() + TIMEOUT
        connection = self._connect(deadline)
        try:
            try:
                connection.sendall(hello)
            except OSError as e:
                # A Butler that refuses need not have read everything; its reply says more than this.
                if not confirm:
                    raise _disconnected("stream server " + self.address) from e
            url = _read_reply(connection, self.address) if confirm else None
            connection.settimeout(None)
            return connection, url
        except BaseException:
            connection.close()
            raise


class BinaryStream(io.RawIOBase):
    """An open stream of bytes; a file to write to. Each write takes all of the bytes."""

    def __init__(self, name, connection, url, wait):
        self.name = name
        self.url = url  # page that shows the stream; None if it is not known
        self._connection = connection
        self._wait = wait
        self._shared = False
        self._tee = None
        self._lock = threading.Lock()

    def writable(self):
        return True

    def fileno(self):
        """Returns the descriptor, for a process to write to. The stream then ends when all who have it have closed it."""
        self._check_open()
        self._shared = True
        return self._connection.fileno()

    def write(self, data):
        with memoryview(data) as view, view.cast("B") as bytes_, self._lock:
            self._check_open()
            try:
                if self._tee is not None:
                    self._tee.write(bytes(bytes_))
            finally:  # what the tee fails at does not keep it from the Butler
                self._send(bytes_)
            return len(bytes_)

    def close(self):
        """Ends the stream, and writes that wait. With confirm, and over TCP, it returns when the Butler has read everything,
        unless a process has the descriptor, too."""
        if self.closed:
            return
        super().close()
        try:
            if not self._shared:
                _finish(self._connection, self.name, self._wait)
        finally:
            self._connection.close()

    def _abandon(self):
        self._wait = False
        self.close()

    def _check_open(self):
        if self.closed:
            raise ValueError("stream {!r} is closed".format(self.name))

    def _send(self, data):
        try:
            self._connection.sendall(data)
        except OSError as e:
            raise _disconnected("stream {!r}".format(self.name)) from e


class TextStream(io.TextIOBase):
    """An open stream of text; a file to write to. Nothing is translated: line ends stay as they are, bytes that were
    decoded with surrogateescape are written as they were. The attribute buffer takes bytes.
    """

    encoding = "utf-8"
    errors = "surrogateescape"

    def __init__(self, buffer, tee=None):
        self.buffer = buffer
        self._tee = tee
        self._lock = threading.Lock()

    @property
    def name(self):
        return self.buffer.name

    @property
    def url(self):
        """The page that shows the stream; None if it is not known."""
        return self.buffer.url

    def writable(self):
        return True

    def fileno(self):
        return self.buffer.fileno()

    def write(self, text):
        data = text.encode(self.encoding, self.errors)
        with self._lock:
            try:
                if self._tee is not None and not self.closed:
                    self._tee.write(text)
            finally:  # what the tee fails at does not keep it from the Butler
                self.buffer.write(data)
        return len(text)

    def close(self):
        if not self.closed:
            super().close()
            self.buffer.close()


class DatagramStream:
    """An open stream of datagrams."""

    def __init__(self, name, connection, url, wait):
        self.name = name
        self.url = url
        self._stream = BinaryStream(name, connection, url, wait)

    def send(self, data):
        """Writes one datagram: bytes, which may be empty and are at most 10 MiB."""
        with memoryview(data) as view:
            size = view.nbytes
        if size > MAX_DATAGRAM:
            raise ValueError("datagram has {} bytes; at most {} are allowed".format(size, MAX_DATAGRAM))
        try:
            self._stream.write(b"".join((_varint(size), data)))
        except (Disconnected, ValueError):
            raise
        except BaseException:
            # A signal, maybe in the middle of it. What came behind would be taken for the rest.
            self._stream._abandon()
            raise

    @property
    def closed(self):
        return self._stream.closed

    def close(self):
        """Ends the stream; see BinaryStream."""
        self._stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def open_text(name, **options):
    """Is Client.from_environment().open_text."""
    return Client.from_environment().open_text(name, **options)


def open_binary(name, **options):
    """Is Client.from_environment().open_binary."""
    return Client.from_environment().open_binary(name, **options)


def open_datagram(name, **options):
    """Is Client.from_environment().open_datagram."""
    return Client.from_environment().open_datagram(name, **options)


def add_redaction(*values):
    """Is Client.from_environment().add_redaction."""
    Client.from_environment().add_redaction(*values)


def _check_name(name, what, limit):
    if len(name) > limit or not _NAME.match(name):
        raise ValueError(
            "{} name {!r:.100}: 1 to {} ASCII letters, digits and :_-. are allowed, in segments that begin with a letter or "
            "digit and are separated by slashes".format(what, name, limit)
        )


def _varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _handshake(version, header):
    data = json.dumps(header, sort_keys=True).encode("ascii")
    if len(data) > MAX_HEADER:
        raise ValueError("the header of the stream has {} bytes; at most {} are allowed".format(len(data), MAX_HEADER))
    return b"BTLR%d\x1e" % version + _varint(len(data)) + data


def _read_reply(connection, address):
    reply = b""
    try:
        while not reply.endswith(b"\n") and len(reply) <= MAX_REPLY:
            data = connection.recv(4096)
            if not data:
                break
            reply += data
    except socket.timeout:
        raise TimeoutError("stream server {}: no reply within {} s".format(address, TIMEOUT)) from None
    except OSError:
        pass  # it hung up, maybe behind its reply
    if not reply.endswith(b"\n"):
        raise Disconnected(
            "stream server {}: the Butler hung up without a reply; if it is not Daybook's, it gives none".format(address)
        )
    try:
        answer = json.loads(reply.decode("utf-8"))
    except ValueError as e:
        raise Disconnected("stream server {}: {!r:.100} is no reply of a Butler".format(address, reply)) from e
    if not answer.get("accepted"):
        raise Refused(answer.get("code", "internal"), answer.get("reason", "no reason given"))
    return answer.get("url")


def _disconnected(what):
    return Disconnected(
        "{}: the Butler has hung up: it refused the stream (is the name taken?) or was stopped; "
        "open with confirm=True to be told why".format(what)
    )


def _finish(connection, name, wait):
    """Says that nothing more will come. With wait, returns when the Butler has read everything and says so, too."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(TIMEOUT)
        while wait and connection.recv(4096):
            pass
    except socket.timeout:
        raise TimeoutError(
            "stream {!r}: the Butler has not read everything within {} s; the rest may still arrive".format(name, TIMEOUT)
        ) from None
    except OSError as e:
        if wait:
            raise _disconnected("stream {!r}".format(name)) from e


def _connect(family, peer, deadline):
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        while True:
            left = deadline - time.monotonic()
            connection.settimeout(max(left, 0.001))
            try:
                connection.connect(peer)
                return connection
            except BlockingIOError:
                # The Butler has not accepted the connections before this one yet; a UNIX socket does not wait for that.
                if left <= 0:
                    raise
            time.sleep(0.01)
    except OSError as e:
        connection.close()
        message = "{}; is the Butler still running?".format(e.strerror or e)
        raise type(e)(e.errno, message, str(peer)) from e
    except BaseException:
        connection.close()
        raise


class _Pipe:
    """A named pipe of Windows, with the methods of a socket that are needed."""

    def __init__(self, file):
        self._file = file
        self.fileno = file.fileno
        self.close = file.close

    def sendall(self, data):
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def recv(self, size):
        return self._file.read(size)

    def settimeout(self, _):
        pass  # pipes of Windows know none

    def shutdown(self, _):
        pass  # nor this; what is in a pipe stays there until it was read


def _open_pipe(name, deadline):
    while True:
        try:
            return _Pipe(open("\\\\.\\pipe\\" + name, "r+b", buffering=0))
        except OSError as e:
            busy = getattr(e, "winerror", None) == 231 or e.errno == 22
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
