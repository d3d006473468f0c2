"""Tests of daybook_stream against a server that takes nothing but what docs/formats/handshake.md says."""

import datetime
import io
import json
import logging
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import daybook_stream

VECTORS = pathlib.Path(__file__).parents[2] / "streamproto" / "testdata" / "streamproto.json"


class Server:
    """A strict Butler. It handles connections one after another; streams has (version, header, data) of each."""

    def __init__(self, family=socket.AF_UNIX, reply=b'{"accepted":true}\n', linger=None):
        self.dir = tempfile.TemporaryDirectory()
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_UNIX:
            path = os.path.join(self.dir.name, "s")
            self.listener.bind(path)
            self.address = "unix:" + path
        else:
            self.listener.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            host, port = self.listener.getsockname()[:2]
            self.address = "tcp4:{}:{}".format(host, port) if family == socket.AF_INET else "tcp6:[{}]:{}".format(host, port)
        self.listener.listen(16)
        self.reply = reply
        self.linger = linger  # an Event to wait for before reading the data
        self.streams = []
        self.errors = []
        self.arrived = threading.Semaphore(0)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        self.dir.cleanup()
        if self.errors:
            raise self.errors[0]

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            try:
                with connection:
                    self.handle(connection)
            except BaseException as e:
                self.errors.append(e)
            self.arrived.release()

    def handle(self, connection):
        file = connection.makefile("rb")
        magic = file.read(6)
        assert magic in (b"BTLR1\x1e", b"BTLR2\x1e"), magic
        version = int(magic[4:5])
        header = json.loads(file.read(read_varint(file)).decode("utf-8"))
        if header.get("op") == "redact":
            assert version == 2 and set(header) == {"op", "count"}, header
            data = [file.read(read_varint(file)) for _ in range(header["count"])]
        else:
            assert set(header) <= {"name", "type", "contentType", "timestamp", "tags"}, header
            assert header["type"] in ("text", "binary", "datagram"), header
        if version == 2:
            connection.sendall(self.reply)
            if b"true" not in self.reply:
                return
        if self.linger:
            self.linger.wait()
        if "op" not in header:
            data = file.read()
        if header.get("type") == "datagram":
            data = datagrams(data)
        self.streams.append((version, header, data))

    def take(self, count=1):
        for _ in range(count):
            assert self.arrived.acquire(timeout=60)
        if self.errors:
            raise self.errors.pop()
        return self.streams[-1] if self.streams else None


def read_varint(file):
    n = shift = 0
    while True:
        c = file.read(1)[0]
        assert c or not shift, "longer than necessary"
        n |= (c & 0x7F) << shift
        if c < 0x80:
            return n
        shift += 7


def datagrams(data):
    file, out = io.BytesIO(data), []
    while file.tell() < len(data):
        size = read_varint(file)
        out.append(file.read(size))
        assert len(out[-1]) == size, "cut datagram"
    return out


class StreamTest(unittest.TestCase):
    def test_text(self):
        with Server() as server:
            with daybook_stream.Client(server.address, "ns/").open_text("a/b") as s:
                self.assertEqual(s.name, "ns/a/b")
                self.assertIsNone(s.url)
                print("hello", "wörld", file=s)
                s.write("cr\r\nraw \udcff\n")
                s.buffer.write(b"\x00end")
            want = "hello wörld\ncr\r\nraw ".encode() + b"\xff\n\x00end"
            self.assertEqual(server.take(), (1, {"name": "ns/a/b", "type": "text"}, want))

    def test_binary_and_options(self):
        with Server() as server:
            zone = datetime.timezone(datetime.timedelta(hours=2))
            copy = io.BytesIO()
            tags = {"key": 'any "value"\n<é>', "empty": ""}
            with daybook_stream.Client(server.address).open_binary(
                "b", content_type="x/y", tags=tags, timestamp=datetime.datetime(2024, 1, 2, 5, 4, 5, 678901, zone), tee=copy
            ) as s:
                self.assertEqual(s.write(memoryview(b"\x00\xff\r\n")), 4)
                s.write(bytearray(b""))
            header = {
                "name": "b", "type": "binary", "contentType": "x/y", "timestamp": "2024-01-02T03:04:05.678901Z", "tags": tags,
            }
            self.assertEqual(server.take(), (1, header, b"\x00\xff\r\n"))
            self.assertEqual(copy.getvalue(), b"\x00\xff\r\n")

    def test_tee_of_text(self):
        copy = io.StringIO()
        with Server() as server, daybook_stream.Client(server.address).open_text("t", tee=copy) as s:
            s.write("both\n")
            s.close()
            self.assertEqual(server.take()[2], b"both\n")
        self.assertEqual(copy.getvalue(), "both\n")

    def test_tee_that_fails(self):
        with Server() as server:
            client, closed = daybook_stream.Client(server.address), io.BytesIO()
            closed.close()
            for s, data in ((client.open_text("t", tee=closed), "data"), (client.open_binary("b", tee=closed), b"data")):
                with s, self.assertRaises(ValueError):
                    s.write(data)
                self.assertEqual(server.take()[2], b"data")

    def test_datagrams(self):
        sent = [b"one", b"", b"x" * 128, b"y" * daybook_stream.MAX_DATAGRAM]
        with Server() as server:
            with daybook_stream.Client(server.address).open_datagram("d") as s:
                for d in sent[:3]:
                    s.send(d)
                with self.assertRaisesRegex(ValueError, "10485761 bytes; at most 10485760"):
                    s.send(b"y" * (daybook_stream.MAX_DATAGRAM + 1))
                s.send(memoryview(sent[3]))
            self.assertTrue(s.closed)
            self.assertEqual(server.take(), (1, {"name": "d", "type": "datagram"}, sent))

    def test_length_prefixes_of_the_vectors(self):
        with open(VECTORS, encoding="utf-8") as f:
            for v in json.load(f)["datagram_length_prefixes"]:
                self.assertEqual(daybook_stream._varint(v["datagram_size"]).hex(), v["prefix_hex"])

    def test_threads_write_whole_datagrams(self):
        with Server() as server:
            with daybook_stream.Client(server.address).open_datagram("d") as s:
                def work(i):
                    for n in range(50):
                        s.send(bytes([i]) * (i * 5000 + n))
                threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
            data = server.take()[2]
            self.assertEqual(sorted(map(len, data)), sorted(i * 5000 + n for i in range(1, 5) for n in range(50)))
            self.assertTrue(all(len(set(d)) == 1 for d in data))

    def test_processes_and_logging(self):
        with Server() as server:
            with daybook_stream.Client(server.address).open_text("p") as s:
                child = subprocess.Popen(
                    [sys.executable, "-c", "import sys; sys.stdin.read(); print('child')"], stdin=subprocess.PIPE, stdout=s
                )
            # The stream is closed here, and goes on there.
            child.communicate()
            self.assertEqual(server.take()[2].split(), [b"child"])
            with daybook_stream.Client(server.address).open_text("l") as s:
                handler = logging.StreamHandler(s)
                handler.emit(logging.LogRecord("n", logging.INFO, "p", 1, "logged %d", (7,), None))
            self.assertEqual(server.take()[2], b"logged 7\n")

    def test_after_close(self):
        with Server() as server:
            s = daybook_stream.Client(server.address).open_text("t")
            s.close()
            s.close()
            with self.assertRaises(ValueError):
                s.write("x")
            server.take()
            d = daybook_stream.Client(server.address).open_datagram("d")
            d.close()
            with self.assertRaises(ValueError):
                d.send(b"x")

    def test_bad_input_is_not_sent(self):
        client = daybook_stream.Client("unix:/nonexistent/socket")
        for name in ("", "/", "a//b", "-a", "a b", "ñ", "a\n", "q" * 4097):
            with self.assertRaisesRegex(ValueError, "stream name"):
                client.open_text(name)
        for tags in ({"": ""}, {"k" * 65: ""}, {"a b": ""}, {"k": "é" * 2049}):
            with self.assertRaisesRegex(ValueError, "tag"):
                client.open_binary("n", tags=tags)
        big = {"k{}".format(i): "v" * 4096 for i in range(300)}
        with self.assertRaisesRegex(ValueError, "header"):
            client.open_text("n", tags=big)
        with self.assertRaises(TypeError):
            client.open_datagram("n", tee=sys.stdout)
        for address in ("", "unix", "unix:", "tcp4:1", "tcp4::1", "bogus:x", "net.pipe:x"):
            with self.assertRaisesRegex(ValueError, "stream server"):
                daybook_stream.Client(address)

    def test_nobody_listens(self):
        with self.assertRaisesRegex(FileNotFoundError, "is the Butler still running.*nonexistent"):
            daybook_stream.Client("unix:/nonexistent/socket").open_text("n")

    def test_hang_up(self):
        left, right = socket.socketpair()
        right.close()
        s = daybook_stream.BinaryStream("n", left, None, False)
        with self.assertRaisesRegex(daybook_stream.Disconnected, "stream 'n'.*refused.*confirm=True"):
            s.write(b"x")
        s.close()

    def test_close_ends_a_write_that_waits(self):
        left, right = socket.socketpair()
        s = daybook_stream.BinaryStream("n", left, None, False)
        errors = []
        def write():
            try:
                s.write(bytes(16 << 20))
            except OSError as e:
                errors.append(e)
        writer = threading.Thread(target=write)
        writer.start()
        right.recv(1)  # it has begun
        s.close()
        writer.join()
        right.close()
        self.assertIsInstance(errors[0], OSError)

    def test_interrupted_datagram_ends_the_stream(self):
        left, right = socket.socketpair()
        d = daybook_stream.DatagramStream("n", left, None, False)
        with mock.patch.object(daybook_stream.BinaryStream, "_send", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                d.send(b"x")
        self.assertTrue(d.closed)
        right.close()

    def test_queue_of_connections_is_full(self):
        with tempfile.TemporaryDirectory() as d, socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(d, "s")
            listener.bind(path)
            listener.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(path)
                tried = threading.Event()
                def sleep(_):
                    tried.set()
                    again.wait()
                again, opened = threading.Event(), []
                client = daybook_stream.Client("unix:" + path)
                with mock.patch("time.sleep", sleep):
                    t = threading.Thread(target=lambda: opened.append(client.open_text("n")))
                    t.start()
                    tried.wait()
                    accepted = listener.accept()[0]
                    again.set()
                    t.join()
                opened[0].close()
                accepted.close()


class ConfirmTest(unittest.TestCase):
    def test_accepted(self):
        with Server(reply=b'{"accepted":true,"url":"http://h/x","new":1}\n') as server:
            with daybook_stream.Client(server.address).open_text("t", confirm=True) as s:
                self.assertEqual(s.url, "http://h/x")
                s.write("data")
            # Close has waited for the server to have read all.
            self.assertEqual(server.take(), (2, {"name": "t", "type": "text"}, b"data"))

    def test_refused(self):
        with Server(reply=b'{"accepted":false,"code":"exists","reason":"names are used once"}\n') as server:
            with self.assertRaisesRegex(daybook_stream.Refused, "names are used once") as caught:
                daybook_stream.Client(server.address).open_datagram("t", confirm=True)
            self.assertEqual((caught.exception.code, caught.exception.reason), ("exists", "names are used once"))

    def test_no_reply(self):
        for reply in (b"", b'{"accepted":', b"x" * 20000):
            with Server(reply=reply) as server:
                with self.assertRaisesRegex(daybook_stream.Disconnected, "without a reply"):
                    daybook_stream.Client(server.address).open_text("t", confirm=True)
                server.take()
        with Server(reply=b"not true JSON\n") as server:
            with self.assertRaisesRegex(daybook_stream.Disconnected, "no reply of a Butler"):
                daybook_stream.Client(server.address).open_text("t", confirm=True)

    def test_reply_does_not_come(self):
        with Server(linger=threading.Event(), reply=b"true") as server, mock.patch("daybook_stream.TIMEOUT", 0.01):
            with self.assertRaisesRegex(TimeoutError, "no reply within"):
                daybook_stream.Client(server.address).open_text("t", confirm=True)
            server.linger.set()

    def test_redaction(self):
        with Server() as server:
            client = daybook_stream.Client(server.address)
            client.add_redaction("sécret", b"\x00\xff12" * 100)
            client.add_redaction()
            header = {"op": "redact", "count": 2}
            self.assertEqual(server.take(), (2, header, ["sécret".encode(), b"\x00\xff12" * 100]))
            for bad in (["abc"], [b""], ["x" * 65537], ["long enough"] * 1001, ["x" * 65536] * 17):
                with self.assertRaisesRegex(ValueError, "redact"):
                    client.add_redaction(*bad)
        with Server(reply=b'{"accepted":false,"code":"unsupported","reason":"no"}\n') as server:
            with self.assertRaises(daybook_stream.Refused):
                daybook_stream.Client(server.address).add_redaction("secret")


class TransportTest(unittest.TestCase):
    def test_tcp_closes_when_everything_was_read(self):
        for family in (socket.AF_INET, socket.AF_INET6):
            with self.subTest(family), Server(family, linger=threading.Event()) as server:
                s = daybook_stream.Client(server.address).open_binary("t")
                s.write(b"data")
                closed = threading.Thread(target=s.close)
                closed.start()
                self.assertEqual(server.streams, [])
                server.linger.set()
                closed.join()
                # Not through take: what the server has read when it closes was there before close returned.
                self.assertEqual(server.streams, [(1, {"name": "t", "type": "binary"}, b"data")])

    def test_tcp_butler_that_does_not_read(self):
        with Server(socket.AF_INET, linger=threading.Event()) as server:
            s = daybook_stream.Client(server.address).open_binary("t")
            s.write(b"data")
            with mock.patch("daybook_stream.TIMEOUT", 0.01), self.assertRaisesRegex(TimeoutError, "has not read everything"):
                s.close()
            server.linger.set()

    def test_pipes_of_windows(self):
        left, right = socket.socketpair()
        pipe = open(left.detach(), "r+b", buffering=0)
        with mock.patch("sys.platform", "win32"), mock.patch("builtins.open", side_effect=[OSError(22, "busy"), pipe]) as opened:
            right.sendall(b'{"accepted":true,"url":"u"}\n')
            s = daybook_stream.Client("net.pipe:name").open_text("t", confirm=True)
            s.write("data")
            s.close()
        self.assertEqual(opened.call_args[0][0], r"\\.\pipe\name")
        self.assertEqual(s.url, "u")
        header = b'{"name": "t", "type": "text"}'
        self.assertEqual(right.recv(1000), b"BTLR2\x1e" + bytes([len(header)]) + header + b"data")
        right.close()

    def test_environment(self):
        with Server() as server:
            env = {"LOGDOG_STREAM_SERVER_PATH": server.address, "LOGDOG_NAMESPACE": "a/b"}
            with mock.patch.dict(os.environ, env):
                for opener, word in ((daybook_stream.open_text, "text"), (daybook_stream.open_binary, "binary")):
                    opener("n").close()
                    self.assertEqual(server.take(), (1, {"name": "a/b/n", "type": word}, b""))
                daybook_stream.open_datagram("n").close()
                self.assertEqual(server.take(), (1, {"name": "a/b/n", "type": "datagram"}, []))
                daybook_stream.add_redaction("value")
                self.assertEqual(server.take()[2], [b"value"])
        for env in ({}, {"LOGDOG_STREAM_SERVER_PATH": ""}):
            with mock.patch.dict(os.environ, env, clear=True):
                with self.assertRaisesRegex(daybook_stream.NoButler, "daybook run"):
                    daybook_stream.open_text("n")


if __name__ == "__main__":
    unittest.main()
