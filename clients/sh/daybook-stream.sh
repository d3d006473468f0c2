#!/bin/sh
# shellcheck disable=SC2030,SC2031 # subshells keep variables from the caller, on purpose
#
# Streams of logs from shell scripts, for every POSIX shell (dash, busybox, bash, ksh):
#
#   . ./daybook-stream.sh
#   daybook_tag target all                  # of the streams that follow
#   daybook_text compile/log make all       # what make prints goes to a stream
#   daybook_tee test/log make test          # ... and is printed, too
#   journalctl -b | daybook_text system     # without a command: what is read
#   daybook_binary core gzip -c core
#
# Or as a command: daybook-stream.sh text compile/log make all
#
# A command's exit code is kept, whatever becomes of its stream; trouble with that is told on standard error and does not stop
# the command. Without a command, a stream that failed is exit code 74. When the Butler cannot be reached to begin with,
# nothing is run, and the exit code is 69; 64 is for a name or a tag that is not allowed. Standard error of a command is not
# captured; put 2>&1 into it for that: daybook_text log sh -c 'make 2>&1'.
#
# The Butler is found through the environment, see docs/formats/handshake.md. A shell cannot connect by itself: the first of
# daybook, python3, nc (of OpenBSD) and socat that is there does it. DAYBOOK_STREAM_VIA names another choice. The interrupt key
# ends streams that go by socat, and what the command says to it is lost; with the others it is not.
#
# Commands do not see the file descriptors 7, 8 and 9 of the script. Names that begin with _daybook are not for others.

_daybook_tags=  # members of a JSON object
_daybook_flags= # the same for 'daybook stream', quoted for eval

# daybook_text NAME [COMMAND [ARGUMENT...]]
daybook_text() { _daybook_via && _daybook_stream text '' "$@"; }

# daybook_binary NAME [COMMAND [ARGUMENT...]]
daybook_binary() { _daybook_via && _daybook_stream binary '' "$@"; }

# daybook_tee NAME [COMMAND [ARGUMENT...]]
daybook_tee() { _daybook_via && _daybook_stream text tee "$@"; }

# daybook_tag KEY VALUE
daybook_tag() {
  if [ $# -ne 2 ]; then
    _daybook_say 'usage: daybook_tag KEY VALUE'
    return 64
  fi
  _daybook_name tag "$1" 64 || return
  if [ "$(printf %s "$2" | wc -c)" -gt 4096 ]; then
    _daybook_say "tag $1: the value has more than 4096 bytes"
    return 64
  fi
  _daybook_tags="${_daybook_tags:+$_daybook_tags,}\"$1\":\"$(printf '%s\n' "$2" | _daybook_json)\""
  _daybook_flag=$(printf '%sx' "$1=$2" | sed "s/'/'\\\\''/g") # the x keeps line ends at the end
  _daybook_flags="$_daybook_flags --tag='${_daybook_flag%x}'"
}

_daybook_say() { printf 'daybook-stream: %s\n' "$*" >&2; }

# _daybook_name KIND NAME LIMIT: is the name allowed?
_daybook_name() (
  LC_ALL=C
  case /$2 in
    *// | */ | */[!A-Za-z0-9]* | *[!A-Za-z0-9:_./-]*) ;;
    *) [ "${#2}" -gt "$3" ] || exit 0 ;;
  esac
  _daybook_say "$1 name '$2': 1 to $3 ASCII letters, digits and :_-. are allowed, in segments that begin with a letter" \
    "or digit and are separated by slashes"
  exit 64
)

# _daybook_json turns lines into the inside of a JSON string, without the last line's end.
_daybook_json() {
  LC_ALL=C awk '
    BEGIN {
      for (i = 1; i < 32; i++) escaped[sprintf("%c", i)] = sprintf("\\u%04x", i)
      escaped["\""] = "\\\""
      escaped["\\"] = "\\\\"
    }
    {
      if (NR > 1) printf "%s", "\\n"
      for (i = 1; i <= length($0); i++) {
        c = substr($0, i, 1)
        printf "%s", (c in escaped) ? escaped[c] : c
      }
    }'
}

# _daybook_via finds who connects, once, and says what is wrong if nobody can.
_daybook_via() {
  case ${LOGDOG_STREAM_SERVER_PATH-} in
    unix:?* | tcp4:?*:?* | tcp6:?*:?* | null | null:*) ;;
    '')
      _daybook_say "LOGDOG_STREAM_SERVER_PATH is not set: start the script with 'daybook run'"
      return 69
      ;;
    *)
      _daybook_say "stream server $LOGDOG_STREAM_SERVER_PATH: shells do not know this protocol"
      return 69
      ;;
  esac
  [ "${_daybook_by-}" != "${DAYBOOK_STREAM_VIA:-any}" ] || return 0
  if [ "${DAYBOOK_STREAM_VIA-}" ]; then
    set -- "$DAYBOOK_STREAM_VIA"
  else
    set -- daybook python3 nc socat
  fi
  for _daybook_with; do
    command -v "$_daybook_with" >/dev/null || continue
    case $_daybook_with in
      # Not every version knows the command, nor every nc the option that ends a stream.
      daybook) case $(daybook stream --help 2>&1) in *--name*) ;; *) continue ;; esac ;;
      nc) case $(nc -h 2>&1) in *-N*-U*) ;; *) continue ;; esac ;;
    esac
    _daybook_by=${DAYBOOK_STREAM_VIA:-any}
    return 0
  done
  _daybook_by=
  _daybook_say "connecting takes daybook, python3, nc of OpenBSD, or socat${DAYBOOK_STREAM_VIA:+, and of these $DAYBOOK_STREAM_VIA}; install it"
  return 69
}

# _daybook_stream TYPE TEE NAME [COMMAND...]. The command may be a function, which must not see variables of others.
_daybook_stream() (
  _daybook_type_=$1 _daybook_tee_=$2
  shift 2
  if [ $# -eq 0 ]; then
    _daybook_say 'usage: daybook_text NAME [COMMAND...]'
    exit 64
  fi
  _daybook_name_=$1
  shift
  _daybook_namespace_=${LOGDOG_NAMESPACE-}
  _daybook_name stream "${_daybook_namespace_:+${_daybook_namespace_%/}/}$_daybook_name_" 4096 || exit

  # The interrupt key reaches everybody, and the command decides what comes of it. Subshells forget traps.
  trap : INT
  exec 9>&1
  if [ $# -eq 0 ]; then
    if [ "$_daybook_tee_" ]; then
      _daybook_tee 7>&1 | _daybook_send
    else
      _daybook_send
    fi
    exit
  fi
  _daybook_errexit_=
  case $- in *e*) _daybook_errexit_=1 ;; esac
  set +e
  status=$({
    trap : INT
    if [ "$_daybook_tee_" ]; then
      {
        trap : INT
        _daybook_command "$@" | _daybook_tee
      } 7>&1 | _daybook_send
    else
      _daybook_command "$@" | _daybook_send
    fi >/dev/null
  } 8>&1)
  exit "${status:-125}"
)

# _daybook_command runs the command as the caller would, and tells its exit code to descriptor 8.
_daybook_command() {
  trap : INT
  (
    trap - INT
    if [ "$_daybook_errexit_" ]; then set -e; fi
    "$@"
  ) 7>&- 8>&- 9>&-
  echo $? >&8
}

# _daybook_tee copies to descriptors 7, the stream, and 9, the output of the script.
_daybook_tee() (
  trap '' INT
  exec tee /dev/fd/7 >&9 8>&- 9>&-
)

# _daybook_send makes what it reads the stream. If that fails it goes on reading, so that the command does not suffer.
_daybook_send() (
  trap '' INT
  set +e
  exec 7>&- 8>&- 9>&-
  case $LOGDOG_STREAM_SERVER_PATH,$_daybook_with in
    null*) cat >/dev/null ;;
    *,daybook)
      unset DAYBOOK_SERVER # it would capture there by itself
      eval "daybook stream --name=$_daybook_name_ --type=$_daybook_type_ $_daybook_flags"
      ;;
    *)
      {
        _daybook_header "\"name\":\"${_daybook_namespace_:+${_daybook_namespace_%/}/}$_daybook_name_\",\"type\":\"$_daybook_type_\""
        cat
      } | _daybook_connect
      ;;
  esac >/dev/null
  _daybook_code=$?
  # Some of these end well when the Butler goes.
  if [ -t 0 ] || [ "$(($(wc -c)))" -eq 0 ]; then
    [ $_daybook_code -ne 0 ] || exit 0
  fi
  _daybook_say "stream $_daybook_name_: $_daybook_with could not bring everything to $LOGDOG_STREAM_SERVER_PATH: the Butler refused the" \
    "stream (is the name taken?), or was stopped"
  exit 74
)

# _daybook_header MEMBERS: what goes before the data, for whoever connects.
_daybook_header() {
  header="{$1,\"tags\":{$_daybook_tags}}"
  if [ "$_daybook_with" = python3 ]; then
    printf '%s\n' "$header"
    return
  fi
  size=$(($(printf %s "$header" | wc -c)))
  printf 'BTLR1\036'
  while [ "$size" -ge 128 ]; do
    _daybook_byte $((size % 128 + 128))
    size=$((size / 128))
  done
  _daybook_byte "$size"
  printf %s "$header"
}

# shellcheck disable=SC2059 # the format is three octal digits
_daybook_byte() { printf "\\$(printf %03o "$1")"; }

# _daybook_connect connects, sends what it reads, and ends the connection. Over TCP it waits for the Butler to do so, too.
_daybook_connect() {
  value=${LOGDOG_STREAM_SERVER_PATH#*:}
  host=${value%:*} port=${value##*:}
  case $_daybook_with,$LOGDOG_STREAM_SERVER_PATH in
    python3,*) exec python3 -I -c "$_daybook_python" "$LOGDOG_STREAM_SERVER_PATH" ;;
    socat,unix:*) exec socat -u STDIN "UNIX-CONNECT:$(printf %s "$value" | sed 's/[][\\,:!"({'"'"']/\\&/g')" ;;
    socat,tcp4:*) exec socat -t 30 STDIO "TCP4:$value" ;;
    socat,tcp6:*) exec socat -t 30 STDIO "TCP6:$value" ;;
    nc,unix:*) exec nc -N -U "$value" ;;
    nc,tcp4:*) exec nc -4 -N "$host" "$port" ;;
    nc,tcp6:*)
      host=${host#[}
      exec nc -6 -N "${host%]}" "$port"
      ;;
  esac
}

# Python can read the reply of version 2, so this says why a stream was refused. A Butler that gives none is asked in version 1.
_daybook_python='
import os, socket, sys

def connect(version):
    protocol, _, value = sys.argv[1].partition(":")
    if protocol == "unix":
        s = socket.socket(socket.AF_UNIX)
        s.connect(value)
    else:
        host, _, port = value.rpartition(":")
        s = socket.socket(socket.AF_INET if protocol == "tcp4" else socket.AF_INET6)
        s.connect((host.strip("[]"), int(port)))
    size, length = len(header), bytearray()
    while size >= 128:
        length.append(size % 128 + 128)
        size //= 128
    length.append(size)
    s.sendall(b"BTLR%d\x1e" % version + length + header)
    return s

def reply(s):
    line = b""
    s.settimeout(30)
    try:
        while not line.endswith(b"\n") and len(line) < 16384:
            more = s.recv(4096)
            if not more:
                break
            line += more
    except ConnectionError:
        pass
    s.settimeout(None)
    return line

try:
    header = b""
    while b"\n" not in header:
        header += os.read(0, 65536)
    header, data = header.split(b"\n", 1)
    wait = True
    s = connect(2)
    answer = reply(s)
    if not answer:
        wait = not sys.argv[1].startswith("unix:")
        s = connect(1)
    elif not answer.startswith(b"{\"accepted\":true"):
        sys.exit("daybook-stream: " + answer.decode("utf-8", "replace").strip())
    while True:
        s.sendall(data)
        data = os.read(0, 65536)
        if not data:
            break
    s.shutdown(socket.SHUT_WR)
    s.settimeout(30)
    while wait and s.recv(4096):
        pass
except OSError as e:
    sys.exit("daybook-stream: {}: {}".format(sys.argv[1], e))
'

case ${0##*/} in
  daybook-stream.sh)
    case ${1-} in
      text | binary | tee)
        _daybook_do=daybook_$1
        shift
        "$_daybook_do" "$@"
        exit
        ;;
    esac
    _daybook_say 'usage: daybook-stream.sh text|binary|tee NAME [COMMAND [ARGUMENT...]]'
    exit 64
    ;;
esac
