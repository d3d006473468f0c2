package testkit

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

// Command says what to start.
type Command struct {
	Path string
	Args []string // without the program's name
	Env  []string // the whole environment
	Dir  string
	// Stdin is empty when nil.
	Stdin io.Reader
	// Stdout and Stderr take the place of the Process's own Outputs. A file is passed to the process itself.
	Stdout, Stderr io.Writer
}

// Process is a program that runs, or ran, for a test. It is killed with everything it started when the test ends.
type Process struct {
	Stdout, Stderr *Output

	t    TB
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended and its output was read
	err  error         // of Wait; valid after done
	peak atomic.Int64
}

// Start starts a program.
func Start(t TB, c Command) *Process {
	t.Helper()
	p := &Process{
		Stdout: NewOutput(), Stderr: NewOutput(),
		t:    t,
		name: strings.Join(append([]string{c.Path}, c.Args...), " "),
		cmd:  exec.Command(c.Path, c.Args...),
		done: make(chan struct{}),
	}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdin = c.Env, c.Dir, c.Stdin
	p.cmd.Stdout, p.cmd.Stderr = p.Stdout, p.Stderr
	if c.Stdout != nil {
		p.cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		p.cmd.Stderr = c.Stderr
	}
	// Something that the process started may hold its output open after it ended.
	p.cmd.WaitDelay = 5 * time.Second
	ownGroup(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}

	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watchPeak()
	}()
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		killGroup(p.cmd)
		<-p.done
		<-watched
		if t.Failed() {
			t.Logf("%s: %v\nstdout: %s\nstderr: %s", p.name, p.cmd.ProcessState, clip(p.Stdout), clip(p.Stderr))
		}
	})
	return p
}

// Pid returns the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end and returns its exit code as a shell has it: 128 and the signal's number when a
// signal ended it.
func (p *Process) Wait() int {
	p.t.Helper()
	return p.WaitFor(Patience)
}

// WaitFor is Wait with a time limit of the caller's.
func (p *Process) WaitFor(limit time.Duration) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), limit)
	defer cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.t.Fatalf("%s has not ended within %v", p.name, limit)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) && !errors.Is(p.err, exec.ErrWaitDelay) {
		p.t.Fatalf("%s: %v", p.name, p.err)
	}
	return exitCode(p.cmd.ProcessState)
}

// State returns what the system counted of an ended process: its times and those of the children it waited for.
func (p *Process) State() *os.ProcessState {
	<-p.done
	return p.cmd.ProcessState
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	p.samplePeak()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("signal %s: %v", p.name, err)
	}
}

// Kill ends the process at once, as kill -9 does, and waits until it is gone. What it started goes on.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(os.Kill)
	p.Wait()
}

// Await waits until the process writes something that matches re to out, which is one of its Outputs, and returns
// the match and its groups. The test fails if the process ends first.
func (p *Process) Await(out *Output, re *regexp.Regexp) []string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), Patience)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-p.done:
			end(errors.New("the process ended"))
		case <-ctx.Done():
		}
	}()
	match, err := out.Await(ctx, re)
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	return match
}

// PeakMemory returns the most memory the process itself ever held, in bytes, as far as the system tells; else zero.
func (p *Process) PeakMemory() int64 {
	p.samplePeak()
	return p.peak.Load()
}

// watchPeak reads the high-water mark until the process ends, because it is gone with the process, and the one in the
// resource usage of an ended child includes the memory of its parent at the time of the fork.
func (p *Process) watchPeak() {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		p.samplePeak()
		select {
		case <-p.done:
			return
		case <-ticker.C:
		}
	}
}

func (p *Process) samplePeak() {
	select {
	case <-p.done: // its number may be another's by now
		return
	default:
	}
	n := peakMemory(p.Pid())
	for {
		old := p.peak.Load()
		if n <= old || p.peak.CompareAndSwap(old, n) {
			return
		}
	}
}

// clip returns the end of an output, which is where a failing program explains itself.
func clip(o *Output) string {
	const most = 8 << 10
	s := o.String()
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}
