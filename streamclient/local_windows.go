package streamclient

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/Microsoft/go-winio"
	"golang.org/x/sys/windows"
)

// localProtocol is how this platform connects programs.
const localProtocol = "net.pipe"

// busyPoll is how often a pipe is tried whose instances are all taken.
const busyPoll = 10 * time.Millisecond

func newLocal(name string) (butler, error) {
	if name == "" {
		return nil, errors.New("a pipe has a name")
	}
	path := `\\.\pipe\` + name
	return &network{dial: func(ctx context.Context, forProcess bool) (io.ReadWriteCloser, error) {
		if forProcess {
			return openPipe(ctx, path)
		}
		return winio.DialPipeContext(ctx, path)
	}}, nil
}

// openPipe opens a pipe as processes expect their outputs: without overlapped operations. The server learns nothing of who
// this program is.
func openPipe(ctx context.Context, path string) (*os.File, error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	for {
		h, err := windows.CreateFile(p, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING,
			windows.SECURITY_SQOS_PRESENT|windows.SECURITY_ANONYMOUS, 0)
		if err == nil {
			return os.NewFile(uintptr(h), path), nil
		}
		if !errors.Is(err, windows.ERROR_PIPE_BUSY) {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(busyPoll):
		}
	}
}
