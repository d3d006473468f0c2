package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/daybook-dev/daybook/butler/bootstrap"
	"github.com/daybook-dev/daybook/butler/process"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

type runCmd struct {
	captureFlags
	Stdout     streamSpec    `help:"Stream of the command's stdout: NAME, or name=N,type=T,content-type=C,tag=K=V; - does not capture it." default:"stdout" placeholder:"STREAM"`
	Stderr     streamSpec    `help:"Stream of its stderr." default:"stderr" placeholder:"STREAM"`
	PTY        process.Mode  `help:"Give the command a terminal of its own: auto (where ours is one), always, never." enum:"auto,always,never" default:"auto" name:"pty"`
	Grace      time.Duration `help:"After a SIGTERM that the command was passed, kill it and what it started when it has not ended within this time; 0 never does." default:"30s"`
	ResultFile string        `help:"Write a JSON object about the end of the command to a file." placeholder:"FILE" type:"path"`
	Command    []string      `arg:"" passthrough:"" help:"The command and its arguments."`
}

func (c *runCmd) Help() string {
	return "The output is captured as the streams stdout and stderr below the prefix. The first line on stderr is the address of their page. " +
		"The command finds the variables by which programs open streams of their own (see daybook stream).\n\n" +
		"The exit code is the command's; 128 plus the signal that killed it; 127 or 126 if it cannot be started. " +
		"Logging never fails the command, and never holds it unless --when-full=block: while no server takes the output it is kept on disk, and sent later.\n\n" +
		redactHelp()
}

func (c *runCmd) Run(e *env) error {
	args := c.Command
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return fault.New(fault.Invalid, "no command; say daybook run -- COMMAND ARGS…")
	}
	// The signals that end us are the command's while it runs; they must not end the capture.
	ctx := context.WithoutCancel(e.ctx)
	p := process.Config{Args: args, PTY: c.PTY, Stdin: e.stdin, Stdout: e.stdout, Stderr: e.stderr, Grace: c.Grace, Signals: process.CatchSignals()}
	defer p.Signals.Stop()
	capture, err := c.open(ctx, e, args, "")
	switch {
	case fault.Is(err, fault.Invalid):
		return err
	case err != nil:
		fmt.Fprintf(e.stderr, "daybook: the output is not captured: %v\n", err)
		p.Capture = discard
		p.Env = bootstrap.Environment{}.Apply(os.Environ()) // another Butler's streams are not for it
		result, err := process.Run(ctx, p)
		return c.finish(nil, args, result, err)
	}
	fmt.Fprintf(e.stderr, "daybook: %s\n", capture.page(string(capture.prefix.Join(c.shown()))))
	p.Env = capture.environ(os.Environ())
	p.Capture = func(name string, r io.ReadCloser) error {
		spec := &c.Stdout
		if name == "stderr" {
			spec = &c.Stderr
		}
		if spec.off {
			return discard(name, r)
		}
		return capture.add(spec, types.StreamName(name), r)
	}
	end, cancel := context.WithCancel(ctx)
	defer func() { cancel() }()
	// Once the command has ended, a signal is for us.
	p.Ended = func() {
		end, cancel = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		capture.beginEnd(end)
	}
	result, err := process.Run(ctx, p)
	capture.finish(end)
	return c.finish(capture, args, result, err)
}

// shown is the stream whose page the user is told.
func (c *runCmd) shown() types.StreamName {
	for _, s := range []*streamSpec{&c.Stdout, &c.Stderr} {
		if !s.off && s.name != "" {
			return s.name
		}
	}
	return "stdout"
}

// finish writes the result file and turns how the command ended into how we end.
func (c *runCmd) finish(k *capture, args []string, r process.Result, err error) error {
	if err != nil {
		return &exitError{exitCapture, err}
	}
	if c.ResultFile != "" {
		if err := writeResult(c.ResultFile, newResult(k, args, r)); err != nil {
			return &exitError{max(r.ExitCode, exitFailure), fmt.Errorf("write the result: %w", err)}
		}
	}
	switch {
	case r.Err != nil:
		return &exitError{r.ExitCode, r.Err}
	case r.ExitCode != 0:
		return &exitError{r.ExitCode, nil}
	}
	return nil
}

// result is the content of a result file. The first two fields are those of logdog_butler.
type result struct {
	ReturnCode int      `json:"return_code"`
	Command    []string `json:"command"`
	// Signal is the number of the one that killed the command.
	Signal int `json:"signal,omitempty"`
	// Error is why it could not be started.
	Error   string             `json:"error,omitempty"`
	Project types.Project      `json:"project,omitempty"`
	Prefix  types.StreamName   `json:"prefix,omitempty"`
	Streams []types.StreamName `json:"streams,omitempty"`
}

func newResult(k *capture, args []string, r process.Result) *result {
	v := &result{ReturnCode: r.ExitCode, Command: args, Signal: r.Signal}
	if path, err := exec.LookPath(args[0]); err == nil {
		if abs, err := filepath.Abs(path); err == nil {
			v.Command = append([]string{abs}, args[1:]...)
		}
	}
	if r.Err != nil {
		v.Error = r.Err.Error()
	}
	if k != nil {
		v.Project, v.Prefix, v.Streams = k.project, k.prefix, k.butler.Streams()
	}
	return v
}

// writeResult writes a file that is there whole, or not at all.
func writeResult(path string, v *result) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b) // which ends with a line feed
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func discard(_ string, r io.ReadCloser) error {
	// The reader's end has no owner but the command: closing it makes writes to it free.
	return r.Close()
}
