package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"github.com/daybook-dev/daybook/api/client"
	"github.com/daybook-dev/daybook/api/localauth"
	"github.com/daybook-dev/daybook/internal/fault"
)

// pubsubVariable tells clients of Pub/Sub where to publish instead, in plaintext and without credentials.
const pubsubVariable = "PUBSUB_EMULATOR_HOST"

// anyToken is what tools get where there is no token: some insist on having one.
const anyToken = "none-needed"

type luciContextCmd struct {
	serverFlags
	Output  string   `help:"Write the context to this file, and remove it at the end." placeholder:"FILE" type:"path"`
	Command []string `arg:"" optional:"" passthrough:"" help:"Command to run with the context."`
}

func (c *luciContextCmd) Help() string {
	return "Existing tools, as logdog_butler and logdog, ask for tokens by a file that the variable LUCI_CONTEXT names, and publish where PUBSUB_EMULATOR_HOST says. " +
		"This runs a command with both, and with the server's HOST:PORT in DAYBOOK_HOST; its exit code is the command's. Without a command it writes the file and serves until it is stopped; " +
		"the variables are on stdout once it is ready. docs/existing-tools.md has the whole recipe."
}

func (c *luciContextCmd) Run(e *env) (err error) {
	args := c.Command
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 && c.Output == "" {
		return fault.New(fault.Invalid, "nothing to do; say daybook luci-context -- COMMAND ARGS…, or --output FILE")
	}
	// The signals that end us are the command's, and what it does about them still needs us.
	ctx := context.WithoutCancel(e.ctx)
	l, err := c.openLink(ctx, e.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	host, err := l.Address(ctx)
	if err != nil {
		return err
	}
	server := host
	if l.server != nil {
		server = l.server.URL()
	}
	tools, err := serveTools(l.conn, func(ctx context.Context) string { return cmp.Or(l.tokenFor(ctx), anyToken) })
	if err != nil {
		return err
	}
	defer tools.Close()
	file, err := tools.writeContext(c.Output)
	if err != nil {
		return err
	}
	defer func() {
		if gone := os.Remove(file); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove the context: %w", gone))
		}
	}()
	variables := []string{localauth.Variable + "=" + file, pubsubVariable + "=" + tools.pubsub, "DAYBOOK_HOST=" + host, "DAYBOOK_SERVER=" + server}
	if len(args) > 0 {
		if l.tokenGiven {
			variables = append(variables, "DAYBOOK_TOKEN="+l.credential(ctx))
		}
		return runWith(args, variables)
	}
	// At once: who waits for them finds all.
	if _, err := fmt.Fprintln(e.stdout, strings.Join(variables, "\n")); err != nil {
		return fmt.Errorf("print the variables: %w", err)
	}
	<-e.ctx.Done()
	return nil
}

// runWith runs a command with more variables in its environment. The error has its exit code.
func runWith(args, variables []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), variables...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// From before the command runs: what should end it must not end us before it.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		signal.Stop(signals)
		code := 127
		if errors.Is(err, fs.ErrPermission) {
			code = 126
		}
		return &exitError{code, err}
	}
	var passing sync.WaitGroup
	passing.Go(func() {
		for s := range signals {
			// Ctrl-C of a terminal reaches the command without our help.
			if s != os.Interrupt || !term.IsTerminal(int(os.Stdin.Fd())) {
				_ = cmd.Process.Signal(s) // it may have ended
			}
		}
	})
	err := cmd.Wait()
	signal.Stop(signals)
	close(signals)
	passing.Wait()
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return err
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &exitError{code: 128 + int(status.Signal())}
	}
	return &exitError{code: ended.ExitCode()}
}

// tools is what serves the tools of this machine: tokens, and a place to publish.
type tools struct {
	tokens  *localauth.Server
	port    int    // of tokens
	pubsub  string // host:port
	http    *http.Server
	grpc    *grpc.Server
	serving sync.WaitGroup
}

// serveTools serves tools with a token, on ports of loopback. What they publish goes to the server.
func serveTools(server grpc.ClientConnInterface, token func(context.Context) string) (*tools, error) {
	t := &tools{tokens: localauth.New(token), grpc: grpc.NewServer(client.ServerOptions()...)}
	// The protocol of tokens has only a port, of this address.
	tokens, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve tokens: %w", err)
	}
	published, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve Pub/Sub: %w", err), tokens.Close())
	}
	t.port, t.pubsub = tokens.Addr().(*net.TCPAddr).Port, published.Addr().String()
	t.http = &http.Server{Handler: t.tokens, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second}
	pubsubpb.RegisterPublisherServer(t.grpc, publisher{to: pubsubpb.NewPublisherClient(server)})
	t.serving.Go(func() { _ = t.http.Serve(tokens) })    // until Close
	t.serving.Go(func() { _ = t.grpc.Serve(published) }) // until Close
	return t, nil
}

// writeContext writes the file for tools, which nobody else may read: to path, or else to a temporary file. It returns where it is.
func (t *tools) writeContext(path string) (string, error) {
	var outer []byte
	if p := os.Getenv(localauth.Variable); p != "" {
		var err error
		if outer, err = os.ReadFile(p); err != nil {
			return "", fmt.Errorf("read the context that %s names: %w", localauth.Variable, err)
		}
	}
	content, err := t.tokens.Context(outer, t.port)
	if err != nil {
		return "", err
	}
	dir := os.TempDir()
	if path != "" {
		dir = filepath.Dir(path)
	}
	f, err := os.CreateTemp(dir, "luci-context-*.json")
	if err != nil {
		return "", fmt.Errorf("write the context: %w", err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Close())
	name := f.Name()
	if err == nil && path != "" {
		// Who waits for the file finds it whole.
		if err = os.Rename(name, path); err == nil {
			name = path
		}
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("write the context: %w", err), os.Remove(name))
	}
	return name, nil
}

// Close ends the serving.
func (t *tools) Close() {
	_ = t.http.Close()
	t.grpc.Stop()
	t.serving.Wait()
}

// publisher passes on what is published: its clients cannot encrypt, and have no token.
type publisher struct {
	pubsubpb.UnimplementedPublisherServer
	to pubsubpb.PublisherClient
}

func (p publisher) Publish(ctx context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	resp, err := p.to.Publish(ctx, r)
	return resp, fault.GRPC(err)
}

func (p publisher) GetTopic(ctx context.Context, r *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	topic, err := p.to.GetTopic(ctx, r)
	return topic, fault.GRPC(err)
}
