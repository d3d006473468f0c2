package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/daybook-dev/daybook/butler/bootstrap"
)

type butlerCmd struct {
	captureFlags
	Listen string `help:"Address for programs: unix:/PATH, tcp4:127.0.0.1:PORT (for containers), net.pipe:NAME (on Windows). By default a new socket." placeholder:"ADDRESS"`
}

func (c *butlerCmd) Help() string {
	return "Runs until SIGINT or SIGTERM; the streams that are open then end with what has been written to them. On stdout it prints the environment variables " +
		"by which programs find it, one a line, and on stderr the address of the prefix's pages. Below systemd it tells when it is ready.\n\n" +
		"Programs open streams with the libraries in clients/ and package streamclient, with LogDog's, or with daybook stream.\n\n" + redactHelp()
}

func (c *butlerCmd) Run(e *env) error {
	ctx := context.WithoutCancel(e.ctx)
	k, err := c.open(ctx, e, []string{"butler"}, c.Listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "daybook: %s\n", k.page(string(k.prefix)))
	_, err = fmt.Fprintln(e.stdout, strings.Join(bootstrap.New(k.streams.Address(), k.out.URLConstructionEnv()).Apply(nil), "\n"))
	notify(k.log, daemon.SdNotifyReady)
	if err == nil {
		select {
		case <-e.ctx.Done():
		case <-k.refusal:
		}
	}
	notify(k.log, daemon.SdNotifyStopping)
	k.endStreams()
	end, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	k.finish(end)
	return cmp.Or(err, k.failure())
}

// notify tells systemd, if it is around.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notify systemd", "error", err)
	}
}
