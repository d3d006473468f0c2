package testkit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

// House is a data directory of Daybook and an environment in which the daybook binary knows nothing but that directory.
type House struct {
	// Data is the data directory. It does not exist until something of Daybook creates it.
	Data string

	t   TB
	bin string
	env []string
}

// NewHouse returns a house on a temporary directory that goes with the test.
func NewHouse(t TB) *House {
	t.Helper()
	return NewHouseOf(t, Binary(t))
}

// NewHouseOf is NewHouse for a binary that was built already.
func NewHouseOf(t TB, bin string) *House {
	t.Helper()
	dir := t.TempDir()
	h := &House{Data: dir + "/data", t: t, bin: bin}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DAYBOOK_") && !strings.HasPrefix(v, "LOGDOG_") && !strings.HasPrefix(v, "XDG_") {
			h.env = append(h.env, v)
		}
	}
	h.env = append(h.env, "DAYBOOK_DATA="+h.Data, "XDG_DATA_HOME="+dir+"/home", "XDG_STATE_HOME="+dir+"/home",
		"XDG_CACHE_HOME="+dir+"/home", "XDG_CONFIG_HOME="+dir+"/home")
	return h
}

// Setenv sets a variable for what is started from now on.
func (h *House) Setenv(name, value string) { h.env = append(h.env, name+"="+value) }

// Command returns the daybook command with these arguments, to be changed and started.
func (h *House) Command(args ...string) Command {
	return Command{Path: h.bin, Args: args, Env: h.env[:len(h.env):len(h.env)]}
}

// Start starts the daybook command with these arguments.
func (h *House) Start(args ...string) *Process {
	h.t.Helper()
	return Start(h.t, h.Command(args...))
}

// Run runs the daybook command with these arguments to its end and returns its standard output. The test fails if its
// exit code is not zero.
func (h *House) Run(args ...string) string {
	h.t.Helper()
	p := h.Start(args...)
	if code := p.Wait(); code != 0 {
		h.t.Fatalf("daybook %s: exit code %d\n%s", strings.Join(args, " "), code, clip(p.Stderr))
	}
	return p.Stdout.String()
}

// CompareCat compares what `daybook cat` says a stream holds with what it should hold.
func (h *House) CompareCat(path string, want io.Reader) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("testkit: cat %s: %w", path, err)
	}
	defer r.Close()
	c := h.Command("cat", path)
	c.Stdout = w
	p := Start(h.t, c)
	w.Close() // the process has its own

	diff := Compare(want, r)
	if code := p.Wait(); code != 0 {
		return fmt.Errorf("testkit: cat %s: exit code %d: %s", path, code, clip(p.Stderr))
	}
	if diff != nil {
		return fmt.Errorf("testkit: cat %s: %w", path, diff)
	}
	return nil
}

// Server is `daybook serve` on a house.
type Server struct {
	// Process is the server that runs now; Restart replaces it.
	*Process
	// Addr is host and port, URL the root of its pages. They stay through a restart.
	Addr, URL string

	h    *House
	args []string
}

var serving = regexp.MustCompile(`serving on (http://(\S+))`)

// Serve starts a server with these flags on any free port of loopback and waits until it is ready.
func (h *House) Serve(flags ...string) *Server {
	h.t.Helper()
	s := &Server{h: h, args: flags}
	s.start("127.0.0.1:0")
	return s
}

// Restart starts the server, which has ended, again on the same directory and address, and waits until it is ready.
func (s *Server) Restart() {
	s.h.t.Helper()
	s.start(s.Addr)
}

// Stop asks the server to shut down, as a service manager does, and waits for it. The test fails if it takes longer than
// the limit or has an exit code other than zero.
func (s *Server) Stop(limit time.Duration) {
	s.h.t.Helper()
	s.Signal(terminate)
	if code := s.WaitFor(limit); code != 0 {
		s.h.t.Fatalf("server: exit code %d after being asked to stop\n%s", code, clip(s.Stderr))
	}
}

func (s *Server) start(listen string) {
	s.h.t.Helper()
	c := s.h.Command(append([]string{"serve", "--listen", listen}, s.args...)...)
	both := NewOutput() // the address may be on either
	c.Stdout, c.Stderr = both, both
	s.Process = Start(s.h.t, c)
	s.Stdout, s.Stderr = both, both
	match := s.Await(both, serving)
	s.URL, s.Addr = strings.TrimSuffix(match[1], "/"), strings.TrimSuffix(match[2], "/")
	if err := s.awaitReady(); err != nil {
		s.h.t.Fatalf("server: %v\n%s", err, clip(both))
	}
}

// awaitReady asks for readiness until the server says so.
func (s *Server) awaitReady() error {
	ctx, cancel := context.WithTimeout(s.h.t.Context(), Patience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	defer client.CloseIdleConnections()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := get(ctx, client, s.URL+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-s.Done():
			return fmt.Errorf("ended before it was ready: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("not ready within %v: %w", Patience, err)
		}
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return nil
}
