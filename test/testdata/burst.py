"""Opens streams as LogDog's Python client does, writes a line to each, and ends without closing them."""

import json
import os
import socket
import sys


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


path = os.environ["LOGDOG_STREAM_SERVER_PATH"]
assert path.startswith("unix:"), path
streams = []
for i in range(int(sys.argv[1])):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path[len("unix:"):])
    header = json.dumps({"name": "many/%d" % i, "contentType": "text/plain", "type": "text"}).encode()
    s.sendall(b"BTLR1\x1e" + varint(len(header)) + header)
    s.sendall(b"all that stream %d says\n" % i)
    streams.append(s)
os._exit(0)
