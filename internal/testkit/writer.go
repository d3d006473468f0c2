package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// Writer describes a command that writes generated output. The test binary itself is that command, by way of Main.
type Writer struct {
	Stdout, Stderr Content
	// Gate, unless empty, is the address of a Gate at which the command stops in the middle of its output.
	Gate string
	// Exit is the exit code.
	Exit int
	// Signal, unless zero, is the signal by which the command ends itself instead.
	Signal int
}

const writerArg = "testkit-writer"

// Args returns the command line.
func (w Writer) Args() []string {
	self, err := os.Executable()
	if err != nil {
		panic(fmt.Sprintf("testkit: a program that does not know its own path: %v", err))
	}
	spec, err := json.Marshal(w)
	if err != nil {
		panic(fmt.Sprintf("testkit: a struct of strings and numbers that does not marshal: %v", err))
	}
	return []string{self, writerArg, string(spec)}
}

// runAsWriter is the command. It reports whether the process was started as one.
func runAsWriter(args []string) bool {
	if len(args) != 2 || args[0] != writerArg {
		return false
	}
	var w Writer
	err := json.Unmarshal([]byte(args[1]), &w)
	if err == nil {
		err = w.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testkit writer:", err)
		os.Exit(125)
	}
	if w.Signal != 0 {
		raise(w.Signal)
	}
	os.Exit(w.Exit)
	return true
}

// run writes the first half of both, passes the gate, and writes the rest.
func (w Writer) run() error {
	stdout, stderr := w.Stdout.Reader(), w.Stderr.Reader()
	if _, err := io.CopyN(os.Stdout, stdout, w.Stdout.Size/2); err != nil {
		return err
	}
	if _, err := io.CopyN(os.Stderr, stderr, w.Stderr.Size/2); err != nil {
		return err
	}
	if w.Gate != "" {
		if err := passGate(w.Gate); err != nil {
			return err
		}
	}
	if _, err := io.Copy(os.Stdout, stdout); err != nil {
		return err
	}
	_, err := io.Copy(os.Stderr, stderr)
	return err
}

// Gate is a place where commands wait for the test, each in the middle of its output.
type Gate struct {
	t       TB
	l       net.Listener
	arrived chan struct{}
	open    chan struct{}
	closing chan struct{}
	wg      sync.WaitGroup
}

// NewGate returns a closed gate.
func NewGate(t TB) *Gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("gate: %v", err)
	}
	g := &Gate{t: t, l: l, arrived: make(chan struct{}), open: make(chan struct{}), closing: make(chan struct{})}
	g.wg.Go(g.serve)
	t.Cleanup(func() {
		close(g.closing)
		l.Close()
		g.wg.Wait()
	})
	return g
}

// Addr is where the gate is found.
func (g *Gate) Addr() string { return g.l.Addr().String() }

// Await waits until as many commands have arrived at the gate as there are processes, which run them. The test fails if one
// of the processes ends instead.
func (g *Gate) Await(processes ...*Process) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), Patience)
	ended := make(chan *Process)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for _, p := range processes {
		watching.Go(func() {
			select {
			case <-p.done:
				select {
				case ended <- p:
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
		})
	}
	for i := range processes {
		select {
		case <-g.arrived:
		case p := <-ended:
			g.t.Fatalf("%s ended before it arrived at the gate", p.name)
		case <-ctx.Done():
			g.t.Fatalf("%d of %d commands arrived at the gate within %v", i, len(processes), Patience)
		}
	}
}

// Open lets all commands go on, those included that are still to come. It is called once.
func (g *Gate) Open() { close(g.open) }

// serve takes commands in, each with a goroutine that holds it until the gate opens.
func (g *Gate) serve() {
	for {
		conn, err := g.l.Accept()
		if err != nil {
			return
		}
		g.wg.Go(func() {
			defer conn.Close()
			select {
			case g.arrived <- struct{}{}:
			case <-g.open:
			case <-g.closing:
			}
			select {
			case <-g.open:
			case <-g.closing:
			}
		})
	}
}

func passGate(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	defer conn.Close()
	// The gate closes the connection when it opens; it has nothing to say.
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}
