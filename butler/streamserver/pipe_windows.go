package streamserver

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"

	"github.com/daybook-dev/daybook/internal/fault"
)

const (
	pipeRoot = `\\.\pipe\`
	// maxPipePath is the most characters of a pipe's path.
	maxPipePath = 256
	// pipeBuffer is the size of each of a pipe's buffers.
	pipeBuffer = 1 << 20
)

// pipeListener is a named pipe.
type pipeListener struct {
	net.Listener
	name string
}

// pipes counts the pipes of this process, for their names.
var pipes atomic.Int64

func listenSocket(string, *slog.Logger) (listener, error) {
	return nil, fault.New(fault.Invalid, "stream server: sockets are not for Windows; use net.pipe:NAME")
}

func listenHere() (listener, error) { return listenPipe("daybook") }

// listenPipe listens at a pipe whose name begins as given.
func listenPipe(prefix string) (listener, error) {
	if prefix == "" {
		prefix = "daybook"
	}
	name := fmt.Sprintf("%s.%d.%d", prefix, os.Getpid(), pipes.Add(1))
	if n := len(pipeRoot) + len(name); n > maxPipePath {
		return nil, fault.New(fault.Invalid, "stream server: the path of the pipe has %d characters; at most %d are allowed", n, maxPipePath)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("stream server: who are we: %w", err)
	}
	l, err := winio.ListenPipe(pipeRoot+name, &winio.PipeConfig{
		// This user, and nobody through the network.
		SecurityDescriptor: "D:P(D;;GA;;;NU)(A;;GA;;;" + user.User.Sid.String() + ")",
		InputBufferSize:    pipeBuffer,
		OutputBufferSize:   pipeBuffer,
	})
	if err != nil {
		return nil, fmt.Errorf("stream server at %s: %w", pipeRoot+name, err)
	}
	return &pipeListener{l, name}, nil
}

func (l *pipeListener) address() string { return "net.pipe:" + l.name }

// stop ends the pipe. There is no queue: a client is connected when Accept has it.
func (l *pipeListener) stop() { _ = l.Close() }

func (*pipeListener) drain() []net.Conn { return nil }

// authorize admits everybody: the pipe's descriptor has decided.
func (*pipeListener) authorize(net.Conn) error { return nil }
